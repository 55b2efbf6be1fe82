//! A frame as a line, much as tcpdump writes it.

use super::comment;
use fourwave_protocol::capture::CapturedFrame;
use fourwave_wire::{ChecksumPolicy, Inbound, Options, TcpFrame, parse};
use std::time::{Duration, UNIX_EPOCH};

pub(super) fn line(frame: &CapturedFrame) -> String {
    let time = UNIX_EPOCH + Duration::from_nanos(frame.at);
    let time = humantime::format_rfc3339_nanos(time).to_string();
    // The time of day, as tcpdump has it.
    let time = time.split('T').nth(1).map_or(time.as_str(), |rest| rest.trim_end_matches('Z'));
    format!("{time} {}  {}", what(frame), comment(frame))
}

fn what(frame: &CapturedFrame) -> String {
    match parse(&frame.bytes, ChecksumPolicy::Trust) {
        Ok(Inbound::Tcp(tcp)) => segment(&tcp),
        Ok(Inbound::IcmpError(quote)) => {
            format!("ICMP error {:?} about {}", quote.kind, quote.tuple.flipped())
        }
        Err(_) if frame.bytes.len() < frame.length as usize => {
            format!("cut off after {} of {} bytes", frame.bytes.len(), frame.length)
        }
        Err(error) => format!("{} bytes that cannot be read: {error}", frame.length),
    }
}

fn segment(frame: &TcpFrame<'_>) -> String {
    let (source, destination, segment) = (frame.tuple.remote, frame.tuple.local, &frame.segment);
    let (start, len) = (segment.seq, segment.payload.len());
    let mut text = format!("{source} > {destination}: Flags [{}], seq {start}", segment.flags);
    if len > 0 {
        text += &format!(":{}", start.wrapping_add(len as u32));
    }
    if segment.flags.contains(fourwave_wire::Flags::ACK) {
        text += &format!(", ack {}", segment.ack);
    }
    text += &format!(", win {}", segment.window);
    let options = options(&segment.options);
    if !options.is_empty() {
        text += &format!(", options [{}]", options.join(","));
    }
    text + &format!(", length {len}")
}

fn options(options: &Options) -> Vec<String> {
    let mut all = Vec::new();
    all.extend(options.mss.map(|mss| format!("mss {mss}")));
    all.extend(options.sack_permitted.then(|| "sackOK".to_owned()));
    all.extend(options.timestamps.map(|ts| format!("TS val {} ecr {}", ts.value, ts.echo)));
    all.extend(options.window_scale.map(|shift| format!("wscale {shift}")));
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use fourwave_protocol::capture::FrameVerdict;
    use fourwave_wire::{Endpoint, Flags, FourTuple, FrameHead, Link, Mac, build};
    use std::net::SocketAddr;

    #[test]
    fn a_segment_looks_as_in_tcpdump() {
        let endpoint = |text: &str| Endpoint::from(text.parse::<SocketAddr>().unwrap());
        let head = FrameHead {
            link: Link::new(Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2])),
            tuple: FourTuple { local: endpoint("10.0.0.2:5000"), remote: endpoint("10.0.0.1:80") },
            ttl: 64,
            seq: 100,
            ack: 7,
            window: 500,
            flags: Flags::ACK | Flags::PSH,
            options: Options { mss: Some(1460), ..Options::default() },
            ..FrameHead::default()
        };
        let mut bytes = vec![0; 200];
        let length = build(&mut bytes, &head, 5, |out| out.fill(9)).unwrap();
        bytes.truncate(length);
        let frame = CapturedFrame {
            at: 1_700_000_000_123_456_789,
            worker: 0,
            verdict: FrameVerdict::Sent,
            length: length as u32,
            bytes,
        };
        let expected = "22:13:20.123456789 10.0.0.2:5000 > 10.0.0.1:80: Flags [P.], seq 100:105, \
                        ack 7, win 500, options [mss 1460], length 5  tx";
        assert_eq!(line(&frame), expected);
        let mut cut = frame.clone();
        cut.bytes.truncate(20);
        assert!(line(&cut).contains(" cut off after 20 of "), "{}", line(&cut));
        let garbage = CapturedFrame { bytes: vec![0; 60], length: 60, ..frame };
        assert!(line(&garbage).contains("60 bytes that cannot be read: not_ip"));
    }
}
