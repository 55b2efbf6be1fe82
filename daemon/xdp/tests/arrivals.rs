//! On which queue of an interface frames arrive. A TAP device is the NIC: whoever writes a frame
//! chooses the queue, as RSS would.

mod support;

#[path = "../../../ebpf/common/tests/support/mod.rs"]
mod kinds;

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::time::Duration;

use fourwave_xdp::{Arrivals, Enough};
use kinds::frames::{Ipv4, Ipv6, TCP, UDP, ethernet, tcp};
use support::{Lab, NEAR, Veth};

const QUEUES: u32 = 4;

/// Longer than any frame takes; a test that passes does not wait for it.
const PATIENCE: Duration = Duration::from_secs(20);

/// The source port of a segment is where it is told apart; both headers end there.
fn port_of(frame: &[u8]) -> u16 {
    let at = if frame[12..14] == [8, 0] { 34 } else { 54 };
    u16::from_be_bytes([frame[at], frame[at + 1]])
}

fn segment(port: u16) -> Vec<u8> {
    match port % 2 {
        0 => Ipv4::new(TCP, tcp(port, 80)).frame(),
        _ => Ipv6::new(TCP, tcp(port, 80)).frame(),
    }
}

/// The queues of a new TAP device `name` in this thread's namespace.
fn tap(name: &str) -> Vec<File> {
    let mut request = libc::ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        ifr_ifru: libc::__c_anonymous_ifr_ifru {
            ifru_flags: (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_MULTI_QUEUE) as libc::c_short,
        },
    };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    let queue = |_| {
        let file = OpenOptions::new().read(true).write(true).open("/dev/net/tun");
        let file = file.expect("the kernel has TUN devices");
        // SAFETY: TUNSETIFF reads and writes one `ifreq`, which lives across the call and whose
        // name ends in a 0.
        let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
        assert_eq!(result, 0, "{}", io::Error::last_os_error());
        file
    };
    (0..QUEUES).map(queue).collect()
}

#[test]
fn segments_are_told_with_their_queue_and_nothing_else_is() {
    let Some(lab) = Lab::new(Veth::default()) else { return };
    let mut nic = tap("fwx-tap");
    lab.ip_near(&["link", "set", "dev", "fwx-tap", "addrgenmode", "none", "arp", "off", "up"]);
    // The last queue is nobody's.
    let mut arrivals = Arrivals::watch("fwx-tap", &[0, 1, 2]).expect("root may watch");
    let mut fragment = Ipv4::new(TCP, tcp(9, 80));
    fragment.fragment = 0x2000;
    let others = [
        Ipv4::new(UDP, tcp(9, 80)).frame(),
        Ipv6::new(UDP, tcp(9, 80)).frame(),
        fragment.frame(),
        ethernet(&[], 0x0806, &[0; 46]),
    ];
    let ports = 1000..1100;
    for port in ports.clone() {
        for frame in others.iter().chain([&segment(port)]) {
            let queue = &mut nic[usize::from(port) % QUEUES as usize];
            queue.write_all(frame).expect("the device is up");
        }
    }
    let expected: BTreeSet<u16> =
        ports.filter(|port| u32::from(*port) % QUEUES != QUEUES - 1).collect();
    let mut seen = BTreeSet::new();
    let mut check = |queue: u32, frame: &[u8]| {
        let port = port_of(frame);
        assert_eq!(frame, segment(port), "a segment, and all of it");
        assert_eq!(queue, u32::from(port) % QUEUES);
        assert!(seen.insert(port), "once each");
        if seen.len() == expected.len() { Enough::Yes } else { Enough::No }
    };
    arrivals.each(PATIENCE, &mut check).expect("the interface stays up");
    assert_eq!(seen, expected);
    let nothing = |_: u32, frame: &[u8]| panic!("{frame:x?}");
    arrivals.each(Duration::from_millis(10), nothing).expect("the interface stays up");
}

#[test]
fn who_may_not_watch_is_told() {
    let Some(_lab) = Lab::new(Veth::default()) else { return };
    let error = Arrivals::watch("no-such-if0", &[0]).expect_err("there is none");
    assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
    support::without_capabilities(|| {
        let error = Arrivals::watch(NEAR, &[0]).expect_err("no privilege");
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    });
}
