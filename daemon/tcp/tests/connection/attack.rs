//! A peer that knows every number and means no good, and an application in any mood: whatever they
//! do, nothing panics, nothing loops, and what is promised to hold holds. Seeds choose what they do,
//! or a fuzzer.

use fourwave_tcp::{Active, Buffers, Config, CongestionControl, Passive, Settings, State, Tcb};
use fourwave_wire::{Flags, IcmpKind, Options, SackBlock, SackBlocks, Segment, Timestamps};

use crate::random::Random;

const MS: u64 = 1_000_000;
/// Close enough to the wrap that every run crosses it.
const OUR_ISS: u32 = u32::MAX - 20;
const PEER_ISS: u32 = u32::MAX - 40;
/// Steps of one run at most.
const STEPS: u64 = 80;
/// More segments than one call can make due: the send buffer in the smallest segments.
const BURST_LIMIT: usize = 20_000;

/// How far bytes were received.
#[derive(Default)]
struct Received {
    end: u64,
    /// No memory now.
    is_full: bool,
}

impl Buffers for Received {
    fn store(&mut self, offset: u64, bytes: &[u8]) -> bool {
        if !self.is_full {
            self.end = self.end.max(offset + bytes.len() as u64);
        }
        !self.is_full
    }
}

/// One connection under attack.
pub(crate) struct Attack {
    tcb: Tcb,
    cfg: Config,
    now: u64,
    received: Received,
    random: Random,
    written: u64,
    read: u64,
    /// Highest in-order edge seen.
    tail: u64,
}

impl Attack {
    pub(crate) fn new(mut random: Random) -> Attack {
        let algorithms = [CongestionControl::Cubic, CongestionControl::NewReno];
        let cfg = Config {
            timestamps: random.chance(50),
            sack: random.chance(80),
            congestion_control: algorithms[random.below(2) as usize],
            recv_window_max: [1, 700, 65_536, 1 << 20][random.below(4) as usize],
            send_buffer: 20_000,
            ..Config::default()
        };
        let now = 1_000_000 * MS;
        let is_v4 = random.chance(50);
        let tcb = if random.chance(30) {
            let active = Active { iss: OUR_ISS, is_v4, mss: 1400, ts_offset: 7 };
            Tcb::active(&cfg, now, &active)
        } else {
            let passive = Passive {
                iss: OUR_ISS,
                irs: PEER_ISS,
                is_v4,
                mss: 1000,
                peer_mss: random.chance(70).then_some(random.next() as u16),
                peer_window_scale: random.chance(50).then_some(random.below(16) as u8),
                peer_timestamp: random.chance(50).then_some(5),
                sack_permitted: random.chance(80),
                ecn: random.chance(50),
                ts_offset: 0,
                peer_window: 60_000,
                rtt: Some(10 * MS),
                syn_retransmits: random.below(3) as u8,
            };
            Tcb::passive(&cfg, now, &passive)
        };
        let received = Received::default();
        Attack { tcb, cfg, now, received, random, written: 0, read: 0, tail: 0 }
    }

    pub(crate) fn run(&mut self) {
        for _ in 0..STEPS {
            if self.random.is_over() {
                break;
            }
            self.step();
        }
    }

    /// A number near one that matters, or any.
    fn number(&mut self, places: &[u64]) -> u32 {
        let place = places[self.random.below(places.len() as u64) as usize] as u32;
        match self.random.below(10) {
            0 => self.random.next() as u32,
            1 => place.wrapping_add(1 << 31),
            2 | 3 => place.wrapping_add(self.random.below(70_000) as u32),
            4 => place.wrapping_sub(self.random.below(70_000) as u32),
            5 | 6 => place.wrapping_add(self.random.below(4) as u32).wrapping_sub(2),
            _ => place,
        }
    }

    fn segment(&mut self) {
        let places = [0, 1, 1 + self.tcb.rcv_tail(), 2 + self.tcb.rcv_tail()];
        let seq = PEER_ISS.wrapping_add(self.number(&places));
        let acked = [1, 1 + self.tcb.snd_acked(), 1 + self.tcb.snd_sent(), 2 + self.tcb.snd_sent()];
        let ack = OUR_ISS.wrapping_add(self.number(&acked));
        let any = Flags(self.random.next() as u8);
        let usual = [Flags::ACK, Flags::ACK, Flags::ACK | Flags::FIN, Flags::SYN, any];
        let flags = usual[self.random.below(5) as usize];
        // Resets end the fun too soon to come often.
        let flags = if self.random.chance(90) { Flags(flags.0 & !Flags::RST.0) } else { flags };
        let len = [0, 0, 1, 100, 1400, 9000][self.random.below(6) as usize];
        let timestamps = self.random.chance(40).then(|| Timestamps {
            value: self.random.below(40) as u32,
            echo: self.random.next() as u32,
        });
        let mut sack = SackBlocks::default();
        for _ in 0..self.random.below(5) * self.random.below(2) {
            let left = OUR_ISS.wrapping_add(self.number(&acked));
            let right = left.wrapping_add(self.random.below(3000) as u32);
            sack.push(SackBlock { left, right });
        }
        let options = Options {
            sack,
            sack_permitted: self.random.chance(50),
            mss: self.random.chance(20).then_some(self.random.next() as u16),
            window_scale: self.random.chance(20).then_some(self.random.below(15) as u8),
            timestamps,
        };
        let window = [0, 0, 1, 500, 65_535][self.random.below(5) as usize];
        let payload = vec![0; len];
        let congested = self.random.chance(20);
        let segment =
            Segment { seq, ack, flags, window, urgent: 9, options, congested, payload: &payload };
        self.received.is_full = self.random.chance(10);
        let state = self.tcb.state();
        let reaction = self.tcb.handle_segment(&self.cfg, self.now, &segment, &mut self.received);
        assert!(state != State::Closed || reaction.events.is_empty());
    }

    fn icmp(&mut self) {
        let seq = OUR_ISS.wrapping_add(self.number(&[0, 1 + self.tcb.snd_acked()]));
        let mtu = self.random.below(2000) as u32;
        let kind = [IcmpKind::PacketTooBig { mtu }, IcmpKind::HostUnreachable]
            [self.random.below(2) as usize];
        let _ = self.tcb.handle_icmp(&self.cfg, self.now, seq, kind);
    }

    /// The application, or whoever claims to be it.
    fn application(&mut self) {
        match self.random.below(12) {
            0..=4 => {
                let tail = self.written + self.random.below(9000);
                if self.tcb.set_send_tail(&self.cfg, tail).is_ok() {
                    self.written = tail;
                }
            }
            5..=8 => {
                let head = self.read + self.random.below(9000);
                if self.tcb.set_consumed(head).is_ok() {
                    self.read = head;
                }
            }
            9 => {
                let settings = self.settings();
                self.tcb.apply(&self.cfg, self.now, &settings);
                self.tcb.set_quickack(&self.cfg, self.random.chance(50));
                let _ = self.tcb.info(&self.cfg, self.now);
            }
            10 => {
                let _ = self.tcb.shutdown_write();
            }
            _ if self.random.chance(20) => {
                let _ = self.tcb.close(&self.cfg, self.now);
            }
            _ if self.random.chance(10) => {
                let _ = self.tcb.abort();
            }
            _ => {}
        }
    }

    fn settings(&mut self) -> Settings {
        let random = &mut self.random;
        let mut settings = Settings::default();
        settings.keepalive_time = random.below(3) as u32;
        settings.user_timeout = [0, 1, 5000][random.below(3) as usize];
        settings.linger = random.below(3) as u32;
        settings.fin_timeout = random.below(3) as i16 - 1;
        settings.recv_buffer = [0, 1, 2000, u32::MAX][random.below(4) as usize];
        settings.max_segment = [0, 88, 1000][random.below(3) as usize];
        settings.set_nodelay(random.chance(50));
        settings.set_cork(random.chance(30));
        settings.set_keepalive(random.chance(50));
        settings
    }

    fn flush(&mut self) {
        for _ in 0..BURST_LIMIT {
            let before = self.tcb.snd_sent();
            let Some(sent) = self.tcb.poll_transmit(&self.cfg, self.now) else { return };
            if sent.payload.is_empty() {
                continue;
            }
            assert!(sent.payload.end <= self.written && sent.payload.start >= self.tcb.snd_acked());
            assert!(sent.payload.end - sent.payload.start <= u64::from(self.tcb.largest_segment()));
            let new = sent.payload.end > before;
            let allowed = self.tcb.snd_acked() + u64::from(self.tcb.send_window());
            assert!(!new || sent.payload.end <= allowed, "beyond the peer's window");
        }
        panic!("poll_transmit does not come to an end");
    }

    fn step(&mut self) {
        match self.random.below(10) {
            0..=5 => self.segment(),
            6 => self.icmp(),
            7 => {
                let pause = [0, 1, 40, 1000, 100_000][self.random.below(5) as usize];
                self.now += pause * MS;
                let _ = self.tcb.handle_timer(&self.cfg, self.now);
            }
            _ => self.application(),
        }
        if self.random.chance(60) {
            self.flush();
            // Nothing is left without a timer that will ask for an answer.
            let waits = self.tcb.snd_sent() > self.tcb.snd_acked();
            let sends = self.tcb.state() != State::Closed;
            assert!(!(waits && sends) || self.tcb.deadline().is_some());
        }
        let tail = self.tcb.rcv_tail();
        assert!(tail >= self.tail, "the edge went back");
        assert!(tail - self.read <= u64::from(self.cfg.recv_window_max));
        assert!(self.received.end >= tail);
        assert!(self.received.end <= self.read + u64::from(self.cfg.recv_window_max));
        self.tcb.check(&self.cfg);
        assert!(self.tcb.snd_acked() <= self.tcb.snd_sent() && self.tcb.snd_sent() <= self.written);
        self.tail = tail;
    }
}
