//! How large segments may be on their way: what the network says (RFC 1191, RFC 8201), and a search
//! where it says nothing (RFC 4821, as Linux's `tcp_mtu_probing` = 1).
//!
//! A path that swallows large packets without a word shows as timeouts in a row: then segments get
//! small enough to pass nearly everywhere. From there on, now and then a segment of new data is
//! larger, half way to what failed, until that is found; after a while the search begins again.

use fourwave_wire::max_payload;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::config::{Config, Nanos};
use crate::tcb::{MIN_MSS, NEVER, Tcb, UNKNOWN, flag};

/// Smaller claims are not believed: Linux's `min_pmtu`, and IPv6's minimum (RFC 8201 §4).
const MIN_PATH_MTU_V4: u16 = 552;
const MIN_PATH_MTU_V6: u16 = 1280;
/// For routers that do not say (RFC 1191 §7.1): what nearly every link takes.
const PATH_MTU_UNTOLD: u16 = 576;

/// Timeouts in a row that mean that the path swallows large packets (Linux's `tcp_retries1`).
const BLACK_HOLE_TIMEOUTS: u8 = 3;
/// A search that is as close as this is over (Linux's `tcp_probe_threshold`).
const CLOSE: u16 = 8;
/// Segments that follow a probe, so that its loss is noticed without a timeout.
const FOLLOWERS: i64 = 4;

/// The largest packet that is believed to pass when a router claims `mtu` bytes; 0 is no number.
pub fn believed_mtu(mtu: u32, is_v4: bool) -> u16 {
    let least = if is_v4 { MIN_PATH_MTU_V4 } else { MIN_PATH_MTU_V6 };
    let mtu = u16::try_from(mtu).unwrap_or(u16::MAX);
    if mtu == 0 { PATH_MTU_UNTOLD.max(least) } else { mtu.max(least) }
}

/// The search; segment sizes as [`Tcb::mss`](crate::Tcb) counts them, options included.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Search {
    /// Where a probe begins that is on its way; [`UNKNOWN`] without one.
    probe_start: i64,
    /// When what failed may pass again; [`NEVER`] while the search goes on.
    again_at: Nanos,
    /// Size of the probe.
    probe: u16,
    /// The smallest that failed; 0: nothing has, there is no search.
    failed: u16,
    reserved: [u8; 4],
}

impl Search {
    pub(crate) fn none() -> Search {
        Search { probe_start: UNKNOWN, again_at: NEVER, probe: 0, failed: 0, reserved: [0; 4] }
    }

    /// The probe on its way is lost.
    fn fail(&mut self) {
        self.probe_start = UNKNOWN;
        self.failed = self.probe;
    }
}

impl Tcb {
    /// Packets of `mtu` bytes pass, as far as routes and other connections to this peer know.
    pub fn set_path_mtu(&mut self, cfg: &Config, now: Nanos, mtu: u16) {
        self.path_mss = max_payload(mtu, self.has(flag::V4), 0).max(MIN_MSS);
        let mss = self.path_mss.min(self.agreed_mss);
        if mss < self.mss {
            self.shrink_to(cfg, now, mss);
        } else if self.search.failed == 0 {
            self.mss = mss;
        }
    }

    /// Largest packet that passes: by the route, routers, or the search where that found less.
    pub(crate) fn path_mtu(&self) -> Option<u16> {
        // Until there is news, the route is as it was when our MSS was announced, unless that was
        // the application's choice.
        let announced = if self.settings.max_segment == 0 { self.local_mss } else { u16::MAX };
        let told = if self.path_mss == u16::MAX { announced } else { self.path_mss };
        let mss = if self.search.failed == 0 { told } else { told.min(self.mss) };
        let headers = u16::MAX - max_payload(u16::MAX, self.has(flag::V4), 0);
        (mss < u16::MAX).then(|| mss.saturating_add(headers))
    }

    /// Segments get smaller. That is no sign of congestion: the window stays.
    fn shrink_to(&mut self, cfg: &Config, now: Nanos, mss: u16) {
        self.mss = mss;
        if self.state().is_synchronized() && self.is_outstanding() {
            self.rtt.cancel();
            self.recovery.give_way(self.snd_max);
            self.rack.give_way();
            self.search.probe_start = UNKNOWN;
            self.snd_nxt = self.snd_una;
            self.set_flag(flag::RESEND, true);
            self.restart_rtx(cfg, now);
        }
    }

    /// Another timeout for the same data: it may be too large for the path.
    pub(crate) fn suspect_black_hole(&mut self, cfg: &Config) {
        if self.search.probe_start != UNKNOWN {
            self.search.fail();
        }
        let least = if self.has(flag::V4) { MIN_PATH_MTU_V4 } else { MIN_PATH_MTU_V6 };
        let least = max_payload(least, self.has(flag::V4), 0);
        // Half of the last try, if that was small already.
        let smaller = if self.mss > cfg.base_mss { cfg.base_mss } else { self.mss / 2 };
        let smaller = smaller.max(least);
        let is_large = self.snd_max - self.snd_una > i64::from(smaller - self.options_len());
        // What the peer sends meanwhile proves nothing: small packets pass. One that closed its
        // window need not take anything.
        let is_open = self.snd_wnd > 0;
        if cfg.mtu_probing
            && is_open
            && self.retries >= BLACK_HOLE_TIMEOUTS
            && smaller < self.mss
            && is_large
        {
            self.search = Search { failed: self.mss, ..Search::none() };
            self.mss = smaller;
        }
    }

    /// The size of the next segment of `waiting` new bytes if it is to be a probe, options not
    /// counted (RFC 4821 §7.4).
    #[cold]
    fn probe_size(&mut self, now: Nanos, waiting: i64, usable: i64) -> Option<i64> {
        let largest = self.path_mss.min(self.agreed_mss);
        if now >= self.search.again_at {
            self.search.again_at = NEVER;
            self.search.failed = largest + 1;
        }
        let half_way = self.mss + (self.search.failed - self.mss) / 2;
        // Where nothing is known to fail any more, all may be well.
        let size = if self.search.failed > largest { largest } else { half_way };
        let len = i64::from(size - self.options_len());
        // Blocks for the peer would not fit beside it.
        let is_calm = self.search.probe_start == UNKNOWN
            && self.sack_len() == 0
            && self.scoreboard.is_empty()
            && !self.recovery.is_active()
            && self.backoff == 0
            && self.snd_nxt == self.snd_max
            && self.snd_nxt > self.recovery.point();
        let enough = len + FOLLOWERS * i64::from(self.payload_limit());
        if !is_calm || size == self.mss || waiting.min(usable) < enough {
            return None;
        }
        self.search.probe = size;
        self.search.probe_start = self.snd_nxt;
        Some(len)
    }

    /// See [`Tcb::probe_size`].
    #[inline]
    pub(crate) fn next_probe(&mut self, now: Nanos, waiting: i64, usable: i64) -> Option<i64> {
        if self.search.failed == 0 { None } else { self.probe_size(now, waiting, usable) }
    }

    /// `snd_una` has moved on: whether a probe has passed.
    #[inline]
    pub(crate) fn judge_mtu_probe(&mut self, cfg: &Config, now: Nanos) {
        let passed = self.search.probe_start != UNKNOWN
            && self.snd_una - self.search.probe_start
                >= i64::from(self.search.probe - self.options_len());
        if passed {
            self.search.probe_start = UNKNOWN;
            self.mss = self.search.probe;
            self.rest_if_close(cfg, now);
        }
    }

    /// Loss is noticed: if it is that of a probe, it is no sign of congestion (RFC 4821 §7.6.2), and
    /// what it costs is given back by [`Tcb::forgive_lost_probe`].
    pub(crate) fn judge_lost_probe(&mut self, cfg: &Config, now: Nanos) {
        let is_lost = self.search.probe_start == self.snd_una;
        if is_lost {
            self.search.fail();
            self.rest_if_close(cfg, now);
        }
        self.set_flag(flag::PROBE_LOST, is_lost);
    }

    /// Loss is repaired.
    pub(crate) fn forgive_lost_probe(&mut self) {
        if self.take_flag(flag::PROBE_LOST) {
            self.congestion.restore(self.undo.window, self.undo.threshold);
        }
    }

    /// What is in `span` is sent again: when it arrives, that says nothing of a probe which was
    /// larger (RFC 4821 §7.6.3, an inconclusive one is tried again).
    pub(crate) fn forget_probe_in(&mut self, span: &core::ops::Range<i64>) {
        if span.contains(&self.search.probe_start) {
            self.search.probe_start = UNKNOWN;
        }
    }

    fn rest_if_close(&mut self, cfg: &Config, now: Nanos) {
        if self.mss == self.path_mss.min(self.agreed_mss) {
            self.search = Search::none();
        } else if self.search.failed - self.mss <= CLOSE {
            self.search.failed = self.mss;
            self.search.again_at = now + cfg.mtu_probe_interval;
        }
    }
}
