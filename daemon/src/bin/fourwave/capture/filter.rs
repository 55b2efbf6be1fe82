//! The filter language: a small part of tcpdump's, and what only we know about frames.

use fourwave_protocol::capture::{End, MOST_STEPS, Step};
use fourwave_stack::Reason;
use std::iter::Peekable;
use std::net::IpAddr;
use std::vec::IntoIter;

pub(super) const GRAMMAR: &str = "\
A FILTER is made of these conditions:
  host ADDRESS, port PORT       of either end; after src or dst of that end
  tcp, icmp, ip, ip6            the protocol; `tcp port 80` is short for `tcp and port 80`
  rx, tx                        received, sent
  dropped                       refused or dropped
  reason NAME                   for this reason, as `fourwave stats` and `fourwave drops` name it
joined by `and`, `or`, `not` and (quoted) parentheses; `and` binds closer than `or`.
  fourwave capture -w all.pcapng
  fourwave capture dropped and not reason duplicate
  fourwave capture 'host 10.0.0.2 and (port 80 or port 443)'";

/// The steps of a filter; none if there is no text.
pub(super) fn parse(text: &str) -> Result<Vec<Step>, String> {
    let text = text.replace("&&", " and ").replace("||", " or ").replace('!', " not ");
    let text = text.replace('(', " ( ").replace(')', " ) ");
    let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
    let mut parser = Parser { words: words.into_iter().peekable(), steps: Vec::new() };
    if parser.words.peek().is_none() {
        return Ok(Vec::new());
    }
    parser.either()?;
    match parser.words.next() {
        None if parser.steps.len() > MOST_STEPS => {
            Err(format!("the filter is too long: at most {MOST_STEPS} conditions and connectives"))
        }
        None => Ok(parser.steps),
        Some(word) => Err(format!("`{word}` comes where the filter is over: is an `and` missing?")),
    }
}

struct Parser {
    words: Peekable<IntoIter<String>>,
    steps: Vec<Step>,
}

impl Parser {
    fn takes(&mut self, word: &str) -> bool {
        self.words.next_if(|next| next == word).is_some()
    }

    fn either(&mut self) -> Result<(), String> {
        self.both()?;
        while self.takes("or") {
            self.both()?;
            self.steps.push(Step::Or);
        }
        Ok(())
    }

    fn both(&mut self) -> Result<(), String> {
        self.one()?;
        while self.takes("and") {
            self.one()?;
            self.steps.push(Step::And);
        }
        Ok(())
    }

    fn one(&mut self) -> Result<(), String> {
        // One level of the stack each; as deep as a filter can be useful.
        if self.steps.len() > MOST_STEPS || self.words.len() > 8 * MOST_STEPS {
            return Err("the filter is too long".to_owned());
        }
        let word = self.words.next().ok_or("the filter ends where a condition is due")?;
        let end = match word.as_str() {
            "not" => {
                self.one()?;
                self.steps.push(Step::Not);
                return Ok(());
            }
            "(" => {
                self.either()?;
                return match self.takes(")") {
                    true => Ok(()),
                    false => Err("a `)` is missing".to_owned()),
                };
            }
            "src" => End::Source,
            "dst" => End::Destination,
            _ => return self.condition(&word),
        };
        let word = self.words.next().unwrap_or_default();
        match word.as_str() {
            "host" | "port" => self.address(&word, end),
            _ => Err(format!("`host` or `port` follows `src` and `dst`, not `{word}`")),
        }
    }

    fn condition(&mut self, word: &str) -> Result<(), String> {
        let protocol = match word {
            "host" | "port" => return self.address(word, End::Either),
            "reason" => return self.reason(),
            "rx" => return self.push(Step::Received),
            "tx" => return self.push(Step::Sent),
            "dropped" => return self.push(Step::Dropped),
            "tcp" => Step::Tcp,
            "icmp" => Step::Icmp,
            "ip" => Step::V4,
            "ip6" => Step::V6,
            other => {
                return Err(format!("`{other}` is no condition; see fourwave capture --help"));
            }
        };
        self.steps.push(protocol);
        // As in tcpdump: `tcp port 80`.
        if matches!(self.words.peek().map(String::as_str), Some("src" | "dst" | "host" | "port")) {
            self.one()?;
            self.steps.push(Step::And);
        }
        Ok(())
    }

    fn push(&mut self, step: Step) -> Result<(), String> {
        self.steps.push(step);
        Ok(())
    }

    fn address(&mut self, what: &str, end: End) -> Result<(), String> {
        let word = self.words.next().unwrap_or_default();
        let step = match what {
            "host" => word.parse::<IpAddr>().map(|host| Step::Host(end, host)).ok(),
            _ => word.parse().map(|port| Step::Port(end, port)).ok(),
        };
        let wanted = if what == "host" { "an address" } else { "a port number" };
        self.steps.push(step.ok_or_else(|| format!("`{what}` needs {wanted}, not `{word}`"))?);
        Ok(())
    }

    fn reason(&mut self) -> Result<(), String> {
        let word = self.words.next().unwrap_or_default();
        let reason = Reason::find(&word).ok_or_else(|| {
            let names: Vec<_> = Reason::all().map(Reason::name).collect();
            format!("`{word}` is no reason for a drop; there are {}", names.join(", "))
        })?;
        self.push(Step::Reason(reason.name().to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fourwaved::tap::Filter;

    fn parsed(text: &str) -> Vec<Step> {
        let steps = parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        Filter::new(&steps).unwrap_or_else(|error| panic!("{text}: {error}"));
        steps
    }

    #[test]
    fn filters_become_steps() {
        let port = |port| Step::Port(End::Either, port);
        let (host, tcp) = (|end, text: &str| Step::Host(end, text.parse().unwrap()), || Step::Tcp);
        assert_eq!(parsed(""), []);
        assert_eq!(parsed("port 80"), [port(80)]);
        assert_eq!(parsed("tcp port 80"), [tcp(), port(80), Step::And]);
        assert_eq!(parsed("src host fd00::1"), [host(End::Source, "fd00::1")]);
        assert_eq!(
            parsed("port 1 or port 2 and not port 3"),
            [port(1), port(2), port(3), Step::Not, Step::And, Step::Or]
        );
        assert_eq!(
            parsed("(port 1||port 2)&&!dropped"),
            [port(1), port(2), Step::Or, Step::Dropped, Step::Not, Step::And]
        );
        assert_eq!(parsed("reason LISTENOVERFLOWS"), [Step::Reason("ListenOverflows".into())]);
        assert_eq!(
            parsed("ip6 dst port 9 and rx or tx and icmp or ip"),
            [
                Step::V6,
                Step::Port(End::Destination, 9),
                Step::And,
                Step::Received,
                Step::And,
                Step::Sent,
                Step::Icmp,
                Step::And,
                Step::Or,
                Step::V4,
                Step::Or,
            ]
        );
    }

    #[test]
    fn what_is_no_filter_is_explained() {
        for (text, expected) in [
            ("udp", "`udp` is no condition"),
            ("port http", "`port` needs a port number, not `http`"),
            ("host", "`host` needs an address, not ``"),
            ("src 10.0.0.1", "`host` or `port` follows"),
            ("reason weather", "`weather` is no reason for a drop; there are truncated, "),
            ("port 80 port 81", "`port` comes where the filter is over"),
            ("(port 80", "a `)` is missing"),
            ("port 80 and", "ends where a condition is due"),
            ("port 80)", "`)` comes where"),
        ] {
            let said = parse(text).unwrap_err();
            assert!(said.contains(expected), "{text}: {said}");
        }
        let long = vec!["port 1"; 40].join(" and ");
        assert!(parse(&long).unwrap_err().contains("too long"));
        assert!(parse(&"(".repeat(100_000)).unwrap_err().contains("too long"));
    }
}
