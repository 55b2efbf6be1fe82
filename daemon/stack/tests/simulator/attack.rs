//! One shard against peers that know every number and send anything, and applications in any mood.

use std::rc::Rc;
use std::sync::Arc;

use fourwave_stack::{Keys, ListenerShared, Shard, SynCookies};
use fourwave_tcp::{Nanos, SeqNum};
use fourwave_wire::{
    Addr, ChecksumPolicy, Endpoint, Flags, FourTuple, FrameHead, Inbound, Link, Options, SackBlock,
    Segment, Timestamps, build, parse,
};

use crate::app::{App, STRANGER};
use crate::draw::{MICROS, MILLIS, SECONDS, host_config, settings};
use crate::frame::{Frame, mend_checksums, too_big};
use crate::host::{Directory, SimHost};
use crate::rng::Rng;
use crate::trace::{Fate, Trace};

const PORT: u16 = 80;
/// Steps of one seed at most.
const STEPS: u64 = 150;
/// Peers, one for each port and family, so that their connections meet.
const PEERS: u64 = 6;
/// Then the last record is gone.
const END: Nanos = 4 * 3600 * SECONDS;
/// Frames without data in reaction to one frame.
const ANSWERS: usize = 2;
/// More frames than one round can make due: every send buffer in the smallest segments.
const MOST_FRAMES: usize = 100_000;
/// A stranger's frames that are kept to be sent again.
const KEPT: usize = 8;

/// What one stranger has seen and said; as the shard's side calls it.
#[derive(Clone, Copy, Default)]
struct Peer {
    /// The shard's next number, the oldest that was not acknowledged, its initial one.
    sent: u32,
    acked: u32,
    iss: u32,
    /// What the shard expects next of the peer.
    expected: u32,
    /// The newest timestamp of the shard, and the peer's clock.
    timestamp: u32,
    clock: u32,
    /// The largest scale that it has offered.
    scale: u8,
    /// The right-most edge that it has offered to the port that the shard's last SYN came from.
    edge: Option<SeqNum>,
    edge_port: u16,
    /// The shard's initial number and its next from there.
    edge_iss: u32,
    edge_sent: u32,
    /// The port that the shard talks from.
    local_port: u16,
}

pub(crate) struct Attack {
    now: Nanos,
    rng: Rng,
    shard: Shard,
    host: SimHost,
    listener: Arc<ListenerShared>,
    peers: Vec<Peer>,
    kept: Vec<Vec<u8>>,
    /// Spoilt frames are sent too: what was offered is not known then.
    is_noisy: bool,
    last_sent: Vec<u8>,
    frame: Frame,
    trace: Trace,
    pub(crate) segments: u64,
}

impl Attack {
    pub(crate) fn new(mut rng: Rng) -> Attack {
        let mut own = Rng::new(rng.below(256));
        let keys = Keys::generate(|| own.next());
        let cookies = [SynCookies::Off, SynCookies::OnOverflow, SynCookies::Always];
        let cookies = rng.pick(&cookies);
        let config = host_config(&mut rng, cookies, 4);
        let window = config.tcp.recv_window_max;
        let now = rng.below(1_000) * SECONDS;
        let mut shard = Shard::new(config, keys, now).unwrap();
        let listener = ListenerShared::new(rng.pick(&[0, 2, 16]));
        let any = Endpoint { addr: Addr::UNSPECIFIED, port: PORT };
        shard.listen(0, any, false, listener.clone()).unwrap();
        let host = SimHost::new(0, window, own, Rc::clone(&Directory::default()));
        let peer = Peer { local_port: PORT, ..Peer::default() };
        let is_noisy = rng.chance(500);
        Attack {
            now,
            rng,
            shard,
            host,
            listener,
            peers: vec![peer; PEERS as usize],
            kept: Vec::new(),
            is_noisy,
            last_sent: Vec::new(),
            frame: Frame::new(None),
            trace: Trace::from_env(),
            segments: 0,
        }
    }

    pub(crate) fn run(&mut self) {
        for _ in 0..STEPS {
            if self.rng.is_over() {
                break;
            }
            self.step();
        }
        self.end();
    }

    fn step(&mut self) {
        match self.rng.below(12) {
            0..=6 => self.segment(),
            7 => self.noise(),
            8 => self.icmp(),
            9 => self.now += self.rng.pick(&[MICROS, MILLIS, 50 * MILLIS, SECONDS, 100 * SECONDS]),
            _ => self.application(),
        }
        if self.rng.chance(700) {
            self.round();
        }
        self.check();
    }

    /// What goes to the shard is one frame; what comes back at once is bounded.
    fn inject(&mut self) {
        self.segments += 1;
        self.host.now = self.now;
        self.trace.frame(self.now, 0, &self.frame, Fate::Carried);
        let before = self.host.out.len();
        self.shard.handle_frame(self.now, self.frame.bytes(), &mut self.host);
        let answers = self.host.out.len() - before;
        // A connection whose end was waiting for a flush may be flushed with all that it has.
        let is_flush = self.host.out[before..].iter().any(|frame| has_data(frame.bytes()));
        assert!(answers <= ANSWERS || is_flush, "{answers} frames for one");
    }

    fn segment(&mut self) {
        let number = self.rng.below(PEERS) as usize;
        let peer = self.peers[number];
        let head = match self.rng.below(10) {
            0..=2 => self.proper_syn(number),
            3..=6 => self.proper_segment(number),
            _ => self.any_segment(number),
        };
        let len = self.rng.pick(&[0, 0, 0, 1, 100, 1_400]);
        let room = self.frame.room();
        let len = build(room, &head, len, |out| out.fill(0x5a)).unwrap();
        self.frame.set_len(len);
        let edge = SeqNum(head.ack).plus(u32::from(head.window) << peer.scale);
        let is_meant = peer.edge_port == head.tuple.remote.port
            && SeqNum(head.ack).after(SeqNum(peer.edge_iss))
            && !SeqNum(head.ack).after(SeqNum(peer.edge_sent));
        if let Some(known) = &mut self.peers[number].edge
            && is_meant
            && edge.after(*known)
        {
            *known = edge;
        }
        self.keep();
        self.inject();
    }

    /// The head of any segment of a peer.
    fn head(&self, number: usize) -> FrameHead {
        let v6 = number % 2 == 1;
        let local = Endpoint { addr: SimHost::address(1, v6), port: 1_000 + number as u16 / 2 };
        let port = self.peers[number].local_port;
        let remote = Endpoint { addr: SimHost::address(0, v6), port };
        FrameHead {
            link: Link::new(SimHost::mac(0), SimHost::mac(1)),
            tuple: FourTuple { local, remote },
            ttl: 64,
            ..FrameHead::default()
        }
    }

    fn proper_syn(&mut self, number: usize) -> FrameHead {
        let rng = &mut self.rng;
        let scale = if rng.chance(500) { Some(rng.below(15) as u8) } else { None };
        let peer = &mut self.peers[number];
        peer.scale = peer.scale.max(scale.unwrap_or(0));
        if rng.chance(700) {
            peer.local_port = PORT;
        }
        peer.clock = peer.clock.wrapping_add(rng.pick(&[0, 1, 1_000]));
        let value = Timestamps { value: peer.clock, echo: 0 };
        let options = Options {
            mss: if rng.chance(700) { Some(rng.pick(&[0, 1, 536, 1_460, 65_535])) } else { None },
            window_scale: scale,
            sack_permitted: rng.chance(700),
            timestamps: if rng.chance(500) { Some(value) } else { None },
            ..Options::default()
        };
        let seq = match rng.below(4) {
            0 => peer.expected,
            1 => peer.expected.wrapping_add(100_000),
            2 => u32::MAX - 3,
            _ => rng.next() as u32,
        };
        if peer.expected == 0 {
            peer.expected = seq.wrapping_add(1);
        }
        let window = rng.pick(&[0, 1, 500, 65_535]);
        FrameHead { seq, flags: Flags::SYN, window, options, ..self.head(number) }
    }

    /// What a good peer would send next.
    fn proper_segment(&mut self, number: usize) -> FrameHead {
        let rng = &mut self.rng;
        let peer = self.peers[number];
        let fin = if rng.chance(100) { Flags::FIN } else { Flags::EMPTY };
        let timestamps = Timestamps { value: peer.clock, echo: peer.timestamp };
        FrameHead {
            seq: peer.expected,
            ack: if rng.chance(800) { peer.sent } else { peer.acked },
            flags: Flags::ACK | fin,
            window: rng.pick(&[0, 1, 500, 65_535, 65_535]),
            options: Options { timestamps: Some(timestamps), ..Options::default() },
            ..self.head(number)
        }
    }

    /// Anything, near to what matters.
    fn any_segment(&mut self, number: usize) -> FrameHead {
        let peer = self.peers[number];
        let seq = self.near(&[peer.expected, peer.expected.wrapping_sub(1)]);
        let places = [peer.sent, peer.acked, peer.iss, peer.iss.wrapping_add(1)];
        let ack = self.near(&places);
        let any = Flags(self.rng.below(256) as u8);
        let usual = [Flags::ACK, Flags::ACK | Flags::FIN, Flags::SYN | Flags::ACK, Flags::RST, any];
        let flags = self.rng.pick(&usual);
        let mut options = Options::default();
        if self.rng.chance(500) {
            let value = self.rng.pick(&[peer.clock, peer.clock.wrapping_sub(5), u32::MAX, 0]);
            options.timestamps = Some(Timestamps { value, echo: peer.timestamp });
        }
        if self.rng.chance(400) {
            for _ in 0..1 + self.rng.below(4) {
                let left = self.near(&places);
                let len = self.rng.pick(&[0, 1, 100, 1_460, 1 << 31]);
                options.sack.push(SackBlock { left, right: left.wrapping_add(len) });
            }
        }
        let window = self.rng.pick(&[0, 1, 500, 65_535]);
        let urgent = self.rng.pick(&[0, 1, 65_535]);
        FrameHead { seq, ack, flags, window, urgent, options, ..self.head(number) }
    }

    fn near(&mut self, places: &[u32]) -> u32 {
        let place = self.rng.pick(places);
        match self.rng.below(8) {
            0..=3 => place,
            4 => place.wrapping_add(1),
            5 => place.wrapping_add(self.rng.pick(&[100, 1_400, 65_535, 1 << 31])),
            6 => place.wrapping_sub(self.rng.pick(&[1, 100, 1_400, 70_000])),
            _ => self.rng.next() as u32,
        }
    }

    /// A kept frame again, as it was or spoilt: bytes changed, cut off, checksums right or wrong.
    fn noise(&mut self) {
        if self.kept.is_empty() || !self.is_noisy {
            return;
        }
        let at = self.rng.below(self.kept.len() as u64) as usize;
        self.frame.set(&self.kept[at]);
        for _ in 0..self.rng.below(4) {
            let len = self.frame.bytes().len() as u64;
            let at = self.rng.below(len.min(90)) as usize;
            self.frame.bytes_mut()[at] = self.rng.below(256) as u8;
        }
        if self.rng.chance(700) {
            mend_checksums(self.frame.bytes_mut());
        }
        if self.rng.chance(100) {
            let len = self.frame.bytes().len() as u64;
            self.frame.cut(self.rng.below(len) as usize);
        }
        self.inject();
    }

    /// About the frame that the shard sent last.
    fn icmp(&mut self) {
        if self.last_sent.is_empty() {
            return;
        }
        let mtu = self.rng.pick(&[0, 60, 552, 1_000, 1_280, 1_400, 65_535]);
        too_big(&self.last_sent, mtu, &mut self.frame);
        if self.rng.chance(500) {
            let at = if self.last_sent[12] == 0x86 { 54 } else { 34 };
            let (kind, code) = (self.rng.below(16) as u8, self.rng.below(16) as u8);
            self.frame.bytes_mut()[at..at + 2].copy_from_slice(&[kind, code]);
            mend_checksums(self.frame.bytes_mut());
        }
        self.inject();
    }

    fn keep(&mut self) {
        if self.kept.len() == KEPT {
            self.kept.remove(0);
        }
        self.kept.push(self.frame.bytes().to_vec());
    }

    /// An application, or whoever claims to be one, does something.
    fn application(&mut self) {
        if self.rng.chance(150) {
            return self.connect();
        }
        if self.host.living.is_empty() {
            return;
        }
        let at = self.rng.below(self.host.living.len() as u64) as usize;
        let app = &mut self.host.apps.0[self.host.living[at]];
        let (shard, rng, now) = (&mut self.shard, &mut self.rng, self.now);
        if app.queued && !app.usable {
            app.usable = true;
            shard.accepted(0, app.conn);
        }
        if !app.usable || !app.open {
            return;
        }
        match rng.below(10) {
            0..=3 => {
                let tail = app.written + rng.pick(&[0, 1, 100, 5_000, 100_000]);
                if !app.closed && shard.send(app.conn, tail).is_ok() {
                    app.written = tail;
                }
            }
            4 | 5 => {
                let head = app.consumed + rng.pick(&[0, 1, 100, 100_000]);
                if shard.consumed(app.conn, head.min(app.rcv_tail)).is_ok() {
                    app.consumed = head.clamp(app.consumed, app.rcv_tail);
                }
            }
            6 => {
                let _ = shard.shutdown_write(app.conn);
            }
            7 => {
                let _ = shard.apply(now, app.conn, &settings(rng));
                let _ = shard.set_quickack(app.conn, rng.chance(500));
                let _ = shard.info(now, app.conn);
            }
            8 => {
                app.open = false;
                let _ = shard.close(now, app.conn);
            }
            _ if rng.chance(300) => {
                app.open = false;
                let _ = shard.abort(app.conn);
            }
            _ => {}
        }
    }

    fn connect(&mut self) {
        let number = self.rng.below(PEERS) as usize;
        let remote = self.head(number).tuple.local;
        let app = self.host.apps.0.len() as u64;
        self.host.now = self.now;
        if let Ok((conn, tuple)) = self.shard.connect(self.now, app, None, remote, &mut self.host) {
            self.host.add(App::new(STRANGER, 0, conn, self.now));
            self.peers[number].local_port = tuple.local.port;
        }
    }

    /// Timers and output; the strangers read what comes.
    fn round(&mut self) {
        self.host.now = self.now;
        while self.shard.next_deadline().is_some_and(|at| at <= self.now) {
            self.shard.advance(self.now, &mut self.host);
        }
        assert!(self.shard.flush(self.now, &mut self.host));
        assert!(self.host.out.len() < MOST_FRAMES);
        let mut out = std::mem::take(&mut self.host.out);
        for frame in out.drain(..) {
            self.trace.frame(self.now, 1, &frame, Fate::Carried);
            self.read(frame.bytes());
            self.last_sent.clear();
            self.last_sent.extend_from_slice(frame.bytes());
            self.host.spare.push(frame);
        }
        self.host.out = out;
    }

    fn read(&mut self, frame: &[u8]) {
        self.segments += 1;
        let tcp = match parse(frame, ChecksumPolicy::Verify) {
            Ok(Inbound::Tcp(tcp)) => tcp,
            other => panic!("the shard sends what is no segment: {other:?}"),
        };
        let Segment { seq, ack, flags, payload, options, .. } = tcp.segment;
        let number = usize::from(tcp.tuple.local.port.wrapping_sub(1_000)) * 2
            + usize::from(!tcp.tuple.is_v4());
        // Noise can come from other ports.
        let Some(peer) = self.peers.get_mut(number) else { return };
        if flags.contains(Flags::RST) {
            return;
        }
        let end = seq.wrapping_add(tcp.segment.sequence_len());
        if flags.contains(Flags::SYN) {
            // The SYN that it answers, or that answers it, may have offered that much. A cookie may
            // come back that was sent before this.
            let edge = SeqNum(seq).plus(1 + u32::from(u16::MAX));
            let is_known = !self.is_noisy && self.shard.config().syncookies == SynCookies::Off;
            let edge = Some(edge).filter(|_| is_known);
            let edge_port = tcp.tuple.remote.port;
            *peer = Peer { iss: seq, sent: end, acked: seq, edge, edge_port, ..*peer };
            (peer.edge_iss, peer.edge_sent) = (seq, end);
        } else if SeqNum(end).after(SeqNum(peer.sent)) {
            peer.sent = end;
        }
        if flags.contains(Flags::ACK) {
            peer.expected = ack;
        }
        if let Some(times) = options.timestamps {
            peer.timestamp = times.value;
        }
        if peer.edge_port != tcp.tuple.remote.port {
            return;
        }
        if SeqNum(end).after(SeqNum(peer.edge_sent)) {
            peer.edge_sent = end;
        }
        if let Some(edge) = peer.edge.filter(|_| !payload.is_empty()) {
            let last = SeqNum(seq).plus(payload.len() as u32);
            assert!(!last.after(edge), "{last:?} lies beyond the window's end {edge:?}");
        }
    }

    fn check(&mut self) {
        let mut living = 0;
        for &index in &self.host.living {
            let app = &self.host.apps.0[index];
            match self.shard.tcb(app.conn) {
                Ok(tcb) => {
                    assert!(!app.closed);
                    living += 1;
                    tcb.check(&self.shard.config().tcp);
                }
                Err(_) => assert!(app.closed, "a connection is gone without a word"),
            }
        }
        assert_eq!(self.shard.gauges().connections, living);
        self.host.forget_the_dead();
    }

    /// The strangers fall silent, the applications leave: nothing may be left in the end.
    fn end(&mut self) {
        self.round();
        let accepts = self.rng.chance(500);
        for app in self.host.apps.0.iter_mut().filter(|app| app.queued && !app.usable && accepts) {
            app.usable = true;
            self.shard.accepted(0, app.conn);
        }
        assert!(!accepts || self.listener.accept_len() == 0);
        self.shard.unlisten(self.now, 0);
        assert_eq!(self.listener.syn_len(), 0);
        for app in self.host.apps.0.iter_mut().filter(|app| app.open) {
            app.open = false;
            let waits = app.queued && !app.usable;
            // What waited has been reset.
            if !waits && self.rng.chance(800) {
                let _ = self.shard.close(self.now, app.conn);
            } else {
                let _ = self.shard.abort(app.conn);
            }
        }
        self.round();
        let start = self.now;
        while let Some(at) = self.shard.next_deadline() {
            self.now = self.now.max(at);
            assert!(self.now - start < END, "not over: {:?}", self.shard.gauges());
            self.round();
            self.check();
        }
        assert!(self.shard.is_empty(), "{:?}", self.shard.gauges());
        assert!(!self.shard.has_output());
        assert!(self.host.apps.0.iter().all(|app| app.closed));
    }
}

fn has_data(frame: &[u8]) -> bool {
    match parse(frame, ChecksumPolicy::Verify) {
        Ok(Inbound::Tcp(tcp)) => tcp.segment.sequence_len() > 0,
        Ok(Inbound::IcmpError(_)) | Err(_) => false,
    }
}
