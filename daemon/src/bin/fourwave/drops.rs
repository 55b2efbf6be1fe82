//! `fourwave drops`: the last cases of what was refused or dropped.

use crate::daemon::{Daemon, Failure};
use fourwave_protocol::VERSION;
use fourwave_protocol::control::{Reply, Request};
use fourwave_protocol::query::{DropSample, Query};
use fourwave_stack::Reason;
use fourwave_wire::Flags;
use fourwaved::explain::explain;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::{Duration, UNIX_EPOCH};

/// Prints the last cases of what was refused, dropped or given up, oldest first, with their
/// reasons. Each worker keeps the last eight of each reason; the counters of `fourwave stats` say
/// how many there were.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// One JSON document
    #[arg(long)]
    json: bool,
    /// Reasons, as `fourwave stats` names them; none: all
    #[arg(value_name = "REASON", value_parser = known)]
    reasons: Vec<String>,
}

impl Arguments {
    /// Every reason.
    pub(crate) fn all(json: bool) -> Arguments {
        Arguments { json, reasons: Vec::new() }
    }
}

/// The name of a reason, as it is written.
fn known(word: &str) -> Result<String, String> {
    let reason = Reason::find(word).ok_or_else(|| {
        let names: Vec<_> = Reason::all().map(Reason::name).collect();
        format!("no such reason; there are {}", names.join(", "))
    })?;
    Ok(reason.name().to_owned())
}

/// Prints them.
pub(crate) fn run(arguments: &Arguments, daemon: &mut Daemon) -> Result<(), Failure> {
    let mut samples = read(daemon)?;
    if !arguments.reasons.is_empty() {
        samples.retain(|sample| arguments.reasons.contains(&sample.reason));
    }
    samples.sort_by_key(|sample| sample.at);
    let mut out = io::BufWriter::new(io::stdout().lock());
    if arguments.json {
        let json: serde_json::Value = samples.iter().map(json).collect();
        writeln!(out, "{json}").map_err(Failure::Output)?;
    } else {
        for sample in &samples {
            writeln!(out, "{}", line(sample)).map_err(Failure::Output)?;
        }
    }
    out.flush().map_err(Failure::Output)
}

/// No more than a worker keeps, from each of them.
fn read(daemon: &mut Daemon) -> Result<Vec<DropSample>, Failure> {
    daemon.ask(&Request::Query { version: VERSION, query: Query::Drops })?;
    let mut samples = Vec::new();
    loop {
        match daemon.reply()? {
            Reply::Drops { rows, more } => {
                samples.extend(rows);
                if !more {
                    return Ok(samples);
                }
            }
            other => return Err(Failure::unexpected(&other)),
        }
    }
}

fn line(sample: &DropSample) -> String {
    let end = |end: Option<SocketAddr>| end.map_or_else(|| "?".to_owned(), |end| end.to_string());
    let mut line = format!(
        "{} {:<20} {} > {}",
        time(sample.at),
        sample.reason,
        end(sample.peer),
        end(sample.local)
    );
    if let Some(head) = sample.segment {
        let flags = Flags(head.flags);
        line += &format!(" [{flags}] seq {} ack {} length {}", head.seq, head.ack, head.len);
    }
    if let Some(text) = text(sample) {
        line += &format!("  {text}");
    }
    line
}

fn text(sample: &DropSample) -> Option<&'static str> {
    let (counter, member) = Reason::find(&sample.reason)?.counter();
    explain(counter, member)
}

fn time(at: u64) -> String {
    let time = UNIX_EPOCH + Duration::from_nanos(at);
    humantime::format_rfc3339_millis(time).to_string()
}

fn json(sample: &DropSample) -> serde_json::Value {
    let mut object = serde_json::json!({
        "time": time(sample.at),
        "reason": sample.reason,
        "text": text(sample),
        "worker": sample.worker,
        "local": sample.local,
        "peer": sample.peer,
    });
    if let Some(head) = sample.segment {
        object["flags"] = Flags(head.flags).to_string().into();
        object["seq"] = head.seq.into();
        object["ack"] = head.ack.into();
        object["length"] = head.len.into();
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;
    use fourwave_protocol::query::SegmentHead;

    fn sample() -> DropSample {
        DropSample {
            reason: "out_of_window".to_owned(),
            at: 1_700_000_000_123_456_789,
            worker: 1,
            local: Some("10.0.0.1:80".parse().unwrap()),
            peer: Some("10.0.0.2:5000".parse().unwrap()),
            segment: Some(SegmentHead { seq: 7, ack: 8, len: 9, flags: 0x18 }),
        }
    }

    #[test]
    fn a_case_is_one_line() {
        let expected = "2023-11-14T22:13:20.123Z out_of_window        10.0.0.2:5000 > 10.0.0.1:80 \
                        [P.] seq 7 ack 8 length 9  Outside the receive window.";
        assert_eq!(line(&sample()), expected);
        let bare = DropSample { local: None, peer: None, segment: None, ..sample() };
        assert!(line(&bare).contains("out_of_window        ? > ?  Outside"), "{}", line(&bare));
    }

    #[test]
    fn json_says_the_same() {
        let json = json(&sample());
        assert_eq!(
            (json["reason"].as_str(), json["flags"].as_str()),
            (Some("out_of_window"), Some("P."))
        );
        assert_eq!(json["peer"], "10.0.0.2:5000");
        assert_eq!(json["text"], "Outside the receive window.");
    }

    #[test]
    fn reasons_are_known_however_they_are_cased() {
        assert_eq!(known("listenoverflows"), Ok("ListenOverflows".to_owned()));
        assert!(known("bad_weather").unwrap_err().contains("tcp_checksum"));
    }
}
