//! SYN cookies: a handshake that needs no memory until its last ACK.
//!
//! When the SYN queue of a listener is full, our initial sequence number is made so that the ACK
//! of it says all that a record would have held. It is Linux's construction but for one thing:
//!
//! ```text
//! cookie = H(tuple) + peer's ISN + (minute << 24) + ((H(tuple, peer's ISN, minute) + MSS index) mod 2^24)
//! ```
//!
//! Linux does not hash the peer's ISN. Then an ACK out of the middle of a conversation in which both
//! sides have sent about as much, an echo, passes too: an old duplicate of it would open a connection
//! that nobody asked for.
//!
//! `minute` counts periods of 60 s. A cookie is good in the period it was made in and in the next,
//! so a blind guess is right once in 2^29. What the peer offered beyond an MSS fits only into the
//! timestamp that it echoes: the low six bits of ours are the window scale (15: none), SACK and ECN,
//! as in Linux. Without timestamps a connection out of a cookie has none of them.

use fourwave_tcp::{Config, Ecn, Nanos, Passive, timestamp};
use fourwave_wire::{Flags, FourTuple, FrameHead, Options, Segment, TcpFrame};

use crate::config::SynCookies;
use crate::host::{Host, ListenerId};
use crate::keys::Keys;
use crate::passive::{Handshake, Opened};
use crate::shard::Shard;
use crate::table::Flow;

/// A cookie's clock advances once in this time.
const PERIOD: Nanos = 60_000_000_000;
/// How many periods a cookie is good for.
const PERIODS: u32 = 2;
/// With `syncookies = 1`, an ACK is held against a cookie this long after one was last sent.
pub(crate) const VALID: Nanos = PERIODS as Nanos * PERIOD;

const COUNT_SHIFT: u32 = 24;
const DATA_MASK: u32 = (1 << COUNT_SHIFT) - 1;

/// The MSS that a cookie can carry: the largest of these that is not above the peer's (the first
/// if all are). For IPv4 they are Linux's. For IPv6: the least MTU, a tunnel over IPv4, PPPoE,
/// Ethernet; Linux has 8940 in place of PPPoE's, which frames of ours never reach.
const MSS_V4: [u16; 4] = [536, 1300, 1440, 1460];
const MSS_V6: [u16; 4] = [1220, 1420, 1432, 1440];

/// The bits of a timestamp that carry options, and which.
const OPTION_BITS: u32 = 0x3f;
const SCALE_BITS: u32 = 0xf;
const SACK_BIT: u32 = 1 << 4;
const ECN_BIT: u32 = 1 << 5;

impl Keys {
    /// The sequence number that remembers a SYN of `tuple` (as seen from us) with `irs` and an MSS.
    fn cookie(&self, tuple: &FourTuple, irs: u32, mss: Option<u16>, now: Nanos) -> u32 {
        let table = mss_table(tuple);
        let mss = mss.unwrap_or(0);
        // Four entries.
        let index = table.iter().rposition(|&entry| entry <= mss).unwrap_or(0) as u32;
        let count = period(now);
        let data = self.cookie_hash(tuple, Some((irs, count))).wrapping_add(index) & DATA_MASK;
        self.cookie_hash(tuple, None)
            .wrapping_add(irs)
            .wrapping_add(count << COUNT_SHIFT)
            .wrapping_add(data)
    }

    /// The peer's MSS, if `cookie` is one that we made for `tuple` and `irs` not too long ago.
    fn read_cookie(&self, tuple: &FourTuple, irs: u32, cookie: u32, now: Nanos) -> Option<u16> {
        let rest = cookie.wrapping_sub(self.cookie_hash(tuple, None)).wrapping_sub(irs);
        let count = period(now);
        let age = count.wrapping_sub(rest >> COUNT_SHIFT) & (u32::MAX >> COUNT_SHIFT);
        if age >= PERIODS {
            return None;
        }
        let hash = self.cookie_hash(tuple, Some((irs, count.wrapping_sub(age))));
        let index = rest.wrapping_sub(hash) & DATA_MASK;
        mss_table(tuple).get(index as usize).copied()
    }
}

impl Shard {
    /// Answers a SYN and forgets it.
    pub(crate) fn send_cookie(
        &mut self,
        now: Nanos,
        frame: &TcpFrame<'_>,
        id: ListenerId,
        host: &mut impl Host,
    ) {
        let listener = self.listeners.get(id);
        listener.shared.note_overflow(now);
        let settings = listener.settings;
        self.counters.syn_cookies_sent += 1;
        let tuple = frame.tuple;
        let (irs, offered) = (frame.segment.seq, frame.segment.options);
        let tcp = &self.config.tcp;
        let peer = match offered.timestamps.filter(|_| tcp.timestamps) {
            Some(_) => offered,
            // Nothing could carry them.
            None => Options { mss: offered.mss, ..Options::default() },
        };
        let way = self.way_back(frame, &settings, host);
        let mut options = self.config.tcp.syn_ack_options(way.mss, &peer, 0);
        // Without timestamps the ACK could not remind us of it.
        let ecn = options.timestamps.is_some() && self.grants_ecn(frame);
        let bits = option_bits(&peer, &options, ecn);
        if let Some(times) = &mut options.timestamps {
            let offset = self.keys.initial(&tuple, now).ts_offset;
            times.value = carry(timestamp(now, 0), bits).wrapping_add(offset);
        }
        let head = FrameHead {
            // To where the SYN came from: the next hop may still have to be resolved.
            link: frame.link.reply(),
            tuple,
            tos: settings.ip_tos(tuple.is_v4()),
            ttl: settings.ip_ttl(tuple.is_v4(), &self.config.tcp),
            seq: self.keys.cookie(&tuple, irs, offered.mss, now),
            ack: irs.wrapping_add(1),
            flags: Flags::SYN | Flags::ACK | if ecn { Flags::ECE } else { Flags::EMPTY },
            window: settings.syn_window(&self.config.tcp),
            options,
            ..FrameHead::default()
        };
        self.emit(now, &head, host);
    }

    /// An ACK that no record is there for, at a listener: a connection, if it returns a cookie.
    /// `false` when it does not, and is to be reset.
    ///
    /// As in Linux a full accept queue leaves the peer to try again, `abort_on_overflow` or not.
    pub(crate) fn handle_cookie(
        &mut self,
        now: Nanos,
        frame: &TcpFrame<'_>,
        hash: u64,
        id: ListenerId,
        host: &mut impl Host,
    ) -> bool {
        let expected = match self.config.syncookies {
            SynCookies::Off => false,
            SynCookies::OnOverflow => self.listeners.overflowed_within(id, VALID, now),
            SynCookies::Always => true,
        };
        if !expected {
            return false;
        }
        let (tuple, segment) = (frame.tuple, &frame.segment);
        let (iss, irs) = (segment.ack.wrapping_sub(1), segment.seq.wrapping_sub(1));
        let Some(mss) = self.keys.read_cookie(&tuple, irs, iss, now) else {
            self.counters.syn_cookies_failed += 1;
            return false;
        };
        self.counters.syn_cookies_received += 1;
        let initial = self.keys.initial(&tuple, now);
        let known = peer_options(&self.config.tcp, segment, mss, initial.ts_offset);
        let Some((peer, ecn)) = known else {
            return false;
        };
        let settings = self.listeners.get(id).settings;
        let way = self.way_back(frame, &settings, host);
        let handshake = Handshake {
            tuple,
            listener: id,
            route: way.link,
            epoch: host.path_epoch(),
            passive: Passive {
                iss,
                irs,
                is_v4: tuple.is_v4(),
                mss: way.mss,
                peer_mss: peer.mss,
                peer_window_scale: peer.window_scale,
                peer_timestamp: peer.timestamps.map(|times| times.value),
                sack_permitted: peer.sack_permitted,
                ecn,
                ts_offset: initial.ts_offset,
                // The SYN's is forgotten; this segment's, not yet scaled, is no larger than it is.
                peer_window: segment.window,
                rtt: None,
                syn_retransmits: 0,
            },
        };
        match self.open_passive(now, &handshake, hash, host) {
            Opened::Conn(conn) => {
                self.flows.insert(hash, Flow::Conn(conn), tuple.local.port);
                self.start_passive(now, conn, id, frame, host);
            }
            Opened::QueueFull | Opened::NoRoom => {}
        }
        true
    }
}

/// What the peer's SYN offered and our SYN-ACK took up, and whether that agreed to ECN, out of the
/// timestamp that was echoed. `None` when that is none that we sent.
fn peer_options(
    tcp: &Config,
    segment: &Segment<'_>,
    mss: u16,
    ts_offset: u32,
) -> Option<(Options, bool)> {
    let mut peer = Options { mss: Some(mss), ..Options::default() };
    let Some(times) = segment.options.timestamps else { return Some((peer, false)) };
    let bits = times.echo.wrapping_sub(ts_offset) & OPTION_BITS;
    let scale = bits & SCALE_BITS;
    peer.timestamps = Some(times);
    // Below 15.
    peer.window_scale = (scale != SCALE_BITS).then_some(scale as u8);
    peer.sack_permitted = bits & SACK_BIT != 0;
    let ecn = bits & ECN_BIT != 0;
    let ours = tcp.syn_ack_options(mss, &peer, 0);
    let is_ours = ours.timestamps.is_some()
        && option_bits(&peer, &ours, ecn) == bits
        && (!ecn || tcp.ecn != Ecn::Off);
    is_ours.then_some((peer, ecn))
}

/// The bits for what `peer` offered and `ours` took up, and for ECN.
fn option_bits(peer: &Options, ours: &Options, ecn: bool) -> u32 {
    let scale = peer.window_scale.filter(|_| ours.window_scale.is_some());
    let sack = if ours.sack_permitted { SACK_BIT } else { 0 };
    scale.map_or(SCALE_BITS, u32::from) | sack | if ecn { ECN_BIT } else { 0 }
}

/// The latest time, not after `clock`, that has these low bits: a later timestamp of ours is never
/// older than this one.
fn carry(clock: u32, bits: u32) -> u32 {
    clock.wrapping_sub(clock.wrapping_sub(bits) & OPTION_BITS)
}

fn mss_table(tuple: &FourTuple) -> &'static [u16; 4] {
    if tuple.is_v4() { &MSS_V4 } else { &MSS_V6 }
}

/// Goes round in 8,000 years; only eight bits of it travel.
fn period(now: Nanos) -> u32 {
    (now / PERIOD) as u32
}
