//! Two shards in virtual time, joined by a bad link.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::rc::Rc;
use std::sync::Arc;

use fourwave_stack::{ConnectError, Gauges, Keys, ListenerShared, Shard, SynCookies};
use fourwave_tcp::Nanos;
use fourwave_wire::{Addr, Endpoint};

use crate::app::{App, STRANGER};
use crate::draw::{Faults, MICROS, MILLIS, SECONDS, harmless_settings, host_config};
use crate::host::{Directory, SimHost};
use crate::net::{Flight, Net};
use crate::plan::Plan;
use crate::rng::Rng;
use crate::trace::{Fate, Trace};
use crate::turn::Turn;
use crate::watch::Watch;

/// Then applications lose patience with peers that have vanished.
const PATIENCE: Nanos = 1_200 * SECONDS;
/// Then everything has to be over.
const END: Nanos = 3_000 * SECONDS;
pub(crate) const PORT: u16 = 80;
/// Of crossed opens: an end's port for a conversation.
const CROSSED_PORT: u16 = 30_000;
/// Segments without data that a host may send for a frame that it got, a timer, or an application's
/// call: an acknowledgement, and one for whatever waited beside it.
const ANSWERS: u64 = 2;
/// Frames of one seed: peers that answer each other for ever would send more.
const MOST_FRAMES: u64 = 2_000_000;

struct Side {
    shard: Shard,
    host: SimHost,
    listener: Arc<ListenerShared>,
}

/// What became of one seed's connections.
#[derive(Clone, Copy, Default)]
pub(crate) struct Tally {
    pub(crate) whole: u64,
    pub(crate) failed: u64,
    pub(crate) takeovers: u64,
    pub(crate) cookies: u64,
    pub(crate) segments: u64,
    pub(crate) repeated: u64,
    pub(crate) bytes: u64,
    pub(crate) marked: u64,
}

pub(crate) struct Pair {
    now: Nanos,
    rng: Rng,
    net: Net,
    watch: Watch,
    sides: [Side; 2],
    plans: Vec<Plan>,
    /// Ends of conversations that are still to be opened: when, which, which end.
    openings: BinaryHeap<Reverse<(Nanos, usize, usize)>>,
    wakes: BinaryHeap<Reverse<Nanos>>,
    directory: Directory,
    tight_room: bool,
    /// Applications ask for what they cannot have.
    mischief: bool,
    /// They change their options at any time.
    whims: bool,
    /// When one side's listener ends and another begins.
    relisten: Option<(Nanos, usize)>,
    relistened: bool,
    /// An end could not be opened at once: crossed opens then miss each other.
    postponed: bool,
}

impl Pair {
    pub(crate) fn new(seed: u64) -> Pair {
        let mut rng = Rng::new(seed);
        let trace = Trace::from_env();
        let faults = Faults::draw(&mut rng);
        let directory = Directory::default();
        let keys = Keys::generate(|| rng.next());
        let backlog = rng.pick(&[0, 1, 4, 64]);
        let ports = rng.pick(&[1, 4, 100]);
        let cookies = rng.pick(&[SynCookies::Off, SynCookies::OnOverflow, SynCookies::OnOverflow]);
        let cookies = if rng.chance(30) { SynCookies::Always } else { cookies };
        let sides = [0, 1].map(|side| {
            let config = host_config(&mut rng, cookies, ports);
            trace.note(0, side, || format!("{config:?}"));
            let window = config.tcp.recv_window_max;
            let mut shard = Shard::new(config, keys, 0).unwrap();
            let listener = ListenerShared::new(backlog);
            let local = Endpoint { addr: Addr::UNSPECIFIED, port: PORT };
            shard.listen(0, local, false, listener.clone()).unwrap();
            let own = Rng::new(rng.next());
            let mut host = SimHost::new(side, window, own, Rc::clone(&directory));
            host.sends_cookies = cookies != SynCookies::Off;
            host.resolved_at = if rng.chance(300) { rng.below(2_000) * MILLIS } else { 0 };
            Side { shard, host, listener }
        });
        trace.note(0, 0, || format!("{faults:?}"));
        let limit = size_limit(&faults, &sides);
        let count = 1 + rng.below(12) as usize;
        let plans: Vec<Plan> = (0..count).map(|_| Plan::draw(&mut rng, limit)).collect();
        let mut openings = BinaryHeap::new();
        for (index, plan) in plans.iter().enumerate() {
            trace.note(plan.start, plan.opener, || format!("conversation {index}: {plan:?}"));
            openings.push(Reverse((plan.start, index, 0)));
            if plan.crossed {
                openings.push(Reverse((plan.start + rng.below(faults.delay), index, 1)));
            }
        }
        let resolved = sides.iter().map(|side| side.host.resolved_at);
        let relisten = rng.chance(100).then(|| (rng.below(2_500) * MILLIS, rng.below(2) as usize));
        let wakes = resolved.chain([PATIENCE + 1]).chain(relisten.map(|(at, _)| at));
        let [tight_room, mischief, whims] = [200, 300, 300].map(|odds| rng.chance(odds));
        Pair {
            now: 0,
            net: Net::new(faults, trace),
            watch: Watch::default(),
            wakes: wakes.map(Reverse).collect(),
            rng,
            sides,
            plans,
            openings,
            directory,
            tight_room,
            mischief,
            whims,
            relisten,
            relistened: false,
            postponed: false,
        }
    }

    pub(crate) fn run(&mut self) -> Tally {
        let mut causes = [0; 2];
        while let Some(next) = self.next_event() {
            self.now = self.now.max(next);
            assert!(self.now < END, "not over: {:?}", self.gauges());
            assert!(self.net.done.taken < MOST_FRAMES, "too many frames: {:?}", self.gauges());
            while self.wakes.peek().is_some_and(|Reverse(at)| *at <= self.now) {
                self.wakes.pop();
            }
            while let Some(flight) = self.net.arrive(self.now) {
                causes[flight.to] += 1;
                self.deliver(flight);
            }
            self.open_what_is_due();
            self.listen_anew();
            for (side, frames) in causes.iter_mut().enumerate() {
                let calls = self.act(side);
                self.send(side, std::mem::take(frames) + calls);
                self.check(side);
            }
        }
        self.judge()
    }

    fn gauges(&self) -> [Gauges; 2] {
        self.sides.each_ref().map(|side| side.shard.gauges())
    }

    fn next_event(&self) -> Option<Nanos> {
        let deadline = |side: &Side| side.shard.next_deadline();
        let shards = self.sides.iter().filter_map(deadline);
        let opening = self.openings.peek().map(|Reverse((at, ..))| *at);
        let wake = self.wakes.peek().map(|Reverse(at)| *at);
        shards.chain(self.net.next()).chain(opening).chain(wake).min()
    }

    fn deliver(&mut self, flight: Flight) {
        self.net.trace.frame(self.now, flight.to, &flight.frame, Fate::Arrived);
        if let Some(seen) = &flight.seen {
            self.watch.delivered(seen);
        }
        let Side { shard, host, .. } = &mut self.sides[flight.to];
        host.now = self.now;
        let opened = |shard: &Shard| {
            let counters = shard.counters();
            (counters.syn_cookies_received, counters.passive_opens)
        };
        let before = opened(shard);
        shard.handle_frame(self.now, flight.frame.bytes(), host);
        let after = opened(shard);
        if let Some(seen) = &flight.seen
            && after.0 > before.0
            && after.1 > before.1
        {
            self.net.trace.note(self.now, flight.to, || "opened by a cookie".to_string());
            self.watch.reopened(seen);
        }
        self.net.recycle(flight.frame);
    }

    fn open_what_is_due(&mut self) {
        while let Some(&Reverse((at, index, end))) = self.openings.peek()
            && at <= self.now
        {
            self.openings.pop();
            let plan = self.plans[index];
            let side = plan.opener ^ end;
            let crossed = CROSSED_PORT + index as u16;
            let port = if plan.crossed { crossed } else { PORT };
            let remote = Endpoint { addr: SimHost::address(1 - side, plan.v6), port };
            let local = plan.crossed.then_some(Endpoint { addr: Addr::UNSPECIFIED, port: crossed });
            let Side { shard, host, .. } = &mut self.sides[side];
            host.now = self.now;
            let app = host.apps.0.len() as u64;
            match shard.connect(self.now, app, local, remote, host) {
                Ok((conn, tuple)) => {
                    host.add(App::new(index, end, conn, self.now));
                    if !plan.crossed {
                        self.directory.borrow_mut().entry(tuple).or_default().push(index);
                    }
                }
                // The last user of a port is in TIME_WAIT, or there are too many connections.
                Err(ConnectError::NoPort | ConnectError::Full) => {
                    self.postponed = true;
                    let later = self.now + SECONDS;
                    if later < PATIENCE {
                        self.openings.push(Reverse((later, index, end)));
                    }
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// The server of one side is restarted: what waits to be accepted is reset.
    fn listen_anew(&mut self) {
        let Some((_, index)) = self.relisten.take_if(|(at, _)| *at <= self.now) else { return };
        let side = &mut self.sides[index];
        side.shard.unlisten(self.now, 0);
        assert_eq!(side.listener.syn_len(), 0);
        for app in side.host.apps.0.iter_mut().filter(|app| app.queued && !app.usable) {
            app.gave_up = true;
            app.open = false;
        }
        side.listener = ListenerShared::new(side.listener.backlog());
        let local = Endpoint { addr: Addr::UNSPECIFIED, port: PORT };
        side.shard.listen(0, local, false, side.listener.clone()).unwrap();
        self.relistened = true;
    }

    /// The applications of one side get a turn; how often they asked for something.
    fn act(&mut self, side: usize) -> u64 {
        let Side { shard, host, .. } = &mut self.sides[side];
        let (now, wakes) = (self.now, &mut self.wakes);
        let patience_is_over = now > PATIENCE;
        let mut turn = Turn { now, shard, wakes, patience_is_over, calls: 0 };
        for &index in &host.living {
            let app = &mut host.apps.0[index];
            if !app.open {
                continue;
            }
            if self.mischief && app.usable && self.rng.chance(20) {
                turn.ask_too_much(app);
            }
            if self.whims && app.usable && self.rng.chance(20) {
                turn.choose(app, &harmless_settings(&mut self.rng), self.rng.chance(500));
            }
            turn.take(app, self.plans.get(app.conversation));
        }
        turn.calls
    }

    /// Timers and output of one side, which got so many frames and calls.
    fn send(&mut self, side: usize, causes: u64) {
        let Side { shard, host, .. } = &mut self.sides[side];
        host.now = self.now;
        host.room_left = if self.tight_room { 1 + self.rng.below(4) } else { u64::MAX };
        while shard.next_deadline().is_some_and(|at| at <= self.now) {
            shard.advance(self.now, host);
        }
        if !shard.flush(self.now, host) {
            self.wakes.push(Reverse(self.now + 10 * MICROS));
        }
        let mut empty = 0;
        for frame in host.out.drain(..) {
            let seen = self.watch.sent(side, frame.bytes());
            empty += u64::from(seen.is_empty());
            let flight = Flight { to: 1 - side, frame, seen: Some(seen) };
            self.net.send(self.now, flight, &mut self.rng);
            host.spare.push(self.net.buffer());
        }
        // One timer each may have fired.
        let timers = host.living.len() as u64 + u64::from(shard.gauges().syn_received);
        assert!(empty <= ANSWERS * (causes + timers), "{empty} empty segments for {causes} causes");
    }

    /// What has to hold at every moment.
    fn check(&mut self, side: usize) {
        let Side { shard, host, .. } = &self.sides[side];
        let mut closed = 0;
        for &index in &host.living {
            let app = &host.apps.0[index];
            closed += u32::from(app.closed);
            let Ok(tcb) = shard.tcb(app.conn) else {
                assert!(app.closed, "a connection is gone without a word");
                continue;
            };
            assert!(!app.closed);
            tcb.check(&shard.config().tcp);
            assert_eq!((tcb.rcv_tail(), tcb.snd_acked()), (app.rcv_tail, app.snd_acked));
        }
        let living = host.living.len() as u32 - closed;
        assert_eq!(shard.gauges().connections, living);
        self.sides[side].host.forget_the_dead();
    }

    /// Everything is over: was it right?
    fn judge(&self) -> Tally {
        let marked = self.net.done.marked;
        let mut tally = Tally { segments: self.watch.segments, marked, ..Tally::default() };
        let mut outcomes: HashMap<(usize, usize), &App> = HashMap::new();
        let mut written: HashMap<(usize, usize), u64> = HashMap::new();
        for side in &self.sides {
            assert!(side.shard.is_empty(), "{:?}", side.shard.gauges());
            assert!(!side.shard.has_output());
            assert_eq!((side.listener.accept_len(), side.listener.syn_len()), (0, 0));
            let counters = side.shard.counters();
            tally.takeovers += counters.time_wait_takeovers;
            tally.cookies += counters.syn_cookies_received;
            tally.repeated += counters.retrans_segs;
            for app in &side.host.apps.0 {
                assert!(app.closed && !app.open);
                tally.bytes += app.rcv_tail;
                let most = written.entry((app.conversation, app.end)).or_default();
                *most = app.written.max(*most);
                // Of two, the one that came first: an old duplicate can open another.
                outcomes.entry((app.conversation, app.end)).or_insert(app);
            }
        }
        for app in self.sides.iter().flat_map(|side| &side.host.apps.0) {
            let source = written.get(&(app.conversation, 1 - app.end)).copied().unwrap_or(0);
            assert!(app.rcv_tail <= source || app.conversation == STRANGER, "out of nothing");
        }
        for (index, plan) in self.plans.iter().enumerate() {
            let ends = [0, 1].map(|end| outcomes.get(&(index, end)).copied());
            if !plan.whole {
                continue;
            }
            if !ends.iter().all(|app| app.is_some_and(App::is_clean)) {
                let states = ends.map(|end| end.map(App::describe));
                assert!(self.may_fail(), "conversation {index} failed: {states:?} {plan:?}");
                tally.failed += 1;
                continue;
            }
            for (end, app) in ends.into_iter().flatten().enumerate() {
                let expected = plan.scripts[1 - end].send;
                assert_eq!(app.rcv_tail, expected, "conversation {index}, end {end}: {plan:?}");
            }
            tally.whole += 1;
        }
        tally
    }

    /// Whether a conversation may fail: losses can defeat any number of retries; and settings allow
    /// failures without a fault of the link: a listener that ended, an accept queue that aborts,
    /// TIME_WAIT without room, after which a repeated FIN meets a reset, a cookie, which data that
    /// overtakes the handshake's last ACK does not match, and limits that were reached.
    fn may_fail(&self) -> bool {
        let done = &self.net.done;
        done.lost + done.too_big > 0
            || self.relistened
            || self.postponed
            || self.sides.iter().any(|side| {
                let counters = side.shard.counters();
                side.shard.config().abort_on_overflow && counters.listen_overflows > 0
                    || counters.time_wait_overflow > 0
                    || counters.syn_cookies_sent > 0
                    || counters.abort_on_memory > 0
                    || counters.connections_full > 0
                    || counters.no_local_port > 0
            })
    }
}

/// The most that one end writes: what goes through these windows and this line in reasonable time.
fn size_limit(faults: &Faults, sides: &[Side; 2]) -> u64 {
    let window = |side: &Side| {
        let tcp = &side.shard.config().tcp;
        u64::from(tcp.recv_window_max.min(tcp.send_buffer))
    };
    let windows = 100 * sides.iter().map(window).min().unwrap_or(0);
    if faults.rate > 0 { windows.min(faults.rate * 20) } else { windows }
}
