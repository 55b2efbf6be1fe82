//! Whole frames: captured from the Linux kernel, built and parsed back, damaged, and random.

use std::net::SocketAddr;

use fourwave_wire::{
    Addr, ChecksumPolicy, Endpoint, Flags, FourTuple, FrameHead, IcmpKind, Inbound, Link, Mac,
    Options, ParseError, SackBlock, Segment, Tag, TcpFrame, Timestamps, TooSmall, build,
    max_payload, parse, peek_tuple,
};
use proptest::prelude::{Just, Strategy, any, prop};
use proptest::{option, prop_assert, prop_assert_eq, prop_oneof, proptest};

/// Sent by Linux over veth, checksums by the kernel.
const V4_SYN_ACK: &str = "865f8fe395943a0b204ad12708004500003c00004000400625f60a6200020a6200011e61\
    d17a19a5d5162a50be64a012fe88f2830000020405b40402080a2c8e188b96e19ed20103030a";
const V4_DATA: &str = "3a0b204ad127865f8fe3959408004500003c12fc4000400612fa0a6200010a620002d17a1e61\
    2a50be6419a5d5178018003f55e400000101080a96e19ed22c8e188b666f757277617665";
const V6_SYN: &str = "3a0b204ad127865f8fe3959486dd6007969700280640fd980000000000000000000000000001\
    fd980000000000000000000000000002e7941e612d30c79700000000a002fd20de1d0000020405a00402080a641a12c6\
    000000000103030a";
const V4_HOST_UNREACHABLE: &str = "3a0b204ad127865f8fe39594080045c0005842300000400122ef0a6200010a62\
    00020301439b000000004500003cb36a4000400640e40a620002cb007109878a00502a62c6a500000000a002faf0372c\
    0000020405b40402080a74d7e1b8000000000103030a";
const V6_NO_ROUTE: &str = "3a0b204ad127865f8fe3959486dd6001633800583a40fd98000000000000000000000000\
    0001fd9800000000000000000000000000020100554300000000600747b400280640fd98000000000000000000000000\
    000220010db8000000000000000000000009eacc0050c17d52d300000000a002fd2091b60000020405a00402080ae301\
    ab6d000000000103030a";

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let digit = |byte: u8| (byte as char).to_digit(16).unwrap() as u8;
    digits.chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

fn endpoint(text: &str) -> Endpoint {
    text.parse::<SocketAddr>().unwrap().into()
}

fn tcp(frame: &[u8]) -> TcpFrame<'_> {
    match parse(frame, ChecksumPolicy::Verify).unwrap() {
        Inbound::Tcp(tcp) => tcp,
        Inbound::IcmpError(quote) => panic!("{quote:?}"),
    }
}

#[test]
fn kernel_segments_parse() {
    let frame = bytes(V4_DATA);
    let data = tcp(&frame);
    assert_eq!(data.tuple.local, endpoint("10.98.0.2:7777"));
    assert_eq!(data.tuple.remote, endpoint("10.98.0.1:53626"));
    assert_eq!((data.ttl, data.tos), (64, 0));
    assert_eq!(
        data.segment,
        Segment {
            seq: 0x2a50_be64,
            ack: 0x19a5_d517,
            flags: Flags::PSH | Flags::ACK,
            window: 63,
            options: Options {
                timestamps: Some(Timestamps { value: 0x96e1_9ed2, echo: 0x2c8e_188b }),
                ..Options::default()
            },
            payload: b"fourwave",
            urgent: 0,
            congested: false,
        }
    );

    let frame = bytes(V6_SYN);
    let syn = tcp(&frame);
    assert_eq!(syn.tuple.local, endpoint("[fd98::2]:7777"));
    assert_eq!(syn.segment.flags, Flags::SYN);
    assert_eq!(syn.segment.options.mss, Some(1440));
    assert_eq!(syn.segment.options.window_scale, Some(10));
    assert!(syn.segment.options.sack_permitted);
    assert_eq!(peek_tuple(&frame), Some(syn.tuple));
}

/// What the kernel sent, built by us, is the same frame: header layout, option order, checksums.
#[test]
fn kernel_segments_are_rebuilt_byte_for_byte() {
    for hex in [V4_SYN_ACK, V4_DATA, V6_SYN] {
        let mut frame = bytes(hex);
        if !tcp(&frame).tuple.is_v4() {
            frame[15..18].fill(0); // We send no flow label; no checksum covers it.
        }
        let parsed = tcp(&frame);
        let mut head = head_of(&parsed);
        head.ip_id = u16::from_be_bytes([frame[18], frame[19]]);
        let mut out = [0; 200];
        let payload = parsed.segment.payload;
        let len =
            build(&mut out, &head, payload.len(), |room| room.copy_from_slice(payload)).unwrap();
        assert_eq!(&out[..len], &frame[..]);
    }
}

#[test]
fn kernel_icmp_errors_parse() {
    for (hex, kind, local, remote, seq) in [
        (
            V4_HOST_UNREACHABLE,
            IcmpKind::HostUnreachable,
            "10.98.0.2:34698",
            "203.0.113.9:80",
            0x2a62_c6a5,
        ),
        (V6_NO_ROUTE, IcmpKind::NetUnreachable, "[fd98::2]:60108", "[2001:db8::9]:80", 0xc17d_52d3),
    ] {
        let frame = bytes(hex);
        let tuple = FourTuple { local: endpoint(local), remote: endpoint(remote) };
        match parse(&frame, ChecksumPolicy::Trust).unwrap() {
            Inbound::IcmpError(quote) => {
                assert_eq!((quote.kind, quote.tuple, quote.seq), (kind, tuple, seq));
            }
            Inbound::Tcp(tcp) => panic!("{tcp:?}"),
        }
        assert_eq!(peek_tuple(&frame), Some(tuple));

        let mut damaged = frame.clone();
        *damaged.last_mut().unwrap() ^= 1;
        assert_eq!(parse(&damaged, ChecksumPolicy::Trust), Err(ParseError::IcmpChecksum));
        let mut echo = frame;
        let icmp_type = if tuple.is_v4() { 34 } else { 54 };
        echo[icmp_type] = if tuple.is_v4() { 8 } else { 128 };
        assert_eq!(parse(&echo, ChecksumPolicy::Verify), Err(ParseError::IcmpIgnored));
        assert_eq!(peek_tuple(&echo), None);
    }
}

#[test]
fn packet_too_big_tells_the_mtu() {
    let mut frame = bytes(V4_HOST_UNREACHABLE);
    frame[35] = 4;
    frame[40..42].copy_from_slice(&1400u16.to_be_bytes());
    // Mend the checksum by hand: code 1 -> 4 and 1400 more.
    let old = u16::from_be_bytes([frame[36], frame[37]]);
    let sum = u32::from(!old) + 3 + 1400;
    let new = !((sum & 0xffff) as u16 + (sum >> 16) as u16);
    frame[36..38].copy_from_slice(&new.to_be_bytes());
    match parse(&frame, ChecksumPolicy::Verify).unwrap() {
        Inbound::IcmpError(quote) => assert_eq!(quote.kind, IcmpKind::PacketTooBig { mtu: 1400 }),
        Inbound::Tcp(tcp) => panic!("{tcp:?}"),
    }
}

#[test]
fn every_flipped_bit_under_a_checksum_is_noticed() {
    let frame = bytes(V4_DATA);
    for bit in 14 * 8..frame.len() * 8 {
        let mut damaged = frame.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(parse(&damaged, ChecksumPolicy::Verify).is_err(), "bit {bit}");
    }
    let mut damaged = frame;
    *damaged.last_mut().unwrap() ^= 1;
    assert_eq!(parse(&damaged, ChecksumPolicy::Verify), Err(ParseError::TcpChecksum));
    assert!(parse(&damaged, ChecksumPolicy::Trust).is_ok());
}

#[test]
fn link_padding_is_no_payload() {
    let mut frame = bytes(V4_SYN_ACK);
    frame.extend_from_slice(&[0xee; 20]);
    assert_eq!(tcp(&frame).segment.payload, b"");
}

#[test]
fn refusals_name_their_reason() {
    let frame = bytes(V4_DATA);
    let refused = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut frame = frame.clone();
        change(&mut frame);
        // The IPv4 header checksum is mended so that the reason under test is the only one.
        let header: Vec<u8> = frame[14..34].to_vec();
        let sum =
            fourwave_wire::Sum::new().add_bytes(&header[..10]).add_bytes(&header[12..]).finish();
        frame[24..26].copy_from_slice(&sum);
        parse(&frame, ChecksumPolicy::Trust).unwrap_err()
    };
    assert_eq!(refused(&|f| f[12] = 0x86), ParseError::NotIp);
    assert_eq!(refused(&|f| f[0] |= 1), ParseError::NotUnicast);
    assert_eq!(refused(&|f| f[6] |= 1), ParseError::NotUnicast);
    assert_eq!(refused(&|f| f[26..30].copy_from_slice(&[255; 4])), ParseError::NotUnicast);
    assert_eq!(refused(&|f| f[30..34].copy_from_slice(&[224, 0, 0, 1])), ParseError::NotUnicast);
    assert_eq!(refused(&|f| f[14] = 0x44), ParseError::BadIpHeader);
    assert_eq!(refused(&|f| f[14] = 0x65), ParseError::BadIpHeader);
    assert_eq!(refused(&|f| f[17] = 10), ParseError::BadIpHeader);
    assert_eq!(refused(&|f| f[20] |= 0x20), ParseError::Fragment);
    assert_eq!(refused(&|f| f[21] = 7), ParseError::Fragment);
    assert_eq!(refused(&|f| f[23] = 17), ParseError::NotTcp);
    // ICMPv6 inside IPv4 is nothing we know.
    assert_eq!(refused(&|f| f[23] = 58), ParseError::NotTcp);
    assert_eq!(refused(&|f| f[16] = 2), ParseError::Truncated);
    assert_eq!(refused(&|f| f[46] = 0x40), ParseError::TcpHeader);
    assert_eq!(refused(&|f| f[46] = 0xf0), ParseError::TcpHeader);
    assert_eq!(refused(&|f| f[57] = 1), ParseError::TcpOptions);
    let mut damaged = frame.clone();
    damaged[24] ^= 1;
    assert_eq!(parse(&damaged, ChecksumPolicy::Trust), Err(ParseError::IpChecksum));
    assert_eq!(parse(&[], ChecksumPolicy::Trust), Err(ParseError::Truncated));
}

#[test]
fn reasons_index_counters() {
    for (index, error) in ParseError::ALL.into_iter().enumerate() {
        assert_eq!(error as usize, index);
        assert_eq!(error.to_string(), error.reason());
    }
}

/// `V6_SYN` with `headers` between the IPv6 header and TCP; the first is of kind `first`.
fn with_extensions(first: u8, headers: &[u8]) -> Vec<u8> {
    let mut frame = bytes(V6_SYN);
    let len = 40 + headers.len() as u16;
    frame[18..20].copy_from_slice(&len.to_be_bytes());
    frame[20] = first;
    frame.splice(54..54, headers.iter().copied());
    frame
}

#[test]
fn ipv6_extension_headers_are_walked() {
    let pad = |next: u8| [next, 0, 1, 4, 0, 0, 0, 0];
    let chain = [pad(60), pad(43), [44, 0, 4, 0, 0, 0, 0, 0], [6, 0, 0, 0, 1, 2, 3, 4]].concat();
    let frame = with_extensions(0, &chain);
    assert_eq!(tcp(&frame).segment.options.mss, Some(1440));
    assert!(peek_tuple(&frame).is_some());

    let refused = |first, headers: &[u8]| {
        parse(&with_extensions(first, headers), ChecksumPolicy::Verify).unwrap_err()
    };
    assert_eq!(refused(44, &[6, 0, 0, 1, 0, 0, 0, 9]), ParseError::Fragment);
    assert_eq!(refused(44, &[6, 0, 0, 8, 0, 0, 0, 9]), ParseError::Fragment);
    // Segments left: the packet is not for us in the end.
    assert_eq!(refused(43, &[6, 0, 0, 1, 0, 0, 0, 0]), ParseError::BadIpHeader);
    // Longer than the packet.
    assert_eq!(refused(60, &[6, 200, 1, 4, 0, 0, 0, 0]), ParseError::Truncated);
    // A chain without end.
    assert_eq!(refused(60, &pad(60).repeat(9)), ParseError::BadIpHeader);
    // No next header.
    assert_eq!(refused(60, &pad(59)), ParseError::NotTcp);
}

#[test]
fn a_mapped_address_in_ipv6_is_refused() {
    let mut frame = bytes(V6_SYN);
    frame[22..38].copy_from_slice(&Addr::from_v4([10, 0, 0, 1]).0);
    assert_eq!(parse(&frame, ChecksumPolicy::Trust), Err(ParseError::NotUnicast));
    assert_eq!(peek_tuple(&frame), None);
}

#[test]
fn payload_room() {
    assert_eq!(max_payload(1500, true, 0), 1460);
    assert_eq!(max_payload(1500, false, 12), 1428);
    assert_eq!(max_payload(50, false, 12), 0);
}

#[test]
fn a_frame_that_does_not_fit_is_refused_whole() {
    let frame = bytes(V4_DATA);
    let head = head_of(&tcp(&frame));
    let mut out = vec![0; 73];
    assert_eq!(build(&mut out, &head, 8, |_| panic!("no room to fill")), Err(TooSmall));
    assert!(out.iter().all(|byte| *byte == 0));
    let mut out = vec![0; 70_000];
    assert_eq!(build(&mut out, &head, 65_535 - 20 - 32 + 1, |_| ()), Err(TooSmall));
    assert_eq!(build(&mut out, &head, 65_535 - 20 - 32, |_| ()), Ok(65_535 + 14));
}

/// The head that sends what was received, as its sender did.
fn head_of(frame: &TcpFrame<'_>) -> FrameHead {
    FrameHead {
        link: frame.link,
        tuple: frame.tuple.flipped(),
        tos: frame.tos,
        ttl: frame.ttl,
        ip_id: 0,
        seq: frame.segment.seq,
        ack: frame.segment.ack,
        flags: frame.segment.flags,
        window: frame.segment.window,
        urgent: frame.segment.urgent,
        options: frame.segment.options,
    }
}

fn tuples() -> impl Strategy<Value = FourTuple> {
    let v4 = (1u8..=126, any::<[u8; 3]>()).prop_map(|(a, [b, c, d])| Addr::from_v4([a, b, c, d]));
    let v6 = any::<[u8; 15]>().prop_map(|tail| {
        let mut addr = [0x20; 16];
        addr[1..].copy_from_slice(&tail);
        Addr(addr)
    });
    let pair =
        prop_oneof![(v4.clone(), v4).prop_map(|pair| pair), (v6.clone(), v6).prop_map(|pair| pair)];
    (pair, any::<u16>(), any::<u16>()).prop_map(|((local, remote), a, b)| FourTuple {
        local: Endpoint { addr: local, port: a },
        remote: Endpoint { addr: remote, port: b },
    })
}

fn links() -> impl Strategy<Value = Link> {
    let protocol = prop_oneof![Just(0x8100u16), Just(0x88a8)];
    let tag = (protocol, any::<u16>()).prop_map(|(protocol, control)| Tag { protocol, control });
    (any::<[u8; 6]>(), any::<[u8; 6]>(), prop::collection::vec(tag, 0..=2)).prop_map(
        |(mut dst, mut src, tags)| {
            dst[0] &= 0xfe;
            src[0] &= 0xfe;
            let mut link = Link::new(Mac(dst), Mac(src));
            link.vlan_count = tags.len() as u8;
            link.vlan[..tags.len()].copy_from_slice(&tags);
            link
        },
    )
}

fn options() -> impl Strategy<Value = Options> {
    let times = option::of((any::<u32>(), any::<u32>()));
    let syn = (option::of(any::<u16>()), option::of(0u8..=14), any::<bool>());
    let sack = prop::collection::vec((any::<u32>(), any::<u32>()), 0..=3);
    prop_oneof![
        (syn, times.clone()).prop_map(|((mss, window_scale, sack_permitted), times)| Options {
            mss,
            window_scale,
            sack_permitted,
            timestamps: times.map(|(value, echo)| Timestamps { value, echo }),
            ..Options::default()
        }),
        (sack, times).prop_map(|(blocks, times)| {
            let timestamps = times.map(|(value, echo)| Timestamps { value, echo });
            let mut options = Options { timestamps, ..Options::default() };
            for (left, right) in blocks {
                options.sack.push(SackBlock { left, right });
            }
            options
        })
    ]
}

fn heads() -> impl Strategy<Value = FrameHead> {
    let ip = (any::<u8>(), any::<u8>(), any::<u16>());
    let tcp = (any::<u32>(), any::<u32>(), any::<u8>(), any::<u16>(), any::<u16>());
    (links(), tuples(), ip, tcp, options()).prop_map(
        |(link, tuple, (tos, ttl, ip_id), (seq, ack, flags, window, urgent), options)| FrameHead {
            link,
            tuple,
            tos,
            ttl,
            ip_id,
            seq,
            ack,
            flags: Flags(flags),
            window,
            urgent,
            options,
        },
    )
}

proptest! {
    #[test]
    fn what_is_built_parses_back(head in heads(),
                                 payload in prop::collection::vec(any::<u8>(), 0..1600)) {
        let mut out = [0xaa; 2048];
        let len = build(&mut out, &head, payload.len(), |room| room.copy_from_slice(&payload)).unwrap();
        let parsed = tcp(&out[..len]);
        prop_assert_eq!(parsed.segment.payload, &payload[..]);
        prop_assert_eq!(FrameHead { ip_id: head.ip_id, ..head_of(&parsed) }, head);
        prop_assert_eq!(peek_tuple(&out[..len]), Some(head.tuple.flipped()));
        for cut in 0..len.min(120) {
            prop_assert!(parse(&out[..cut], ChecksumPolicy::Trust).is_err());
        }
    }

    #[test]
    fn arbitrary_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(&bytes, ChecksumPolicy::Trust);
        let _ = peek_tuple(&bytes);
    }

    /// Random bytes hardly get past the first check: damaged real frames get deep.
    #[test]
    fn damaged_frames_do_not_panic(which in 0usize..5, cut in 0usize..140,
                                   damage in prop::collection::vec((0usize..140, any::<u8>()), 0..6)) {
        let hex = [V4_SYN_ACK, V4_DATA, V6_SYN, V4_HOST_UNREACHABLE, V6_NO_ROUTE][which];
        let mut frame = bytes(hex);
        for (at, value) in damage {
            if let Some(byte) = frame.get_mut(at) {
                *byte = value;
            }
        }
        frame.truncate(cut.max(14));
        if parse(&frame, ChecksumPolicy::Trust).is_ok() {
            prop_assert!(peek_tuple(&frame).is_some());
        }
    }
}
