//! A connection under a script: segments are texts, see [`crate::segment`]; time is in milliseconds.

use fourwave_tcp::{
    Active, Buffers, Config, CongestionControl, DropReason, Events, Nanos, Passive, State, Tcb,
    Transmit,
};
use fourwave_wire::{Flags, Options, SackBlock, SackBlocks, Segment, Timestamps};

pub(crate) use crate::segment::stream_byte;
use crate::segment::{Text, relative};

pub(crate) const MS: Nanos = 1_000_000;
/// Close enough to the wrap that every script crosses it.
pub(crate) const OUR_ISS: u32 = u32::MAX - 20;
pub(crate) const PEER_ISS: u32 = u32::MAX - 40;
pub(crate) const MSS: u64 = 1000;

/// What was received, by stream offset.
#[derive(Default)]
pub(crate) struct Received {
    pub(crate) bytes: Vec<u8>,
    /// No memory from now on.
    pub(crate) is_full: bool,
}

impl Buffers for Received {
    fn store(&mut self, offset: u64, bytes: &[u8]) -> bool {
        if self.is_full {
            return false;
        }
        let (start, end) = (offset as usize, offset as usize + bytes.len());
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes[start..end].copy_from_slice(bytes);
        true
    }
}

pub(crate) struct Script {
    pub(crate) tcb: Tcb,
    pub(crate) cfg: Config,
    pub(crate) now: Nanos,
    pub(crate) received: Received,
    /// Everything that happened since it was last taken.
    pub(crate) events: Events,
    written: u64,
    consumed: u64,
}

/// Scripts read better without timestamps, and with windows that halve; those about other things
/// turn them on.
pub(crate) fn plain() -> Config {
    let congestion_control = CongestionControl::NewReno;
    Config { timestamps: false, congestion_control, ..Config::default() }
}

/// Where a passive script starts: MSS 1000, no scaling, the peer's window 60000.
pub(crate) fn passive() -> Passive {
    Passive {
        iss: OUR_ISS,
        irs: PEER_ISS,
        is_v4: true,
        mss: MSS as u16,
        peer_mss: Some(MSS as u16),
        peer_window_scale: None,
        peer_timestamp: None,
        sack_permitted: false,
        ecn: false,
        ts_offset: 0,
        peer_window: 60_000,
        rtt: Some(10 * MS),
        syn_retransmits: 0,
    }
}

impl Script {
    /// A server's connection whose handshake is complete.
    pub(crate) fn server() -> Script {
        Script::passive(plain(), &passive())
    }

    /// The same, SACK agreed.
    pub(crate) fn sacking() -> Script {
        Script::passive(plain(), &Passive { sack_permitted: true, ..passive() })
    }

    pub(crate) fn passive(cfg: Config, passive: &Passive) -> Script {
        let now = 1_000_000 * MS;
        let tcb = Tcb::passive(&cfg, now, passive);
        let mut script = Script::new(cfg, now, tcb);
        if passive.peer_timestamp.is_none() {
            script.inject(". 1 ack 1 win 60000");
            script.silent();
        }
        script
    }

    /// A client's connection, SYN due.
    pub(crate) fn client(cfg: Config) -> Script {
        let now = 1_000_000 * MS;
        let active = Active { iss: OUR_ISS, is_v4: true, mss: MSS as u16, ts_offset: 0 };
        let tcb = Tcb::active(&cfg, now, &active);
        Script::new(cfg, now, tcb)
    }

    fn new(cfg: Config, now: Nanos, tcb: Tcb) -> Script {
        let (received, events) = (Received::default(), Events::NONE);
        Script { tcb, cfg, now, received, events, written: 0, consumed: 0 }
    }

    /// A segment from the peer; returns why it was not taken, if so.
    #[track_caller]
    pub(crate) fn inject(&mut self, text: &str) -> Option<DropReason> {
        let text = parse(text);
        let first = text.seq + i64::from(text.flags.contains(Flags::SYN)) - 1;
        let payload: Vec<u8> = (first..first + text.len).map(|at| stream_byte(at as u64)).collect();
        let segment = Segment {
            seq: PEER_ISS.wrapping_add(text.seq as u32),
            ack: text.ack.map_or(0, |ack| OUR_ISS.wrapping_add(ack as u32)),
            flags: text.flags,
            window: text.window.unwrap_or(60_000),
            options: options(&text),
            congested: text.tos.is_some_and(|tos| tos & 3 == 3),
            payload: &payload,
            ..Segment::default()
        };
        let reaction = self.tcb.handle_segment(&self.cfg, self.now, &segment, &mut self.received);
        self.events |= reaction.events;
        reaction.drop
    }

    /// The next segment that we send is this one. What `text` does not mention may be anything.
    #[track_caller]
    pub(crate) fn expect(&mut self, text: &str) -> Transmit {
        let Some(sent) = self.tcb.poll_transmit(&self.cfg, self.now) else {
            panic!("expected {text}, nothing was sent; {:?}", self.tcb);
        };
        let seen = show(&sent);
        assert!(parse(text).matches(&seen), "expected {text}, sent {seen}");
        sent
    }

    /// Nothing is due.
    #[track_caller]
    pub(crate) fn silent(&mut self) {
        if let Some(sent) = self.tcb.poll_transmit(&self.cfg, self.now) {
            panic!("expected nothing, sent {}", show(&sent));
        }
    }

    /// Time passes; timers fire on time, and what they make due is left to be expected.
    pub(crate) fn wait(&mut self, ms: u64) {
        let until = self.now + ms * MS;
        while let Some(deadline) = self.tcb.deadline().filter(|deadline| *deadline <= until) {
            self.now = self.now.max(deadline);
            let reaction = self.tcb.handle_timer(&self.cfg, self.now);
            self.events |= reaction.events;
        }
        self.now = until;
    }

    /// The application writes `len` bytes.
    pub(crate) fn write(&mut self, len: u64) {
        self.written += len;
        self.tcb.set_send_tail(&self.cfg, self.written).unwrap();
    }

    /// The application reads all there is.
    pub(crate) fn read(&mut self) {
        self.read_to(self.tcb.rcv_tail());
    }

    /// The application reads up to this offset.
    pub(crate) fn read_to(&mut self, head: u64) {
        self.tcb.set_consumed(head).unwrap();
        self.consumed = head;
    }

    /// How far it has read.
    pub(crate) fn read_so_far(&self) -> u64 {
        self.consumed
    }

    pub(crate) fn close(&mut self) {
        let reaction = self.tcb.close(&self.cfg, self.now);
        self.events |= reaction.events;
    }

    pub(crate) fn shutdown(&mut self) {
        let reaction = self.tcb.shutdown_write();
        self.events |= reaction.events;
    }

    #[track_caller]
    pub(crate) fn state(&mut self, state: State) {
        assert_eq!(self.tcb.state(), state);
    }

    /// Exactly these things happened since the last look.
    #[track_caller]
    pub(crate) fn happened(&mut self, events: Events) {
        assert_eq!(std::mem::take(&mut self.events), events);
    }

    /// What arrived is the peer's stream, so far `len` bytes of it in order.
    #[track_caller]
    pub(crate) fn has_received(&self, len: u64) {
        assert_eq!(self.tcb.rcv_tail(), len);
        let wrong = (0..len).find(|at| self.received.bytes[*at as usize] != stream_byte(*at));
        assert_eq!(wrong, None);
    }
}

#[track_caller]
fn parse(text: &str) -> Text {
    Text::parse(&mut text.split_whitespace(), &mut |_, _| Ok(false)).expect(text)
}

/// The options of a segment from the peer: its blocks name our numbers.
fn options(text: &Text) -> Options {
    let mut sack = SackBlocks::default();
    for (left, right) in text.sack.iter().flatten() {
        let number = |relative: i64| OUR_ISS.wrapping_add(relative as u32);
        assert!(sack.push(SackBlock { left: number(*left), right: number(*right) }));
    }
    let timestamps = text.timestamps.flatten().map(|(value, echo)| Timestamps { value, echo });
    Options {
        mss: text.mss.flatten(),
        window_scale: text.window_scale.flatten(),
        sack_permitted: text.sack_permitted == Some(true),
        timestamps,
        sack,
    }
}

/// What we send: its blocks name the peer's numbers.
fn show(sent: &Transmit) -> Text {
    let len = (sent.payload.end - sent.payload.start) as i64;
    let seq = relative(sent.seq, OUR_ISS);
    // Relative sequence number and stream offset tell the same place.
    assert!(len == 0 || seq == sent.payload.start as i64 + 1, "{sent:?}");
    let acks = sent.flags.contains(Flags::ACK);
    let mut text = Text {
        flags: sent.flags,
        seq,
        len,
        ack: acks.then(|| relative(sent.ack, PEER_ISS)),
        window: Some(sent.window),
        ..Text::default()
    };
    text.set_options(&sent.options, PEER_ISS);
    text
}
