//! How the connections of a script come about.

use fourwave_stack::ListenerShared;
use fourwave_tcp::{Events, State};
use fourwave_wire::{Addr, Endpoint};

use crate::common::{App, World};
use crate::flow::Flow;
use crate::look::equal;
use crate::run::{PORT, Runner};
use crate::setup::{choose, keyed};

impl Runner {
    pub(crate) fn listen(&mut self, backlog: u32) {
        self.listener = Some(self.world.listen(backlog));
        self.listener_id = 0;
        self.taken.insert((State::Closed as u8, State::Listen as u8));
    }

    pub(crate) fn unlisten(&mut self) {
        if self.listener.take().is_some() {
            self.world.shard.unlisten(self.world.now, self.listener_id);
            self.taken.insert((State::Listen as u8, State::Closed as u8));
        }
    }

    /// Another listener of the same address takes over, and the one until now ends. The host moves
    /// the connections that wait, as it does to a partner of `SO_REUSEPORT`, to a keeper when a
    /// listener ends without one, and from there to its successor (`accept_grace`).
    pub(crate) fn hand_over(&mut self, backlog: u32) -> Result<(), String> {
        self.shared()?.set_reuse_port(true);
        let (from, to) = (self.listener_id, 1 - self.listener_id);
        let next = ListenerShared::new(backlog);
        next.set_reuse_port(true);
        let World { shard, host, now } = &mut self.world;
        let any = Endpoint { addr: Addr::UNSPECIFIED, port: PORT };
        shard.listen(to, any, false, next.clone()).map_err(|error| format!("{error:?}"))?;
        for (number, app) in (0..).zip(&mut host.apps.0) {
            let waits = app.listener == Some(from) && app.accepted && !app.closed;
            if let (true, Some(conn)) = (waits, app.conn)
                && shard.move_waiting(*now, conn, to, number)
            {
                app.listener = Some(to);
            }
        }
        self.unlisten();
        (self.listener, self.listener_id) = (Some(next), to);
        self.taken.insert((State::Closed as u8, State::Listen as u8));
        Ok(())
    }

    /// The application's choices: for its connection, or for those that its listener accepts.
    pub(crate) fn set(&mut self, id: usize, words: &[&str]) -> Result<(), String> {
        let settings = self.settings.entry(id).or_default();
        words.iter().try_for_each(|choice| choose(settings, choice))?;
        let settings = *settings;
        let shard = &mut self.world.shard;
        match self.flows[&id].conn {
            Some(conn) => {
                shard.apply(self.world.now, conn, &settings).map_err(|error| error.to_string())
            }
            None => {
                shard.configure_listener(self.listener_id, &settings);
                Ok(())
            }
        }
    }

    /// A connection whose handshake is over and that was accepted. `words` are the SYN's.
    pub(crate) fn server(&mut self, id: usize, words: &[&str]) -> Result<(), String> {
        if self.listener.is_none() {
            self.listen(16);
        }
        let window =
            words.iter().position(|word| *word == "win").map_or("60000", |at| words[at + 1]);
        let syn = format!("S 0 mss 1000 win {window} {}", words.join(" "));
        self.inject(id, &syn.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>())?;
        self.collect()?;
        self.sample()?;
        let syn_ack = self.flow(id).sent.pop_front().ok_or("no SYN-ACK")?.text;
        let mut ack = format!(". 1 ack 1 win {window}");
        if let Some((value, _)) = syn_ack.timestamps.flatten() {
            let at = words.iter().position(|word| *word == "ts").ok_or("timestamps unasked")?;
            let theirs = words[at + 1].split(':').next().unwrap_or_default();
            ack.push_str(&format!(" ts {theirs}:{value}"));
        }
        self.pass(10)?;
        self.inject(id, &ack.split(' ').collect::<Vec<_>>())?;
        self.sample()?;
        self.call(id, "accept", &[])?;
        self.flush()?;
        self.nothing_left()?;
        let now = self.world.now;
        self.app(id)?.events = Events::NONE;
        self.flow(id).set_epoch(now);
        Ok(())
    }

    pub(crate) fn connect(&mut self, id: usize, words: &[&str]) -> Result<(), String> {
        let World { shard, host, now } = &mut self.world;
        let flow = self.flows.get_mut(&id).expect("every statement opens its flow");
        let to: Option<std::net::SocketAddr> = keyed(words, "to")?;
        let port = keyed(words, "from")?.unwrap_or(0);
        let remote = to.map_or(Endpoint { port: PORT, ..flow.tuple.remote }, Endpoint::from);
        let local = Endpoint { addr: Addr::UNSPECIFIED, port };
        let app = host.apps.0.len();
        host.apps.0.push(App::default());
        let settings = self.settings.get(&id).copied().unwrap_or_default();
        let opened = shard.connect_with(*now, app as u64, Some(local), remote, &settings, host);
        let refused: Option<String> = keyed(words, "fails")?;
        match (opened, refused) {
            (Ok((conn, tuple)), None) => {
                let record = &mut host.apps.0[app];
                (record.conn, record.tuple) = (Some(conn), Some(tuple));
                if flow.tuple != tuple {
                    *flow = Flow::new(tuple, *now);
                }
                (flow.app, flow.conn) = (Some(app), Some(conn));
                Ok(())
            }
            (Err(error), Some(wanted)) => {
                host.apps.0.pop();
                equal("the refusal", &wanted, &format!("{error:?}"))
            }
            (Ok(_), Some(wanted)) => Err(format!("expected {wanted}, it was opened")),
            (Err(error), None) => Err(error.to_string()),
        }
    }
}
