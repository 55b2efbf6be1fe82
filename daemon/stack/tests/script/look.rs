//! How things stand, for a script to compare.

use fourwave_tcp::{Error, Events, Nanos, State, Tcb};

use crate::common::MILLIS;
use crate::run::{Runner, one};
use crate::segment::{number, stream_byte};
use crate::setup::keyed;

impl Runner {
    /// Looks at how things stand. What is due is left to be sent.
    pub(crate) fn look(&mut self, id: usize, verb: &str, words: &[&str]) -> Result<(), String> {
        match verb {
            "state" => {
                let flow = self.flow(id).tuple;
                let state = self.world.shard.state(&flow).unwrap_or(State::Closed);
                equal("the state", &one(words)?, &state.name())
            }
            "events" => {
                let wanted = words
                    .iter()
                    .try_fold(Events::NONE, |all, word| event(word).map(|event| all | event))?;
                let happened = std::mem::take(&mut self.app(id)?.events);
                equal("what happened", &wanted, &happened)
            }
            "error" => {
                let error = self.app(id)?.error.map_or("none", errno);
                equal("the error", &one(words)?, &error)
            }
            "received" => {
                let (wanted, app) = (number(one(words)?)?, self.app(id)?);
                let right =
                    (0..app.rcv_tail).all(|at| app.received[at as usize] == stream_byte(at));
                if !right {
                    return Err("received other bytes than were sent".into());
                }
                equal("bytes received", &wanted, &app.rcv_tail)
            }
            "acked" => {
                let wanted = number(one(words)?)?;
                equal("bytes acknowledged", &wanted, &self.app(id)?.snd_acked)
            }
            "counter" => {
                let [name, count] = words else { return Err("counter NAME COUNT".into()) };
                equal(name, &number(count)?, &self.drops(name))
            }
            "queue" => {
                let shared = self.shared()?;
                let (accept, syn) = (shared.accept_len(), shared.syn_len());
                equal("the accept queue", &keyed(words, "accept")?.unwrap_or(accept), &accept)?;
                equal("the SYN queue", &keyed(words, "syn")?.unwrap_or(syn), &syn)
            }
            "records" => {
                let gauges = self.world.shard.gauges();
                let seen = (gauges.connections, gauges.syn_received, gauges.time_wait);
                let wanted = (
                    keyed(words, "connections")?.unwrap_or(seen.0),
                    keyed(words, "syn_received")?.unwrap_or(seen.1),
                    keyed(words, "time_wait")?.unwrap_or(seen.2),
                );
                equal("records", &wanted, &seen)
            }
            _ => self.look_inside(id, verb, words),
        }
    }

    fn look_inside(&mut self, id: usize, verb: &str, words: &[&str]) -> Result<(), String> {
        let conn = self.flow(id).conn.ok_or("there is no connection")?;
        let tcb: &Tcb = self.world.shard.tcb(conn).map_err(|error| error.to_string())?;
        let wanted = || one(words).and_then(number::<u64>);
        let millis = |time: Nanos| time / MILLIS;
        match verb {
            "no_timer" => equal("the next timer", &None, &tcb.deadline()),
            "cwnd" => equal("the congestion window", &wanted()?, &tcb.congestion_window().into()),
            "send_window" => equal("the peer's window", &wanted()?, &tcb.send_window().into()),
            "mss" => equal("the segment size", &wanted()?, &tcb.mss().into()),
            "pmtu" => {
                let info = tcb.info(&self.world.shard.config().tcp, self.world.now);
                equal("the path's MTU", &wanted()?, &info.path_mtu.unwrap_or(0).into())
            }
            "rto" => equal("the timeout", &wanted()?, &millis(tcb.rto())),
            "retransmits" => equal("segments sent again", &wanted()?, &tcb.retransmits().into()),
            "srtt" => {
                let srtt = tcb.srtt().map_or("-".to_string(), |srtt| millis(srtt).to_string());
                equal("the round trip", &one(words)?, &srtt.as_str())
            }
            _ => Err(format!("no such statement: {verb}")),
        }
    }
}

/// Whether `wanted` is what is seen.
pub(crate) fn equal<T: PartialEq + std::fmt::Debug>(
    what: &str,
    wanted: &T,
    seen: &T,
) -> Result<(), String> {
    if wanted == seen { Ok(()) } else { Err(format!("{what}: expected {wanted:?}, is {seen:?}")) }
}

fn event(word: &str) -> Result<Events, String> {
    let shout = word.to_uppercase();
    let all = (0..u16::BITS).map(|bit| Events(1 << bit));
    let mut named = all.filter(|event| format!("{event:?}").trim_matches(['{', '}']) == shout);
    named.next().ok_or_else(|| format!("no such event: {word}"))
}

/// What the application would see.
fn errno(error: Error) -> &'static str {
    match error {
        Error::Refused => "ECONNREFUSED",
        Error::Reset => "ECONNRESET",
        Error::BrokenPipe => "EPIPE",
        Error::TimedOut => "ETIMEDOUT",
        Error::HostUnreachable => "EHOSTUNREACH",
        Error::NetUnreachable => "ENETUNREACH",
        Error::ProtocolUnreachable => "ENOPROTOOPT",
        Error::Protocol => "EPROTO",
    }
}
