//! Any bytes as a frame: parsing does not panic, agrees with the quick look that finds the owner, and
//! what it takes comes out the same when it is built and parsed again.

#![no_main]

use fourwave_wire::{ChecksumPolicy, FrameHead, Inbound, TcpFrame, build, parse, peek_tuple};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|frame: &[u8]| {
    let verified = parse(frame, ChecksumPolicy::Verify);
    let trusted = parse(frame, ChecksumPolicy::Trust);
    if verified.is_ok() {
        assert_eq!(verified, trusted);
    }
    let Ok(inbound) = trusted else { return };
    let tuple = match inbound {
        Inbound::Tcp(tcp) => {
            rebuild(&tcp);
            tcp.tuple
        }
        Inbound::IcmpError(quote) => quote.tuple,
    };
    assert_eq!(peek_tuple(frame), Some(tuple));
});

fn rebuild(tcp: &TcpFrame<'_>) {
    let segment = &tcp.segment;
    let head = FrameHead {
        link: tcp.link,
        tuple: tcp.tuple.flipped(),
        tos: tcp.tos,
        ttl: tcp.ttl,
        ip_id: 0,
        seq: segment.seq,
        ack: segment.ack,
        flags: segment.flags,
        window: segment.window,
        urgent: segment.urgent,
        options: segment.options,
    };
    let payload = segment.payload;
    let mut out = vec![0; payload.len() + 200];
    let len = build(&mut out, &head, payload.len(), |room| room.copy_from_slice(payload));
    // With every option at its largest there is no room for all SACK blocks.
    let kept = match parse(&out[..len.unwrap()], ChecksumPolicy::Verify).unwrap() {
        Inbound::Tcp(again) => again,
        Inbound::IcmpError(quote) => panic!("{quote:?}"),
    };
    let blocks = segment.options.sack.as_slice();
    let kept_blocks = kept.segment.options.sack.as_slice();
    assert!(blocks.starts_with(kept_blocks));
    let mut same = kept;
    same.segment.options.sack = segment.options.sack;
    assert_eq!(&same, tcp);
}
