//! Running a script against a shard.

use std::collections::BTreeMap;
use std::sync::Arc;

use fourwave_stack::{Keys, ListenerId, ListenerShared, Shard};
use fourwave_tcp::{Nanos, Settings, State};
use fourwave_wire::{Addr, Endpoint, FourTuple, FrameHead, Link};

use crate::common::{
    App, MILLIS, MemHost, OUR_MAC, PEER_MAC, SECONDS, Seg, World, decode, endpoint, our_addresses,
};
use crate::flow::{Flow, OUR_ISS, Sent};
use crate::frames::{self, Quirks};
use crate::language::{Line, Script, expand};
use crate::segment::{Text, number, stream_byte};
use crate::setup::{Setup, flag, keyed};
use crate::transitions::{self, Taken};

pub(crate) const PORT: u16 = 80;
/// Flow 1 comes from this port of the peer's plus one.
const PEER_PORT: u16 = 30_000;
/// How much of what happened is shown when a script fails.
const TRACE: usize = 24;

/// Runs a script to its end or its first failure.
pub(crate) fn run(script: &Script) -> Result<Taken, String> {
    run_with(script, Setup::default())
}

/// The same over IPv6, unless the script says which family it is about.
pub(crate) fn run_over_ipv6(script: &Script) -> Result<(), String> {
    if script.lines.iter().any(|line| line.text.contains("ipv6=")) {
        return Ok(());
    }
    run_with(script, Setup::over_ipv6()).map(drop)
}

fn run_with(script: &Script, mut setup: Setup) -> Result<Taken, String> {
    let mut lines = script.lines.iter();
    let first = loop {
        let line = lines.next().ok_or_else(|| format!("{}: nothing but settings", script.place))?;
        let Some(settings) = line.text.strip_prefix("config ") else { break line };
        let set = settings.split_whitespace().try_for_each(|setting| setup.set(setting));
        set.map_err(|error| complaint(script, line, &error, &[]))?;
    };
    let opening = ["connect", "listen", "server"];
    let opens = |line: &&Line| opening.iter().any(|verb| line.text.starts_with(verb));
    let active =
        script.lines.iter().find(opens).is_some_and(|line| line.text.starts_with("connect"));
    let mut runner = Runner::new(setup, active);
    for line in std::iter::once(first).chain(lines) {
        let done = runner.pass(line.wait).and_then(|()| runner.step(line));
        done.map_err(|error| complaint(script, line, &error, &runner.trace))?;
    }
    let last = script.lines.last().unwrap_or(first);
    runner.finish().map_err(|error| complaint(script, last, &error, &runner.trace))?;
    Ok(runner.taken)
}

fn complaint(script: &Script, line: &Line, error: &str, trace: &[String]) -> String {
    let file = script.place.rsplit_once(':').map_or("", |(file, _)| file);
    let mut text = format!("{file}:{}: {}\n    {error}\n", line.number, line.text);
    if !trace.is_empty() {
        text.push_str("  what happened, in milliseconds:\n");
    }
    for line in &trace[trace.len().saturating_sub(TRACE)..] {
        text.push_str(&format!("    {line}\n"));
    }
    text
}

pub(crate) struct Runner {
    setup: Setup,
    pub(crate) world: World,
    start: Nanos,
    pub(crate) flows: BTreeMap<usize, Flow>,
    /// What the application chose, by flow.
    pub(crate) settings: BTreeMap<usize, Settings>,
    pub(crate) listener: Option<Arc<ListenerShared>>,
    /// The stack's number of it.
    pub(crate) listener_id: ListenerId,
    pub(crate) taken: Taken,
    trace: Vec<String>,
}

fn new_world(setup: &Setup, now: Nanos) -> World {
    let mut seed = 77u64;
    let keys = Keys::generate(|| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        seed
    });
    let mut host = MemHost::new(&our_addresses());
    host.path = host.path.map(|path| fourwave_stack::Path { mtu: setup.mtu(), ..path });
    let shard = Shard::new(setup.config.clone(), keys, now).expect("the tables are small");
    World { shard, host, now }
}

/// When to start, so that our first initial sequence number is [`OUR_ISS`]: it goes with the clock.
fn start_time(setup: &Setup, active: bool) -> Nanos {
    let early = 5 * SECONDS;
    let mut runner = Runner::at(setup.clone(), early);
    let trial = if active { "connect" } else { "server" };
    let line = Line { number: 0, wait: 0, flow: 1, text: trial.to_string() };
    // A set-up that no connection can start in has no initial number either.
    let _ = runner.step(&line).and_then(|()| runner.flush());
    let seen = runner.flows.get(&1).map_or(OUR_ISS, Flow::ours);
    // RFC 9293 §3.4.1: a tick is 64 ns here.
    early + u64::from(OUR_ISS.wrapping_sub(seen)) * 64
}

impl Runner {
    fn new(setup: Setup, active: bool) -> Runner {
        let start = start_time(&setup, active);
        Runner::at(setup, start)
    }

    fn at(setup: Setup, start: Nanos) -> Runner {
        let world = new_world(&setup, start);
        let (flows, settings) = (BTreeMap::new(), BTreeMap::new());
        let (trace, taken) = (Vec::new(), Taken::new());
        let (listener, listener_id) = (None, 0);
        Runner { setup, world, start, flows, settings, listener, listener_id, taken, trace }
    }

    /// Time passes, timers fire when they are due, and what they make due is sent then.
    pub(crate) fn pass(&mut self, millis: u64) -> Result<(), String> {
        if millis == 0 {
            return Ok(());
        }
        self.flush()?;
        self.nothing_left()?;
        let end = self.world.now + millis * MILLIS;
        loop {
            let World { shard, host, now } = &mut self.world;
            *now = shard.next_deadline().unwrap_or(end).clamp(*now, end);
            while shard.next_deadline().is_some_and(|at| at <= *now) {
                shard.advance(*now, host);
            }
            self.sample()?;
            self.flush()?;
            if self.world.now == end {
                return Ok(());
            }
        }
    }

    /// What is due is sent.
    pub(crate) fn flush(&mut self) -> Result<(), String> {
        let World { shard, host, now } = &mut self.world;
        shard.flush(*now, host);
        self.collect()?;
        self.sample()
    }

    /// Sorts what was sent by flows.
    pub(crate) fn collect(&mut self) -> Result<(), String> {
        while let Some(frame) = self.world.host.sent.pop_front() {
            let seg = decode(&frame);
            self.check_payload(&seg)?;
            let ours = seg.head.tuple.flipped();
            let found = self.flows.iter_mut().find(|(_, flow)| flow.tuple == ours);
            let (id, flow) = found.ok_or_else(|| format!("sent to nobody: {}", seg.show()))?;
            flow.take(&seg, self.world.now);
            let text = flow.sent.back().map_or(String::new(), |sent| sent.text.to_string());
            let at = (self.world.now - self.start) / MILLIS;
            self.trace.push(format!("{at:8} [{id}] > {text}"));
        }
        Ok(())
    }

    /// What we send is our stream.
    fn check_payload(&self, seg: &Seg) -> Result<(), String> {
        let ours = seg.head.tuple.flipped();
        let flow = self.flows.values().find(|flow| flow.tuple == ours);
        let Some(flow) = flow.filter(|_| !seg.payload.is_empty()) else { return Ok(()) };
        let first = seg.head.seq.wrapping_sub(flow.ours()).wrapping_sub(1);
        let right =
            (u64::from(first)..).zip(&seg.payload).all(|(at, byte)| stream_byte(at) == *byte);
        if right {
            Ok(())
        } else {
            Err(format!("sent other bytes than were written: {}", seg.show()))
        }
    }

    /// Notes which states the flows are in now.
    pub(crate) fn sample(&mut self) -> Result<(), String> {
        let World { shard, host, .. } = &self.world;
        for flow in self.flows.values_mut() {
            let newest = host.apps.0.iter().rposition(|app| app.tuple == Some(flow.tuple));
            if newest.is_some() && newest != flow.app {
                flow.app = newest;
                flow.conn = newest.and_then(|app| host.apps.0[app].conn);
            }
            let state = shard.state(&flow.tuple).unwrap_or(State::Closed);
            let mut before = flow.state;
            let passive = matches!(state, State::SynReceived | State::Established);
            if passive && matches!(before, State::Closed | State::TimeWait) {
                // A listener's connection, perhaps in the place of an old one.
                self.taken.extend(transitions::path(before, State::Closed).unwrap_or_default());
                before = State::Listen;
            }
            let path = transitions::path(before, state)
                .ok_or_else(|| format!("no way from {before} to {state}"))?;
            self.taken.extend(path);
            flow.state = state;
        }
        Ok(())
    }

    pub(crate) fn nothing_left(&self) -> Result<(), String> {
        for (id, flow) in &self.flows {
            if let Some(Sent { at, text }) = flow.sent.front() {
                let at = (at - self.start) / MILLIS;
                return Err(format!("sent, and not expected: [{id}] > {text} (at {at} ms)"));
            }
        }
        Ok(())
    }

    /// Ends what the script left, and looks whether anything stays.
    fn finish(&mut self) -> Result<(), String> {
        self.flush()?;
        self.nothing_left()?;
        self.unlisten();
        let World { shard, host, now } = &mut self.world;
        shard.abort_all();
        shard.flush(*now, host);
        while let Some(deadline) = shard.next_deadline() {
            *now = deadline.max(*now);
            shard.advance(*now, host);
            shard.flush(*now, host);
        }
        if shard.is_empty() { Ok(()) } else { Err(format!("left over: {:?}", shard.gauges())) }
    }

    /// One statement.
    fn step(&mut self, line: &Line) -> Result<(), String> {
        let words: Vec<&str> = line.text.split_whitespace().collect();
        let Some((&verb, words)) = words.split_first() else { return Ok(()) };
        self.open_flow(line.flow);
        match verb {
            ">" => return self.expect(line.flow, words),
            "nothing" => {
                self.flush()?;
                return self.nothing_left();
            }
            _ => {}
        }
        self.collect()?;
        self.nothing_left()?;
        match verb {
            "<" => self.inject(line.flow, words)?,
            "icmp" => self.icmp(line.flow, words)?,
            "server" => self.server(line.flow, words)?,
            "connect" => self.connect(line.flow, words)?,
            "listen" => self.listen(keyed(words, "backlog")?.unwrap_or(16)),
            "unlisten" => self.unlisten(),
            "hand-over" => self.hand_over(keyed(words, "backlog")?.unwrap_or(16))?,
            "backlog" => self.shared()?.set_backlog(number(one(words)?)?),
            "defer" => self.shared()?.set_defer_accept(number(one(words)?)?),
            "drain" => self.world.shard.set_draining(flag(one(words)?)?),
            "memory" => self.world.host.refuse_store = !flag(one(words)?)?,
            "room" => self.world.host.refuse_open = !flag(one(words)?)?,
            "renumber" => self.flow(line.flow).renumber(),
            "set" => self.set(line.flow, words)?,
            "accept" | "write" | "read" | "close" | "shutdown" | "abort" | "quickack" => {
                self.call(line.flow, verb, words)?;
            }
            _ => self.look(line.flow, verb, words)?,
        }
        self.sample()
    }

    fn open_flow(&mut self, id: usize) {
        let [v4, v6] = our_addresses();
        let (ours, theirs) = match self.setup.is_v4 {
            true => (v4, endpoint("10.0.0.2:0").addr),
            false => (v6, endpoint("[fd00::2]:0").addr),
        };
        let local = Endpoint { addr: ours, port: PORT };
        let remote = Endpoint { addr: theirs, port: PEER_PORT + id as u16 };
        let start = self.start;
        self.flows.entry(id).or_insert_with(|| Flow::new(FourTuple { local, remote }, start));
    }

    pub(crate) fn flow(&mut self, id: usize) -> &mut Flow {
        self.flows.get_mut(&id).expect("every statement opens its flow")
    }

    pub(crate) fn shared(&self) -> Result<&ListenerShared, String> {
        self.listener.as_deref().ok_or_else(|| "nobody listens".to_string())
    }

    pub(crate) fn inject(&mut self, id: usize, words: &[&str]) -> Result<(), String> {
        for text in expand(words)? {
            self.inject_one(id, &text)?;
        }
        Ok(())
    }

    fn inject_one(&mut self, id: usize, line: &str) -> Result<(), String> {
        let (mut quirks, mut reason, mut wrong) = (Quirks::default(), None, [None, None]);
        let mut words = line.split(' ');
        let text = Text::parse(&mut words, &mut |word, rest| {
            let mut value = || rest.next().ok_or_else(|| format!("{word} what?"));
            match word {
                "badsum" => quirks.bad_checksum = true,
                "raw" => quirks.options = Some(bytes(value()?)?),
                "ipopt" => quirks.ip_options = bytes(value()?)?,
                "drop" => reason = Some(value()?),
                "src" => wrong[0] = Some(address(value()?)?),
                "dst" => wrong[1] = Some(address(value()?)?),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        let flow = self.flow(id);
        let mut tuple = flow.tuple.flipped();
        let (segment, payload) = flow.segment(&text)?;
        tuple.local.addr = wrong[0].unwrap_or(tuple.local.addr);
        tuple.remote.addr = wrong[1].unwrap_or(tuple.remote.addr);
        let head = FrameHead {
            link: Link::new(OUR_MAC, PEER_MAC),
            tuple,
            tos: text.tos.unwrap_or(0),
            ttl: 64,
            seq: segment.seq,
            ack: segment.ack,
            flags: segment.flags,
            window: segment.window,
            urgent: segment.urgent,
            options: segment.options,
            ..FrameHead::default()
        };
        let at = (self.world.now - self.start) / MILLIS;
        self.trace.push(format!("{at:8} [{id}] < {line}"));
        let frame = frames::segment(&head, &payload, &quirks);
        let before = reason.map(|reason| self.drops(reason));
        self.world.shard.handle_frame(self.world.now, &frame, &mut self.world.host);
        self.sample()?;
        match (before, reason) {
            (Some(before), Some(reason)) if self.drops(reason) != before + 1 => {
                Err(format!("it was not dropped as {reason}"))
            }
            _ => Ok(()),
        }
    }

    /// How much was counted under this name or reason.
    pub(crate) fn drops(&self, wanted: &str) -> u64 {
        let mut count = 0;
        self.world.shard.counters().for_each(|name, reason, value| {
            if name == wanted || reason == Some(wanted) {
                count += value;
            }
        });
        count
    }

    fn icmp(&mut self, id: usize, words: &[&str]) -> Result<(), String> {
        let [kind, seq, rest @ ..] = words else { return Err("icmp KIND SEQ [mtu=N]".into()) };
        let mtu = keyed(rest, "mtu")?.unwrap_or(0);
        let kind = frames::icmp_kind(kind, mtu, self.setup.is_v4)
            .ok_or_else(|| format!("no such kind: {kind}"))?;
        let flow = self.flow(id);
        let seq = flow.ours().wrapping_add(number::<i64>(seq)? as u32);
        let frame = frames::icmp(&flow.tuple, seq, kind);
        let at = (self.world.now - self.start) / MILLIS;
        self.trace.push(format!("{at:8} [{id}] icmp {}", words.join(" ")));
        self.world.shard.handle_frame(self.world.now, &frame, &mut self.world.host);
        Ok(())
    }

    fn expect(&mut self, id: usize, words: &[&str]) -> Result<(), String> {
        for text in expand(words)? {
            let wanted = Text::parse(&mut text.split(' '), &mut |_, _| Ok(false))?;
            if self.flow(id).sent.is_empty() {
                self.flush()?;
            }
            let now = self.world.now;
            let sent = self.flow(id).sent.pop_front();
            let Sent { at, text: seen } = sent.ok_or("nothing was sent")?;
            if !wanted.matches(&seen) {
                return Err(format!("expected > {wanted}\n    sent     > {seen}"));
            }
            if at != now {
                return Err(format!("it was sent {} ms before", (now - at) / MILLIS));
            }
        }
        Ok(())
    }

    /// What the application does.
    pub(crate) fn call(&mut self, id: usize, verb: &str, words: &[&str]) -> Result<(), String> {
        let (words, fails) = match words {
            [words @ .., "fails"] => (words, true),
            _ => (words, false),
        };
        let listener = self.listener_id;
        let flow = self.flow(id);
        let (Some(app), Some(conn)) = (flow.app, flow.conn) else {
            return Err("there is no connection".into());
        };
        let World { shard, host, now } = &mut self.world;
        let record = &mut host.apps.0[app];
        let amount = words.first().map(|word| number::<usize>(word)).transpose();
        let done = match verb {
            "accept" if record.accepted => {
                shard.accepted(listener, conn);
                Ok(())
            }
            "accept" => return Err("nothing waits to be accepted".into()),
            "write" => {
                let start = record.send.len();
                let end = start + amount?.ok_or("write how much?")?;
                record.send.extend((start..end).map(|at| stream_byte(at as u64)));
                let sent = shard.send(conn, end as u64);
                if sent.is_err() {
                    record.send.truncate(start);
                }
                sent
            }
            "read" => {
                let left = record.rcv_tail - record.consumed;
                let head = record.consumed + amount?.map_or(left, |amount| amount as u64);
                shard.consumed(conn, head).map(|()| record.consumed = head)
            }
            "close" => shard.close(*now, conn),
            "shutdown" => shard.shutdown_write(conn),
            "abort" => shard.abort(conn),
            "quickack" => shard.set_quickack(conn, flag(one(words)?)?),
            _ => return Err(format!("no such call: {verb}")),
        };
        match (done, fails) {
            (Ok(()), false) | (Err(_), true) => Ok(()),
            (Err(error), false) => Err(error.to_string()),
            (Ok(()), true) => Err("it did not fail".into()),
        }
    }

    pub(crate) fn app(&mut self, id: usize) -> Result<&mut App, String> {
        let app = self.flow(id).app.ok_or("there is no connection")?;
        Ok(&mut self.world.host.apps.0[app])
    }
}

pub(crate) fn one<'a>(words: &[&'a str]) -> Result<&'a str, String> {
    match words {
        [word] => Ok(word),
        _ => Err(format!("one word is needed, not {}", words.len())),
    }
}

fn bytes(hex: &str) -> Result<Vec<u8>, String> {
    let digit = |at: usize| hex.get(at..at + 2).and_then(|two| u8::from_str_radix(two, 16).ok());
    let list: Option<Vec<u8>> = (0..hex.len()).step_by(2).map(digit).collect();
    list.filter(|list| list.len() % 4 == 0 && list.len() <= 40)
        .ok_or_else(|| format!("not up to ten words in hexadecimal: {hex}"))
}

fn address(text: &str) -> Result<Addr, String> {
    let addr: std::net::IpAddr = text.parse().map_err(|_| format!("not an address: {text}"))?;
    Ok(Endpoint::from(std::net::SocketAddr::new(addr, 0)).addr)
}
