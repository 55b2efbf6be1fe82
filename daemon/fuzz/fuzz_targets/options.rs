//! Any bytes as the options of a segment: a reference that reads them one by one, without a short
//! cut, comes to the same.

#![no_main]

use fourwave_wire::{
    Addr, ChecksumPolicy, Endpoint, FourTuple, FrameHead, Inbound, Link, MAX_OPTIONS_LEN,
    MAX_WINDOW_SCALE, Mac, Options, SackBlock, SackBlocks, Timestamps, build, parse,
};
use libfuzzer_sys::fuzz_target;

/// Ethernet and IPv4 without options.
const TCP: usize = 34;
const TCP_HEADER: usize = 20;

fuzz_target!(|bytes: &[u8]| {
    let len = bytes.len().min(MAX_OPTIONS_LEN) & !3;
    let bytes = &bytes[..len];
    let end = |last| Endpoint { addr: Addr::from_v4([10, 0, 0, last]), port: 9 };
    let head = FrameHead {
        link: Link::new(Mac([2; 6]), Mac([4; 6])),
        tuple: FourTuple { local: end(1), remote: end(2) },
        ttl: 1,
        ..FrameHead::default()
    };
    let mut frame = [0; TCP + TCP_HEADER + MAX_OPTIONS_LEN];
    let room = build(&mut frame, &head, len, |room| room.copy_from_slice(bytes)).unwrap();
    // What was payload becomes options.
    frame[TCP + 12] = ((TCP_HEADER + len) as u8 / 4) << 4;
    let parsed = match parse(&frame[..room], ChecksumPolicy::Trust) {
        Ok(Inbound::Tcp(tcp)) => Some(tcp.segment.options),
        Ok(Inbound::IcmpError(quote)) => panic!("{quote:?}"),
        Err(_) => None,
    };
    assert_eq!(parsed, reference(bytes));
});

/// RFC 9293 §3.2, RFC 7323 and RFC 2018, byte by byte.
fn reference(mut rest: &[u8]) -> Option<Options> {
    let mut options = Options::default();
    loop {
        match rest {
            [] | [0, ..] => return Some(options),
            [1, ..] => rest = &rest[1..],
            [_] => return None,
            [kind, len, ..] => {
                let len = usize::from(*len);
                if len < 2 || len > rest.len() {
                    return None;
                }
                let (option, after) = rest.split_at(len);
                take(&mut options, *kind, &option[2..])?;
                rest = after;
            }
        }
    }
}

fn take(options: &mut Options, kind: u8, value: &[u8]) -> Option<()> {
    let word = |at: usize| u32::from_be_bytes(value[at..at + 4].try_into().unwrap());
    match (kind, value) {
        (2, &[high, low]) => options.mss = Some(u16::from_be_bytes([high, low])),
        (3, &[scale]) => options.window_scale = Some(scale.min(MAX_WINDOW_SCALE)),
        (4, []) => options.sack_permitted = true,
        (8, value) if value.len() == 8 => {
            options.timestamps = Some(Timestamps { value: word(0), echo: word(4) });
        }
        (5, value) if !value.is_empty() && value.len() % 8 == 0 && value.len() <= 32 => {
            options.sack = SackBlocks::default();
            for at in (0..value.len()).step_by(8) {
                options.sack.push(SackBlock { left: word(at), right: word(at + 4) });
            }
        }
        (2..=5 | 8, _) => return None,
        _ => {}
    }
    Some(())
}
