//! Random frames: `classify` and the reference agree, and neither panics.

mod support;

use fourwave_ebpf_common::{Config, classify};
use proptest::prelude::*;
use support::Served;
use support::frames::{Extension, Ipv4, Ipv6, ethernet, flagged, icmp_error};
use support::reference::expected;
use support::samples::samples;
use support::{ANY4_PORT, ANY6_PORT, HOST4, HOST6, PORT};

fn port() -> impl Strategy<Value = u16> {
    prop_oneof![Just(PORT), Just(ANY4_PORT), Just(ANY6_PORT), any::<u16>()]
}

fn protocol() -> impl Strategy<Value = u8> {
    prop_oneof![4 => Just(6), 2 => Just(1), 2 => Just(58), 1 => any::<u8>()]
}

fn fragment() -> impl Strategy<Value = u16> {
    prop_oneof![4 => Just(0x4000), 1 => Just(0x2000), 1 => any::<u16>()]
}

fn address4() -> impl Strategy<Value = [u8; 4]> {
    prop_oneof![Just(HOST4), any::<[u8; 4]>()]
}

fn address6() -> impl Strategy<Value = [u8; 16]> {
    let mapped = address4().prop_map(|address| {
        let mut mapped = [0; 16];
        mapped[10..12].fill(0xff);
        mapped[12..].copy_from_slice(&address);
        mapped
    });
    prop_oneof![4 => Just(HOST6), 4 => any::<[u8; 16]>(), 1 => mapped]
}

fn transport() -> impl Strategy<Value = Vec<u8>> {
    (port(), port(), any::<u8>(), 0usize..24).prop_map(|(source, destination, flags, length)| {
        let mut segment = flagged(source, destination, flags);
        segment.truncate(length);
        segment
    })
}

fn ipv4(payload: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Ipv4> {
    let options = prop::collection::vec(any::<u8>(), 0..=40);
    (address4(), address4(), options, fragment(), protocol(), payload).prop_map(
        |(source, destination, options, fragment, protocol, payload)| Ipv4 {
            source,
            destination,
            options,
            fragment,
            protocol,
            payload,
        },
    )
}

fn extension() -> impl Strategy<Value = Extension> {
    let words = || prop_oneof![4 => 0u8..4, 1 => any::<u8>()];
    prop_oneof![
        words().prop_map(|words| Extension::HopByHop { words }),
        words().prop_map(|words| Extension::Destination { words }),
        (words(), prop_oneof![4 => Just(0), 1 => any::<u8>()])
            .prop_map(|(words, segments_left)| Extension::Routing { words, segments_left }),
        (prop_oneof![4 => Just(0), 1 => 0u16..0x2000], any::<bool>())
            .prop_map(|(offset, more)| Extension::Fragment { offset, more }),
        words().prop_map(|words| Extension::Authentication { words }),
    ]
}

fn ipv6(payload: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Ipv6> {
    let extensions = prop::collection::vec(extension(), 0..11);
    (address6(), address6(), extensions, protocol(), payload).prop_map(
        |(source, destination, extensions, protocol, payload)| Ipv6 {
            source,
            destination,
            extensions,
            protocol,
            payload,
        },
    )
}

fn payload() -> impl Strategy<Value = Vec<u8>> {
    let kind = || prop_oneof![0u8..16, any::<u8>()];
    prop_oneof![
        2 => transport(),
        1 => (kind(), ipv4(transport()))
            .prop_map(|(kind, quoted)| icmp_error(kind, &quoted.packet())),
        1 => (kind(), ipv6(transport()))
            .prop_map(|(kind, quoted)| icmp_error(kind, &quoted.packet())),
    ]
}

fn tags() -> impl Strategy<Value = Vec<(u16, u16)>> {
    let ethertype = prop_oneof![Just(0x8100u16), Just(0x88a8), Just(0x9100)];
    prop::collection::vec((ethertype, any::<u16>()), 0..4)
}

fn frame() -> impl Strategy<Value = Vec<u8>> {
    let packet = prop_oneof![
        ipv4(payload()).prop_map(|ip| (0x0800, ip.packet())),
        ipv6(payload()).prop_map(|ip| (0x86dd, ip.packet())),
    ];
    (tags(), packet).prop_map(|(tags, (ethertype, packet))| ethernet(&tags, ethertype, &packet))
}

/// A frame with a few bytes changed and its end cut off.
fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let whole =
        prop_oneof![frame(), prop::sample::select(samples()).prop_map(|sample| sample.frame)];
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    (whole, changes, prop::option::of(any::<prop::sample::Index>())).prop_map(
        |(mut frame, changes, end)| {
            for (at, value) in changes {
                let at = at.index(frame.len());
                frame[at] = value;
            }
            if let Some(end) = end {
                frame.truncate(end.index(frame.len()));
            }
            frame
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn frames_of_parts_are_classified_as_the_reference_says(frame in frame()) {
        let found = classify(&frame[..], &Served::new(), Config::default());
        prop_assert_eq!(found, expected(&frame));
    }

    #[test]
    fn damaged_frames_are_classified_as_the_reference_says(frame in damaged()) {
        let found = classify(&frame[..], &Served::new(), Config::default());
        prop_assert_eq!(found, expected(&frame));
    }

    #[test]
    fn any_bytes_are_classified_as_the_reference_says(
        frame in prop::collection::vec(any::<u8>(), 0..200)
    ) {
        let found = classify(&frame[..], &Served::new(), Config::default());
        prop_assert_eq!(found, expected(&frame));
    }
}
