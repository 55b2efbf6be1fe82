//! `fourwave ss`: listeners and connections, in the shape of ss(8).

use crate::daemon::{Daemon, Failure};
use fourwave_protocol::VERSION;
use fourwave_protocol::control::{Reply, Request};
use fourwave_protocol::query::{
    Query, Socket, SocketFilter, SocketKind, SocketState, SocketTimer, States,
};
use std::fmt::Write as _;
use std::io::{self, Write};
use std::net::SocketAddr;

/// Lists listeners and connections as they are found; what comes or goes meanwhile may be missed.
#[derive(Debug, clap::Args)]
#[command(after_help = FILTERS)]
pub(crate) struct Arguments {
    /// All states; without it all but LISTEN, SYN-RECV and TIME-WAIT
    #[arg(short, long)]
    all: bool,
    /// Listeners only
    #[arg(short, long, conflicts_with = "all")]
    listening: bool,
    /// Which process holds it, where you may know
    #[arg(short, long)]
    processes: bool,
    /// The timer that runs: what for, when, how often it has fired
    #[arg(short, long)]
    options: bool,
    /// Also the worker, handshakes under way of a listener, connections that nobody holds
    #[arg(short, long)]
    extended: bool,
    /// No line of titles
    #[arg(short = 'H', long)]
    no_header: bool,
    /// Taken for ss's sake: there is nothing but TCP here
    #[arg(short, long)]
    tcp: bool,
    /// Taken for ss's sake: addresses and ports are always numbers
    #[arg(short, long)]
    numeric: bool,
    /// What to list, see below
    #[arg(value_name = "FILTER")]
    filter: Vec<String>,
}

const FILTERS: &str = "\
A FILTER is any of these words one after the other; all of them must fit:
  state STATE         e.g. established, time-wait, syn-recv, listening, connected; several are
                      or-ed
  exclude STATE
  sport = :PORT       our port
  dport = :PORT       the peer's
  port PORT           either";

/// Prints what the daemon has.
pub(crate) fn run(
    arguments: &Arguments,
    connect: impl FnOnce() -> Result<Daemon, Failure>,
) -> Result<(), Failure> {
    let filter = filter(arguments).map_err(Failure::Usage)?;
    let mut daemon = connect()?;
    daemon.ask(&Request::Query { version: VERSION, query: Query::Sockets(filter) })?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    if !arguments.no_header {
        writeln!(out, "{}", titles(arguments)).map_err(Failure::Output)?;
    }
    loop {
        let (rows, more) = match daemon.reply()? {
            Reply::Sockets { rows, more } => (rows, more),
            other => return Err(Failure::unexpected(&other)),
        };
        for row in &rows {
            writeln!(out, "{}", line(arguments, row)).map_err(Failure::Output)?;
        }
        if !more {
            return out.flush().map_err(Failure::Output);
        }
    }
}

/// As in ss: what is neither waiting for a connection nor over.
const CONNECTED: States = States::ALL.without(
    States::only(SocketState::Listen)
        .and(States::only(SocketState::SynReceived))
        .and(States::only(SocketState::TimeWait))
        .and(States::only(SocketState::Closed)),
);

fn filter(arguments: &Arguments) -> Result<SocketFilter, String> {
    let mut filter = SocketFilter::ALL;
    filter.states = match (arguments.all, arguments.listening) {
        (true, _) => States::ALL,
        (false, true) => States::only(SocketState::Listen),
        (false, false) => CONNECTED,
    };
    let mut wanted = States::NONE;
    let mut excluded = States::NONE;
    // "sport=:80" and "sport = :80" are the same.
    let text = arguments.filter.join(" ").replace("==", "=").replace('=', " = ");
    let mut words = text.split_whitespace();
    while let Some(word) = words.next() {
        match word {
            "state" => wanted = wanted.and(states(words.next())?),
            "exclude" => excluded = excluded.and(states(words.next())?),
            "sport" => filter.local_port = Some(compared_port(word, &mut words)?),
            "dport" => filter.peer_port = Some(compared_port(word, &mut words)?),
            "port" => filter.port = Some(port(word, words.next())?),
            "and" => {}
            other => return Err(format!("`{other}` is no filter; see fourwave ss --help")),
        }
    }
    if wanted != States::NONE {
        filter.states = wanted;
    } else if excluded != States::NONE {
        filter.states = States::ALL;
    }
    filter.states = filter.states.without(excluded);
    Ok(filter)
}

fn compared_port<'a>(name: &str, words: &mut impl Iterator<Item = &'a str>) -> Result<u16, String> {
    match words.next() {
        Some("=" | "eq") => port(name, words.next()),
        _ => Err(format!("`{name}` is followed by = and a port, as in `{name} = :80`")),
    }
}

fn port(name: &str, word: Option<&str>) -> Result<u16, String> {
    let word = word.unwrap_or_default();
    let number = word.strip_prefix(':').unwrap_or(word);
    number.parse().map_err(|_| format!("`{name}` needs a port number, not `{word}`"))
}

fn states(word: Option<&str>) -> Result<States, String> {
    let word = word.unwrap_or_default().to_ascii_lowercase();
    let only = |state| Ok(States::only(state));
    match word.as_str() {
        "all" => Ok(States::ALL),
        "connected" => Ok(CONNECTED),
        "synchronized" => Ok(CONNECTED.without(States::only(SocketState::SynSent))),
        "bucket" => {
            Ok(States::only(SocketState::SynReceived).and(States::only(SocketState::TimeWait)))
        }
        "established" | "estab" => only(SocketState::Established),
        "listening" | "listen" => only(SocketState::Listen),
        "syn-recv" | "syn-rcv" => only(SocketState::SynReceived),
        name => {
            let state = SocketState::ALL.into_iter().find(|s| s.name().eq_ignore_ascii_case(name));
            let known = || {
                let mut names: Vec<_> = SocketState::ALL.iter().map(|state| state.name()).collect();
                names.sort_unstable();
                format!("`{name}` is no state; there are {}", names.join(", ").to_lowercase())
            };
            state.map(States::only).ok_or_else(known)
        }
    }
}

fn titles(arguments: &Arguments) -> String {
    let mut line = format!(
        "{:<10} {:<6} {:<6} {:>28} {:<28}",
        "State", "Recv-Q", "Send-Q", "Local Address:Port", "Peer Address:Port"
    );
    if arguments.processes {
        line += " Process";
    }
    trimmed(line)
}

fn line(arguments: &Arguments, socket: &Socket) -> String {
    let mut line = format!(
        "{:<10} {:<6} {:<6} {:>28} {:<28}",
        socket.state.name(),
        socket.receive_queue,
        socket.send_queue,
        local(socket),
        peer(socket),
    );
    // Writing to a String does not fail.
    if arguments.processes
        && let Some(owner) = &socket.owner
    {
        // Of a listener that waits for a successor: who has left it, perhaps with its life.
        let kept = matches!(socket.kind, SocketKind::Listener { kept: true, .. });
        let role = if kept { "left-by" } else { "users" };
        let _ = write!(line, " {role}:((\"{}\",pid={}))", owner.name, owner.pid);
    }
    if arguments.options
        && let Some(timer) = &socket.timer
    {
        let _ =
            write!(line, " timer:({},{},{})", timer.kind.name(), remaining(timer), timer.retries);
    }
    if arguments.extended {
        line += &extended(socket);
    }
    trimmed(line)
}

fn extended(socket: &Socket) -> String {
    let mut text = String::new();
    if let Some(owner) = &socket.owner {
        let _ = write!(text, " uid:{}", owner.uid);
    }
    if let Some(worker) = socket.worker {
        let _ = write!(text, " worker:{worker}");
    }
    match socket.kind {
        SocketKind::Listener { syn_queue, v6_only, kept: _ } => {
            let _ = write!(text, " syn-queue:{syn_queue}");
            if socket.local.is_ipv6() && socket.local.ip().is_unspecified() {
                let _ = write!(text, " v6only:{}", u8::from(v6_only));
            }
        }
        SocketKind::Unaccepted => text += " unaccepted",
        SocketKind::Orphan => text += " orphan",
        SocketKind::Held | SocketKind::Record => {}
    }
    text
}

/// A listener of every address of both families is `*`, as in ss.
fn is_any(socket: &Socket) -> bool {
    let both = matches!(socket.kind, SocketKind::Listener { v6_only: false, .. });
    both && socket.local.is_ipv6() && socket.local.ip().is_unspecified()
}

fn local(socket: &Socket) -> String {
    match is_any(socket) {
        true => format!("*:{}", socket.local.port()),
        false => socket.local.to_string(),
    }
}

fn peer(socket: &Socket) -> String {
    match (socket.peer, socket.local) {
        (Some(peer), _) => peer.to_string(),
        (None, _) if is_any(socket) => "*:*".to_owned(),
        (None, SocketAddr::V4(_)) => "0.0.0.0:*".to_owned(),
        (None, SocketAddr::V6(_)) => "[::]:*".to_owned(),
    }
}

/// As ss writes it: `200ms`, `1.2sec`, `59sec`, `1min2sec`.
fn remaining(timer: &SocketTimer) -> String {
    let (seconds, milliseconds) = (timer.milliseconds / 1000, timer.milliseconds % 1000);
    match (seconds / 60, seconds % 60) {
        (0, 0) => format!("{milliseconds}ms"),
        (0, seconds @ 1..10) => format!("{seconds}.{}sec", milliseconds / 100),
        (0, seconds) => format!("{seconds}sec"),
        (minutes, seconds) => format!("{minutes}min{seconds}sec"),
    }
}

fn trimmed(mut line: String) -> String {
    line.truncate(line.trim_end().len());
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use fourwave_protocol::query::{Owner, TimerKind};

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn arguments(words: &str) -> Arguments {
        Line::try_parse_from(["ss"].into_iter().chain(words.split(' '))).unwrap().arguments
    }

    fn parsed(words: &str) -> SocketFilter {
        filter(&arguments(words)).unwrap()
    }

    #[test]
    fn filters_are_read_as_ss_reads_them() {
        let all = SocketFilter::ALL;
        let time_wait = States::only(SocketState::TimeWait);
        assert_eq!(parsed("-tan"), all);
        assert_eq!(parsed("-tn").states, CONNECTED);
        assert_eq!(parsed("-ltn").states, States::only(SocketState::Listen));
        assert_eq!(parsed("state time-wait").states, time_wait);
        assert_eq!(
            parsed("state TIME-WAIT state syn-recv").states,
            states(Some("bucket")).unwrap()
        );
        assert_eq!(parsed("exclude time-wait").states, States::ALL.without(time_wait));
        let ports = parsed("-a sport = :80 and dport=:5000 port 80");
        assert_eq!(
            (ports.local_port, ports.peer_port, ports.port),
            (Some(80), Some(5000), Some(80))
        );
    }

    #[test]
    fn what_is_no_filter_is_explained() {
        for (words, expected) in [
            ("state nowhere", "`nowhere` is no state; there are close-wait"),
            ("state", "`` is no state"),
            ("sport 80", "as in `sport = :80`"),
            ("sport = :http", "not `:http`"),
            ("port 70000", "not `70000`"),
            ("10.0.0.1", "`10.0.0.1` is no filter"),
        ] {
            let said = filter(&arguments(words)).unwrap_err();
            assert!(said.contains(expected), "{words}: {said}");
        }
    }

    fn listener(local: &str, v6_only: bool) -> Socket {
        Socket {
            state: SocketState::Listen,
            receive_queue: 1,
            send_queue: 128,
            local: local.parse().unwrap(),
            peer: None,
            owner: Some(Owner { pid: 7, uid: 1000, name: "web".to_owned() }),
            timer: None,
            waiting_ms: None,
            worker: None,
            kind: SocketKind::Listener { syn_queue: 2, v6_only, kept: false },
        }
    }

    #[test]
    fn rows_look_as_in_ss() {
        let plain = arguments("-tan");
        let expected = "LISTEN     1      128                      0.0.0.0:80 0.0.0.0:*";
        assert_eq!(line(&plain, &listener("0.0.0.0:80", false)), expected);
        assert_eq!(peer(&listener("[::]:80", false)), "*:*");
        assert_eq!(local(&listener("[::]:80", false)), "*:80");
        assert_eq!(local(&listener("[::]:80", true)), "[::]:80");
        assert_eq!(peer(&listener("[fd00::1]:80", false)), "[::]:*");
        let full = arguments("-tanpoe");
        let said = line(&full, &listener("[::]:80", true));
        let expected = "users:((\"web\",pid=7)) uid:1000 syn-queue:2 v6only:1";
        assert!(said.ends_with(expected), "{said}");
        let kind = SocketKind::Listener { syn_queue: 2, v6_only: false, kept: true };
        let said = line(&full, &Socket { kind, ..listener("0.0.0.0:80", false) });
        assert!(said.contains(" left-by:((\"web\",pid=7)) "), "{said}");
        let timer = SocketTimer { kind: TimerKind::TimeWait, milliseconds: 59_300, retries: 0 };
        let socket = Socket {
            state: SocketState::TimeWait,
            peer: Some("10.0.0.2:5000".parse().unwrap()),
            owner: None,
            timer: Some(timer),
            worker: Some(1),
            kind: SocketKind::Record,
            ..listener("10.0.0.1:80", false)
        };
        let said = line(&full, &socket);
        assert!(
            said.ends_with("10.0.0.2:5000                timer:(timewait,59sec,0) worker:1"),
            "{said}"
        );
    }

    #[test]
    fn times_are_short() {
        let text = |milliseconds| {
            remaining(&SocketTimer { kind: TimerKind::Persist, milliseconds, retries: 0 })
        };
        assert_eq!(
            [999, 1_250, 59_999, 62_000].map(text),
            ["999ms", "1.2sec", "59sec", "1min2sec"]
        );
    }
}
