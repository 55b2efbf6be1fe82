//! One frame of each kind, with the verdict that it has to get when [`super::keys`] are served.

use fourwave_ebpf_common::Verdict;

use super::frames::{
    ACK, Extension, ICMP, ICMPV6, Ipv4, Ipv6, PEER4, PEER6, RST, SYN, TCP, UDP, ethernet, flagged,
    icmp_error, sent4, sent6, tcp,
};
use super::{ANY4_PORT, ANY6_PORT, PORT};

/// A frame, what it is, and what has to become of it.
#[derive(Clone, Debug)]
pub struct Sample {
    pub name: &'static str,
    pub frame: Vec<u8>,
    pub verdict: Verdict,
}

fn sample(name: &'static str, verdict: Verdict, frame: Vec<u8>) -> Sample {
    Sample { name, frame, verdict }
}

/// All samples.
pub fn samples() -> Vec<Sample> {
    let mut all = Vec::new();
    all.extend(other_protocols());
    all.extend(vlan());
    all.extend(ipv4());
    all.extend(ipv6());
    all.extend(syns());
    all.extend(icmp());
    all.extend(icmpv6());
    all
}

fn to(port: u16) -> Vec<u8> {
    tcp(40_000, port)
}

fn other_protocols() -> Vec<Sample> {
    vec![
        sample("ARP", Verdict::PassOther, ethernet(&[], 0x0806, &[0; 28])),
        sample("802.3 length", Verdict::PassOther, ethernet(&[], 60, &[0; 60])),
        sample("UDP", Verdict::PassOther, Ipv4::new(UDP, to(PORT)).frame()),
        sample("UDP over IPv6", Verdict::PassOther, Ipv6::new(UDP, to(PORT)).frame()),
        sample("ESP over IPv6", Verdict::PassOther, Ipv6::new(50, to(PORT)).frame()),
        sample("no next header", Verdict::PassOther, Ipv6::new(59, Vec::new()).frame()),
        sample(
            "IPv4 behind IPv6's ethertype",
            Verdict::PassMalformed,
            ethernet(&[], 0x86dd, &Ipv4::new(TCP, to(PORT)).packet()),
        ),
        sample(
            "IPv6 behind IPv4's ethertype",
            Verdict::PassMalformed,
            ethernet(&[], 0x0800, &Ipv6::new(TCP, to(PORT)).packet()),
        ),
    ]
}

fn vlan() -> Vec<Sample> {
    let v4 = Ipv4::new(TCP, to(PORT)).packet();
    let v6 = Ipv6::new(TCP, to(PORT)).packet();
    let q = (0x8100, 7);
    let ad = (0x88a8, 0x6fff);
    vec![
        sample("one tag", Verdict::SteerTcp, ethernet(&[q], 0x0800, &v4)),
        sample("one tag, IPv6", Verdict::SteerTcp, ethernet(&[q], 0x86dd, &v6)),
        sample("two tags", Verdict::SteerTcp, ethernet(&[ad, q], 0x0800, &v4)),
        sample("two tags, IPv6", Verdict::SteerTcp, ethernet(&[ad, q], 0x86dd, &v6)),
        sample("two 802.1Q tags", Verdict::SteerTcp, ethernet(&[q, q], 0x0800, &v4)),
        sample("three tags", Verdict::PassOther, ethernet(&[ad, q, q], 0x0800, &v4)),
    ]
}

fn ipv4() -> Vec<Sample> {
    let served = Ipv4::new(TCP, to(PORT));
    let bad_length = {
        let mut frame = served.frame();
        frame[14] = 0x44;
        frame
    };
    vec![
        sample("served", Verdict::SteerTcp, served.frame()),
        sample(
            "served port elsewhere",
            Verdict::PassPort,
            Ipv4 { destination: PEER4, ..served.clone() }.frame(),
        ),
        sample(
            "any address",
            Verdict::SteerTcp,
            Ipv4 { destination: PEER4, ..Ipv4::new(TCP, to(ANY4_PORT)) }.frame(),
        ),
        sample(
            "any address of the other family",
            Verdict::PassPort,
            Ipv4::new(TCP, to(ANY6_PORT)).frame(),
        ),
        sample("other port", Verdict::PassPort, Ipv4::new(TCP, to(22)).frame()),
        sample(
            "from the served port",
            Verdict::PassPort,
            Ipv4::new(TCP, tcp(PORT, 40_000)).frame(),
        ),
        sample(
            "options",
            Verdict::SteerTcp,
            Ipv4 { options: vec![7; 24], ..served.clone() }.frame(),
        ),
        sample(
            "longest options",
            Verdict::SteerTcp,
            Ipv4 { options: vec![1; 40], ..served.clone() }.frame(),
        ),
        sample("header length below 5", Verdict::PassMalformed, bad_length),
        sample(
            "first fragment, served",
            Verdict::DropFragment,
            Ipv4 { fragment: 0x2000, ..served.clone() }.frame(),
        ),
        sample(
            "first fragment, other port",
            Verdict::PassFragment,
            Ipv4 { fragment: 0x2000, ..Ipv4::new(TCP, to(22)) }.frame(),
        ),
        sample(
            "middle fragment",
            Verdict::PassFragment,
            Ipv4 { fragment: 0x2004, ..served.clone() }.frame(),
        ),
        sample(
            "last fragment",
            Verdict::PassFragment,
            Ipv4 { fragment: 0x0001, ..served.clone() }.frame(),
        ),
        sample(
            "first fragment of UDP",
            Verdict::PassFragment,
            Ipv4 { fragment: 0x2000, ..Ipv4::new(UDP, to(PORT)) }.frame(),
        ),
        sample("reserved flag", Verdict::SteerTcp, Ipv4 { fragment: 0x8000, ..served }.frame()),
        sample("no room for ports", Verdict::PassMalformed, Ipv4::new(TCP, vec![0; 3]).frame()),
    ]
}

fn ipv6() -> Vec<Sample> {
    use Extension::{Authentication, Destination, Fragment, HopByHop, Routing};
    let served = || Ipv6::new(TCP, to(PORT));
    let atomic = Fragment { offset: 0, more: false };
    let first = Fragment { offset: 0, more: true };
    let short = Destination { words: 0 };
    let mapped = {
        let mut address = [0; 16];
        address[10..12].fill(0xff);
        address[12..].copy_from_slice(&super::HOST4);
        address
    };
    vec![
        sample("IPv6 served", Verdict::SteerTcp, served().frame()),
        sample(
            "IPv6 served port elsewhere",
            Verdict::PassPort,
            Ipv6 { destination: PEER6, ..served() }.frame(),
        ),
        sample(
            "IPv6 any address",
            Verdict::SteerTcp,
            Ipv6 { destination: PEER6, ..Ipv6::new(TCP, to(ANY6_PORT)) }.frame(),
        ),
        sample(
            "IPv6 any address of the other family",
            Verdict::PassPort,
            Ipv6::new(TCP, to(ANY4_PORT)).frame(),
        ),
        sample(
            "IPv6 to a v4-mapped address",
            Verdict::PassMalformed,
            Ipv6 { destination: mapped, ..served() }.frame(),
        ),
        sample(
            "each extension header",
            Verdict::SteerTcp,
            served()
                .with(&[
                    HopByHop { words: 0 },
                    Destination { words: 1 },
                    Routing { words: 2, segments_left: 0 },
                    atomic,
                    Authentication { words: 4 },
                    Destination { words: 31 },
                ])
                .frame(),
        ),
        sample("eight headers", Verdict::SteerTcp, served().with(&[short; 8]).frame()),
        sample("nine headers", Verdict::DropHeaderChain, served().with(&[short; 9]).frame()),
        sample("atomic fragment", Verdict::SteerTcp, served().with(&[atomic]).frame()),
        sample(
            "IPv6 first fragment, served",
            Verdict::DropFragment,
            served().with(&[first]).frame(),
        ),
        sample(
            "IPv6 first fragment behind options",
            Verdict::DropFragment,
            served().with(&[short, first, short]).frame(),
        ),
        sample(
            "IPv6 first fragment, other port",
            Verdict::PassFragment,
            Ipv6::new(TCP, to(22)).with(&[first]).frame(),
        ),
        sample(
            "IPv6 first fragment of UDP",
            Verdict::PassFragment,
            Ipv6::new(UDP, to(PORT)).with(&[first]).frame(),
        ),
        sample(
            "IPv6 later fragment",
            Verdict::PassFragment,
            served().with(&[Fragment { offset: 1, more: true }]).frame(),
        ),
        sample(
            "IPv6 last fragment far in",
            Verdict::PassFragment,
            served().with(&[Fragment { offset: 0x1000, more: false }]).frame(),
        ),
        sample(
            "further hops to go",
            Verdict::PassInTransit,
            served().with(&[Routing { words: 2, segments_left: 1 }]).frame(),
        ),
        sample(
            "extension header past the end",
            Verdict::PassMalformed,
            served().with(&[Destination { words: 255 }]).frame()[..1000].to_vec(),
        ),
    ]
}

fn syns() -> Vec<Sample> {
    let to = |port, flags| flagged(40_000, port, flags);
    let syn = || Ipv4::new(TCP, to(PORT, SYN));
    let syn6 = || Ipv6::new(TCP, to(PORT, SYN));
    let behind = [Extension::Destination { words: 3 }];
    // With ECN offered, and data that a cookie may stand for.
    let ecn = to(ANY4_PORT, SYN | 0xc0);
    vec![
        sample("SYN", Verdict::SteerSyn, syn().frame()),
        sample("SYN, ECN offered, any address", Verdict::SteerSyn, Ipv4::new(TCP, ecn).frame()),
        sample("SYN behind options", Verdict::SteerSyn, {
            Ipv4 { options: vec![1; 12], ..syn() }.frame()
        }),
        sample("SYN and FIN", Verdict::SteerSyn, Ipv4::new(TCP, to(PORT, SYN | 1)).frame()),
        sample("SYN-ACK", Verdict::SteerTcp, Ipv4::new(TCP, to(PORT, SYN | ACK)).frame()),
        sample("SYN and RST", Verdict::SteerTcp, Ipv4::new(TCP, to(PORT, SYN | RST)).frame()),
        sample("SYN, other port", Verdict::PassPort, Ipv4::new(TCP, to(22, SYN)).frame()),
        sample("SYN, first fragment", Verdict::DropFragment, {
            Ipv4 { fragment: 0x2000, ..syn() }.frame()
        }),
        sample("SYN in a tag", Verdict::SteerSyn, {
            ethernet(&[(0x8100, 7)], 0x0800, &syn().packet())
        }),
        sample("IPv6 SYN", Verdict::SteerSyn, syn6().frame()),
        sample("IPv6 SYN behind options", Verdict::SteerSyn, syn6().with(&behind).frame()),
    ]
}

fn icmp() -> Vec<Sample> {
    let error = |kind, quoted: &Ipv4| Ipv4::new(ICMP, icmp_error(kind, &quoted.packet())).frame();
    let other = Ipv4 { payload: tcp(22, 40_000), ..sent4() };
    vec![
        sample("echo request", Verdict::PassOther, error(8, &sent4())),
        sample("redirect", Verdict::PassOther, error(5, &sent4())),
        sample("source quench", Verdict::PassOther, error(4, &sent4())),
        sample("unreachable", Verdict::SteerIcmp, error(3, &sent4())),
        sample("time exceeded", Verdict::SteerIcmp, error(11, &sent4())),
        sample("parameter problem", Verdict::SteerIcmp, error(12, &sent4())),
        sample(
            "unreachable, quoted with options",
            Verdict::SteerIcmp,
            error(3, &Ipv4 { options: vec![1; 8], ..sent4() }),
        ),
        sample(
            "unreachable, eight bytes quoted",
            Verdict::SteerIcmp,
            error(3, &Ipv4 { payload: tcp(PORT, 40_000)[..8].to_vec(), ..sent4() }),
        ),
        sample("unreachable, other port", Verdict::PassPort, error(3, &other)),
        sample(
            "unreachable, our port at the other end",
            Verdict::PassPort,
            error(3, &Ipv4 { payload: tcp(40_000, PORT), ..sent4() }),
        ),
        sample(
            "unreachable, UDP",
            Verdict::PassOther,
            error(3, &Ipv4 { protocol: UDP, ..sent4() }),
        ),
        sample(
            "unreachable, later fragment",
            Verdict::PassOther,
            error(3, &Ipv4 { fragment: 0x2001, ..sent4() }),
        ),
        sample(
            "unreachable, no IPv4 quoted",
            Verdict::PassMalformed,
            Ipv4::new(ICMP, icmp_error(3, &sent6().packet())).frame(),
        ),
        sample(
            "unreachable, fragmented itself",
            Verdict::PassFragment,
            Ipv4 { fragment: 0x2000, ..Ipv4::new(ICMP, icmp_error(3, &sent4().packet())) }.frame(),
        ),
    ]
}

fn icmpv6() -> Vec<Sample> {
    let error = |kind, quoted: &Ipv6| Ipv6::new(ICMPV6, icmp_error(kind, &quoted.packet()));
    let other = Ipv6 { payload: tcp(22, 40_000), ..sent6() };
    let mapped = Ipv6 {
        source: {
            let mut address = [0; 16];
            address[10..12].fill(0xff);
            address[12..].copy_from_slice(&super::HOST4);
            address
        },
        ..sent6()
    };
    let behind = [Extension::Destination { words: 0 }];
    vec![
        sample("neighbour solicitation", Verdict::PassOther, error(135, &sent6()).frame()),
        sample("IPv6 echo request", Verdict::PassOther, error(128, &sent6()).frame()),
        sample("IPv6 unreachable", Verdict::SteerIcmp, error(1, &sent6()).frame()),
        sample("packet too big", Verdict::SteerIcmp, error(2, &sent6()).frame()),
        sample("IPv6 time exceeded", Verdict::SteerIcmp, error(3, &sent6()).frame()),
        sample("IPv6 parameter problem", Verdict::SteerIcmp, error(4, &sent6()).frame()),
        sample(
            "packet too big behind an extension header",
            Verdict::SteerIcmp,
            error(2, &sent6()).with(&behind).frame(),
        ),
        sample("packet too big, other port", Verdict::PassPort, error(2, &other).frame()),
        sample("packet too big, v4-mapped", Verdict::PassMalformed, error(2, &mapped).frame()),
        sample(
            "packet too big, extension header quoted",
            Verdict::PassOther,
            error(2, &sent6().with(&behind)).frame(),
        ),
        sample(
            "packet too big, no IPv6 quoted",
            Verdict::PassMalformed,
            Ipv6::new(ICMPV6, icmp_error(2, &sent4().packet())).frame(),
        ),
    ]
}
