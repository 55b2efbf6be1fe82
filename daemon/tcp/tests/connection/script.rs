//! A connection under a script: segments are written as tcpdump prints them, numbers relative to
//! the initial ones (0 is the SYN, 1 the first data byte), time in milliseconds.
//!
//! `FLAGS SEQ` or `FLAGS SEQ:END(LEN)`, then any of `ack N`, `win N`, `mss N`, `ws N`, `ts VALUE:ECHO`,
//! `sack L:R,L:R` (in an expectation `sack -` for no blocks), `sackok yes`.

use fourwave_tcp::{
    Active, Buffers, Config, CongestionControl, DropReason, Events, Nanos, Passive, State, Tcb,
    Transmit,
};
use fourwave_wire::{Flags, Options, SackBlock, SackBlocks, Segment, Timestamps};

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

/// The byte at `offset` of any test stream.
pub(crate) fn stream_byte(offset: u64) -> u8 {
    (offset.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

pub(crate) struct Script {
    pub(crate) tcb: Tcb,
    pub(crate) cfg: Config,
    pub(crate) now: Nanos,
    pub(crate) received: Received,
    /// Everything that happened since it was last taken.
    pub(crate) events: Events,
    written: u64,
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
        Script { tcb, cfg, now, received: Received::default(), events: Events::NONE, written: 0 }
    }

    /// A segment from the peer; returns why it was not taken, if so.
    #[track_caller]
    pub(crate) fn inject(&mut self, text: &str) -> Option<DropReason> {
        let parsed = Text::parse(text);
        let payload: Vec<u8> =
            (0..parsed.len).map(|i| stream_byte((parsed.seq + i).wrapping_sub(1))).collect();
        let segment = Segment {
            seq: PEER_ISS.wrapping_add(parsed.seq as u32),
            ack: parsed.ack.map_or(0, |ack| OUR_ISS.wrapping_add(ack as u32)),
            flags: parsed.flags,
            window: parsed.window.unwrap_or(60_000),
            options: Options { sack: parsed.blocks(), ..parsed.options },
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
        let wanted = Text::parse(text);
        let seen = Text::of(&sent);
        assert_eq!(seen.masked_by(&wanted), wanted, "expected {text}, sent {seen:?}");
        sent
    }

    /// Nothing is due.
    #[track_caller]
    pub(crate) fn silent(&mut self) {
        if let Some(sent) = self.tcb.poll_transmit(&self.cfg, self.now) {
            panic!("expected nothing, sent {:?}", Text::of(&sent));
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
        self.tcb.set_consumed(self.tcb.rcv_tail()).unwrap();
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

/// A segment as text.
#[derive(Clone, Debug, PartialEq)]
struct Text {
    flags: Flags,
    seq: u64,
    len: u64,
    ack: Option<u64>,
    window: Option<u16>,
    /// Relative numbers.
    sack: Option<Vec<(u64, u64)>>,
    options: Options,
}

impl Text {
    #[track_caller]
    fn parse(text: &str) -> Text {
        let mut words = text.split_whitespace();
        let flags = words.next().unwrap().bytes().fold(Flags::EMPTY, |flags, letter| {
            flags
                | match letter {
                    b'S' => Flags::SYN,
                    b'F' => Flags::FIN,
                    b'R' => Flags::RST,
                    b'P' => Flags::PSH,
                    b'.' => Flags::ACK,
                    b'-' => Flags::EMPTY,
                    other => panic!("no flag: {}", other as char),
                }
        });
        let place = words.next().unwrap();
        let (seq, end) = place.split_once(':').unwrap_or((place, place));
        let (seq, end) = (number(seq), number(end.split('(').next().unwrap()));
        let len = end - seq;
        assert!(place == seq.to_string() || place.ends_with(&format!("({len})")), "{text}");
        let mut parsed = Text {
            flags,
            seq,
            len,
            ack: None,
            window: None,
            sack: None,
            options: Options::default(),
        };
        while let Some(word) = words.next() {
            let value = words.next().unwrap();
            match word {
                "ack" => parsed.ack = Some(number(value)),
                "win" => parsed.window = Some(number(value) as u16),
                "mss" => parsed.options.mss = Some(number(value) as u16),
                "sack" => {
                    let blocks = value.split(',').filter_map(|block| block.split_once(':'));
                    parsed.sack = Some(blocks.map(|(l, r)| (number(l), number(r))).collect());
                }
                "sackok" => parsed.options.sack_permitted = value == "yes",
                "ws" => parsed.options.window_scale = Some(number(value) as u8),
                "ts" => {
                    let (value, echo) = value.split_once(':').unwrap();
                    let (value, echo) = (number(value) as u32, number(echo) as u32);
                    parsed.options.timestamps = Some(Timestamps { value, echo });
                }
                other => panic!("no such word: {other}"),
            }
        }
        parsed
    }

    fn of(sent: &Transmit) -> Text {
        let len = sent.payload.end - sent.payload.start;
        let seq = u64::from(sent.seq.wrapping_sub(OUR_ISS));
        // Relative sequence number and stream offset tell the same place.
        assert!(len == 0 || seq == sent.payload.start + 1, "{sent:?}");
        let acks = sent.flags.contains(Flags::ACK);
        Text {
            flags: sent.flags,
            seq,
            len,
            ack: acks.then(|| u64::from(sent.ack.wrapping_sub(PEER_ISS))),
            window: Some(sent.window),
            sack: Some(sent.options.sack.as_slice().iter().map(|block| relative(*block)).collect()),
            options: sent.options,
        }
    }

    /// The blocks of a segment from the peer: they name our numbers.
    fn blocks(&self) -> SackBlocks {
        let mut blocks = SackBlocks::default();
        for (left, right) in self.sack.iter().flatten() {
            let number = |relative: u64| OUR_ISS.wrapping_add(relative as u32);
            assert!(blocks.push(SackBlock { left: number(*left), right: number(*right) }));
        }
        blocks
    }

    /// What `wanted` does not mention is left out.
    fn masked_by(&self, wanted: &Text) -> Text {
        let options = Options {
            mss: wanted.options.mss.and(self.options.mss),
            window_scale: wanted.options.window_scale.and(self.options.window_scale),
            timestamps: wanted.options.timestamps.and(self.options.timestamps),
            sack_permitted: wanted.options.sack_permitted && self.options.sack_permitted,
            sack: SackBlocks::default(),
        };
        let window = wanted.window.and(self.window);
        let sack = wanted.sack.as_ref().and(self.sack.clone());
        Text { options, window, sack, ..self.clone() }
    }
}

/// A block that we send: it names the peer's numbers.
fn relative(block: SackBlock) -> (u64, u64) {
    let number = |number: u32| u64::from(number.wrapping_sub(PEER_ISS));
    (number(block.left), number(block.right))
}

#[track_caller]
fn number(text: &str) -> u64 {
    text.parse().unwrap_or_else(|_| panic!("no number: {text}"))
}
