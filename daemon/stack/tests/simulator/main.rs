//! Two shards in virtual time, joined by a bad link; everything follows from a seed.
//!
//! `SEEDS=20000 START=1` in the environment choose how many seeds and which first.

mod host;
mod net;
mod plan;
mod rng;

use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;
use std::sync::Arc;

use fourwave_stack::{Config, ConnectError, Keys, ListenerShared, Shard, SynCookies};
use fourwave_tcp::Nanos;
use fourwave_wire::{Addr, Endpoint};

use crate::host::{App, Directory, SimHost};
use crate::net::{Faults, Net};
use crate::plan::{Close, Plan};
use crate::rng::Rng;

const MILLIS: Nanos = 1_000_000;
const SECONDS: Nanos = 1_000 * MILLIS;
/// Then applications lose patience with peers that have vanished.
const PATIENCE: Nanos = 1_200 * SECONDS;
/// Then everything has to be over.
const END: Nanos = 3_000 * SECONDS;
const PORT: u16 = 80;
/// Of crossed opens: an end's port for a conversation.
const CROSSED_PORT: u16 = 30_000;

struct Side {
    shard: Shard,
    host: SimHost,
    listener: Arc<ListenerShared>,
}

struct Sim {
    now: Nanos,
    rng: Rng,
    faults: Faults,
    net: Net,
    sides: [Side; 2],
    plans: Vec<Plan>,
    /// Ends of conversations that are still to be opened: when, which, which end.
    openings: BTreeSet<(Nanos, usize, usize)>,
    wakes: BTreeSet<Nanos>,
    directory: Directory,
    tight_room: bool,
    /// When one side's listener ends and another begins.
    relisten: Option<(Nanos, usize)>,
    relistened: bool,
}

/// What became of one seed's connections.
#[derive(Default)]
struct Tally {
    whole: u64,
    failed: u64,
    takeovers: u64,
    cookies: u64,
}

impl Sim {
    fn new(seed: u64) -> Sim {
        let mut rng = Rng::new(seed);
        let lossy = rng.chance(700);
        let faults = Faults {
            loss_per_mille: if lossy { rng.pick(&[1, 10, 50, 150]) } else { 0 },
            duplicate_per_mille: rng.pick(&[0, 0, 20, 200]),
            delay: rng.pick(&[10_000, 500_000, 20 * MILLIS]),
            jitter: rng.pick(&[0, 100_000, 5 * MILLIS, 60 * MILLIS]),
        };
        let directory = Directory::default();
        let keys = Keys::generate(|| rng.next());
        let backlog = rng.pick(&[0, 1, 4, 64]);
        let ports = rng.pick(&[1, 4, 100]);
        let timestamps = rng.chance(700);
        let cookies = rng.pick(&[SynCookies::Off, SynCookies::OnOverflow, SynCookies::OnOverflow]);
        let cookies = if rng.chance(30) { SynCookies::Always } else { cookies };
        let tcp = fourwave_tcp::Config { timestamps, ..Default::default() };
        let sides = [0, 1].map(|side| {
            let config = Config {
                connections: 64,
                syn_received: 32,
                time_wait: rng.pick(&[1, 64]),
                listeners: 1,
                local_addresses: 2,
                local_ports: 20_000..=20_000 + ports - 1,
                syncookies: cookies,
                abort_on_overflow: rng.chance(100),
                rfc1337: rng.chance(500),
                tcp: tcp.clone(),
                ..Config::default()
            };
            let mut shard = Shard::new(config, keys, 0).unwrap();
            let listener = ListenerShared::new(backlog);
            let local = Endpoint { addr: Addr::UNSPECIFIED, port: PORT };
            shard.listen(0, local, false, listener.clone()).unwrap();
            let mut host = SimHost::new(side, Rng::new(rng.next()), Rc::clone(&directory));
            host.resolved_at = if rng.chance(300) { rng.below(2_000) * MILLIS } else { 0 };
            Side { shard, host, listener }
        });
        let count = 1 + rng.below(12) as usize;
        let plans: Vec<Plan> = (0..count).map(|_| Plan::draw(&mut rng)).collect();
        let mut openings = BTreeSet::new();
        for (index, plan) in plans.iter().enumerate() {
            openings.insert((plan.start, index, 0));
            if plan.crossed {
                openings.insert((plan.start + rng.below(faults.delay), index, 1));
            }
        }
        let resolved = sides.iter().map(|side| side.host.resolved_at);
        let relisten = rng.chance(100).then(|| (rng.below(2_500) * MILLIS, rng.below(2) as usize));
        let wakes = resolved.chain([PATIENCE + 1]).chain(relisten.map(|(at, _)| at)).collect();
        let tight_room = rng.chance(200);
        let net = Net::new(faults);
        Sim {
            now: 0,
            rng,
            faults,
            net,
            sides,
            plans,
            openings,
            wakes,
            directory,
            tight_room,
            relisten,
            relistened: false,
        }
    }

    fn run(&mut self) -> Tally {
        while let Some(next) = self.next_event() {
            self.now = self.now.max(next);
            assert!(self.now < END, "not over: {:?}", self.sides.each_ref().map(gauges));
            self.wakes = self.wakes.split_off(&(self.now + 1));
            while let Some((to, frame)) = self.net.arrive(self.now) {
                let Side { shard, host, .. } = &mut self.sides[to];
                host.now = self.now;
                shard.handle_frame(self.now, &frame, host);
            }
            self.open_what_is_due();
            self.listen_anew();
            for side in 0..2 {
                self.act(side);
                self.send(side);
            }
        }
        self.judge()
    }

    fn next_event(&self) -> Option<Nanos> {
        let deadline = |side: &Side| side.shard.next_deadline();
        let shards = self.sides.iter().filter_map(deadline);
        let opening = self.openings.first().map(|&(at, ..)| at);
        let wake = self.wakes.first().copied();
        shards.chain(self.net.next()).chain(opening).chain(wake).min()
    }

    fn open_what_is_due(&mut self) {
        while let Some(&(at, index, end)) = self.openings.first().filter(|due| due.0 <= self.now) {
            self.openings.remove(&(at, index, end));
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
                    host.apps.0.push(App::new(index, end, conn, self.now));
                    if !plan.crossed {
                        self.directory.borrow_mut().insert(tuple, index);
                    }
                }
                // The last user of a port is in TIME_WAIT.
                Err(ConnectError::NoPort) => {
                    self.openings.insert((self.now + SECONDS, index, end));
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// The server of one side is restarted: what waits to be accepted is reset.
    fn listen_anew(&mut self) {
        let Some((_, index)) = self.relisten.take_if(|(at, _)| *at <= self.now) else { return };
        let side = &mut self.sides[index];
        side.shard.unlisten(0);
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

    /// The applications of one side do what their scripts say.
    fn act(&mut self, side: usize) {
        let now = self.now;
        let Side { shard, host, .. } = &mut self.sides[side];
        for app in host.apps.0.iter_mut().filter(|app| app.open) {
            if app.queued && !app.usable {
                app.usable = true;
                shard.accepted(0, app.conn);
            }
            if !app.usable {
                // It may die before it is connected or accepted, or take too long.
                app.open = !app.closed && now <= PATIENCE;
                if !app.open {
                    app.gave_up = true;
                    let _ = shard.abort(app.conn);
                }
                continue;
            }
            let plan = &self.plans[app.conversation];
            let (script, peer) = (plan.scripts[app.end], plan.scripts[1 - app.end]);
            if app.error.is_some() || now > PATIENCE || app.closed && !app.eof {
                // Gone already, or given up.
                app.gave_up = app.error.is_none();
                let _ = shard.abort(app.conn);
                app.open = false;
                continue;
            }
            let reads = script.close != Close::Sent && app.rcv_tail > app.consumed;
            if reads && now >= app.next_read {
                app.consumed = app.rcv_tail;
                app.next_read = now + script.read_every;
                // The control block may be gone, its bytes are not.
                let _ = shard.consumed(app.conn, app.consumed);
            } else if reads {
                self.wakes.insert(app.next_read);
            }
            let at_eof = app.eof && app.consumed == app.rcv_tail;
            let may_write = app.consumed >= script.after_read && (!script.after_eof || at_eof);
            let limit = app.snd_acked + u64::from(shard.config().tcp.send_buffer);
            let step = (script.send - app.written).min(script.chunk).min(limit - app.written);
            if may_write && step > 0 {
                app.written += step;
                shard.send(app.conn, app.written).unwrap();
                // At most one write each 100 µs, so that writes and segments interleave.
                self.wakes.insert(now + 100_000);
            }
            let wrote_all = may_write && app.written == script.send;
            if wrote_all && script.shutdown && !app.shut {
                app.shut = true;
                shard.shutdown_write(app.conn).unwrap();
            }
            let done = match script.close {
                Close::Sent => wrote_all,
                Close::Exchanged => wrote_all && app.consumed == peer.send,
                Close::Eof => wrote_all && at_eof,
                Close::Abort(after) if now < app.born + after => {
                    self.wakes.insert(app.born + after);
                    false
                }
                Close::Abort(_) => {
                    let _ = shard.abort(app.conn);
                    app.open = false;
                    false
                }
            };
            if done {
                app.open = false;
                // Both sides may have shut down before: nothing is left to close.
                let _ = shard.close(now, app.conn);
            }
        }
    }

    /// Timers and output of one side.
    fn send(&mut self, side: usize) {
        let Side { shard, host, .. } = &mut self.sides[side];
        host.now = self.now;
        host.room_left = if self.tight_room { 1 + self.rng.below(4) } else { u64::MAX };
        while shard.next_deadline().is_some_and(|at| at <= self.now) {
            shard.advance(self.now, host);
        }
        if !shard.flush(self.now, host) {
            self.wakes.insert(self.now + 10_000);
        }
        for frame in host.out.drain(..) {
            self.net.send(self.now, 1 - side, frame, &mut self.rng);
        }
        let living = host.apps.0.iter().filter(|app| !app.closed).count();
        assert_eq!(shard.gauges().connections as usize, living);
    }

    /// Everything is over: was it right?
    fn judge(&self) -> Tally {
        let mut tally = Tally::default();
        let mut outcomes: HashMap<(usize, usize), &App> = HashMap::new();
        for side in &self.sides {
            assert!(side.shard.is_empty(), "{:?}", side.shard.gauges());
            assert!(!side.shard.has_output());
            assert_eq!((side.listener.accept_len(), side.listener.syn_len()), (0, 0));
            tally.takeovers += side.shard.counters().time_wait_takeovers;
            tally.cookies += side.shard.counters().syn_cookies_received;
            for app in &side.host.apps.0 {
                assert!(app.closed && !app.open);
                outcomes.insert((app.conversation, app.end), app);
            }
        }
        for (index, plan) in self.plans.iter().enumerate() {
            let ends = [0, 1].map(|end| outcomes.get(&(index, end)));
            let clean =
                |app: Option<&&App>| app.is_some_and(|app| app.error.is_none() && !app.gave_up);
            if !plan.whole {
                continue;
            }
            if !ends.into_iter().all(clean) {
                // Losses can defeat any number of retries, and a full table ends connections.
                let excused = self.faults.loss_per_mille > 0 || self.may_reset();
                let states = ends.map(|end| end.map(|app| app.describe()));
                assert!(excused, "conversation {index} failed: {states:?} {plan:?}");
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

    /// Whether settings allow failures without a fault of the link: a listener that ended, an accept
    /// queue that aborts, TIME_WAIT without room, after which a repeated FIN meets a reset, or a
    /// cookie, which data that overtakes the handshake's last ACK does not match.
    fn may_reset(&self) -> bool {
        self.relistened
            || self.sides.iter().any(|side| {
                let counters = side.shard.counters();
                side.shard.config().abort_on_overflow && counters.listen_overflows > 0
                    || counters.time_wait_overflow > 0
                    || counters.syn_cookies_sent > 0
            })
    }
}

fn gauges(side: &Side) -> fourwave_stack::Gauges {
    side.shard.gauges()
}

/// Says which seed failed.
struct Guard(u64);

impl Drop for Guard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {0} failed; again: START={0} SEEDS=1", self.0);
        }
    }
}

fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")),
        Err(_) => default,
    }
}

#[test]
fn every_connection_ends_and_every_byte_is_right() {
    let (start, seeds) = (setting("START", 1), setting("SEEDS", 3_000));
    let mut total = Tally::default();
    for seed in start..start + seeds {
        let _guard = Guard(seed);
        let tally = Sim::new(seed).run();
        total.whole += tally.whole;
        total.failed += tally.failed;
        total.takeovers += tally.takeovers;
        total.cookies += tally.cookies;
    }
    eprintln!(
        "{seeds} seeds: {} conversations whole, {} failed, {} TIME_WAIT takeovers, {} cookies",
        total.whole, total.failed, total.takeovers, total.cookies
    );
    if seeds >= 1_000 {
        assert!(total.failed * 50 < total.whole, "too many failures: {}", total.failed);
        assert!(total.takeovers > 0 && total.cookies > 0);
    }
}
