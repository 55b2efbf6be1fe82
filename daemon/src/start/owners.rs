//! How flows are dealt out to workers: as the NIC deals them out to its queues, if that is known.
//!
//! What a driver says of its NIC is tried on traffic before it is followed: for a moment at start
//! the kernel's own frames are looked at, ssh's perhaps, and the queue where each arrived is compared
//! with the one that key and table give. Where they differ a keyed hash is taken, which is right
//! whatever the NIC does. On an idle machine nothing comes that could be compared; then the driver
//! is believed, and workers go on watching.

use fourwave_stack::{Owners, Rss, rss_self_test};
use fourwave_wire::{FourTuple, peek_tuple};
use fourwave_xdp::{Arrivals, Enough};
use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// How long to look at frames, if few come.
const WATCH: Duration = Duration::from_millis(250);

/// Flows that are enough to judge by.
const ENOUGH: usize = 64;

/// Asks the interface's driver. `queues` names the queue of each worker.
pub(super) fn owners(interface: &str, queues: &[u32]) -> Owners {
    if queues.len() < 2 {
        return Owners::Hash;
    }
    let told = fourwave_xdp::rss(interface).unwrap_or_else(|error| {
        tracing::warn!(interface, %error, "cannot ask how frames are dealt out to queues");
        None
    });
    let Some(rss) = told.and_then(|told| follow(&told, queues)) else {
        tracing::info!(
            interface,
            "the interface's RSS is not known: flows belong to workers by a keyed hash, and \
             frames that arrive elsewhere are handed over"
        );
        return Owners::Hash;
    };
    let seen = look(interface, queues, &rss, WATCH);
    decide(interface, rss, seen)
}

/// `None` when frames go to a queue that no worker has, or the hash is one that we do not know.
fn follow(told: &fourwave_xdp::Rss, queues: &[u32]) -> Option<Rss> {
    // Fewer than 64 workers.
    let worker = |queue: &u32| Some(queues.iter().position(|own| own == queue)? as u32);
    let workers: Option<Box<[u32]>> = told.table.iter().map(worker).collect();
    Rss::new(&told.key, workers?)
}

/// Flows by whether their frames arrived where they should.
#[derive(Debug, Default)]
struct Seen(HashMap<FourTuple, bool>);

impl Seen {
    /// One frame, which arrived on the queue of `worker`.
    fn add(&mut self, rss: &Rss, worker: Option<u32>, frame: &[u8]) -> Enough {
        // A flow that was somewhere else once stays so: the kernel may steer it (`ethtool -N`).
        if let Some(tuple) = peek_tuple(frame) {
            *self.0.entry(tuple).or_insert(true) &= worker == Some(rss.worker(&tuple));
        }
        if self.0.len() < ENOUGH { Enough::No } else { Enough::Yes }
    }

    fn flows(&self) -> usize {
        self.0.len()
    }

    fn elsewhere(&self) -> usize {
        self.0.values().filter(|as_told| !**as_told).count()
    }
}

/// Looks at what comes.
fn look(interface: &str, queues: &[u32], rss: &Rss, patience: Duration) -> io::Result<Seen> {
    let mut seen = Seen::default();
    let worker = |queue| queues.iter().position(|own| *own == queue).map(|at| at as u32);
    let mut arrivals = Arrivals::watch(interface, queues)?;
    arrivals.each(patience, |queue, frame| seen.add(rss, worker(queue), frame))?;
    Ok(seen)
}

/// What is told holds if it computes and nearly all flows obey it. A few may be steered one by one
/// (`ethtool -N`, aRFS), and one by itself says little.
fn decide(interface: &str, rss: Rss, seen: io::Result<Seen>) -> Owners {
    if !rss_self_test() {
        tracing::error!("hashes do not come out as published: flows belong to a keyed hash");
        return Owners::Hash;
    }
    let seen = seen.unwrap_or_else(|error| {
        tracing::warn!(interface, %error, "cannot see where frames arrive");
        Seen::default()
    });
    let (flows, elsewhere) = (seen.flows(), seen.elsewhere());
    if elsewhere > 1 && elsewhere * 4 > flows {
        tracing::warn!(
            interface,
            flows,
            elsewhere,
            "frames arrive on other queues than the interface's RSS key and table say: flows \
             belong to workers by a keyed hash, and frames that arrive elsewhere are handed over"
        );
        return Owners::Hash;
    }
    let tried = if flows == 0 { "not yet tried: nothing came" } else { "tried on flows that came" };
    tracing::info!(
        interface,
        flows,
        elsewhere,
        tried,
        "flows belong to workers as the interface's RSS deals them"
    );
    Owners::Rss(Arc::new(rss))
}

#[cfg(test)]
mod tests {
    use super::*;
    use fourwave_wire::{Endpoint, Flags, FrameHead, build};
    use rustix::thread::UnshareFlags;
    use std::fs::File;
    use std::io::Write;
    use std::os::fd::AsRawFd;
    use std::process::Command;
    use std::sync::atomic::AtomicBool;
    use std::sync::atomic::Ordering::Relaxed;
    use std::thread;

    fn told(table: &[u32]) -> fourwave_xdp::Rss {
        fourwave_xdp::Rss { key: (1..=40).collect(), table: table.to_vec() }
    }

    fn end(text: &str, port: u16) -> Endpoint {
        Endpoint { port, ..endpoint(text) }
    }

    fn endpoint(text: &str) -> Endpoint {
        text.parse::<std::net::SocketAddr>().unwrap().into()
    }

    fn flow(port: u16) -> FourTuple {
        FourTuple { local: end("10.0.0.1:80", 80), remote: end("10.0.0.2:0", port) }
    }

    #[test]
    fn workers_are_those_of_the_queues() {
        let rss = follow(&told(&[4, 2, 2, 4]), &[2, 4]).unwrap();
        let same = follow(&told(&[1, 0, 0, 1]), &[0, 1]).unwrap();
        let owners: Vec<u32> = (1..200)
            .map(flow)
            .inspect(|tuple| assert_eq!(rss.worker(tuple), same.worker(tuple)))
            .map(|tuple| rss.worker(&tuple))
            .collect();
        assert!(owners.contains(&0) && owners.contains(&1));
    }

    #[test]
    fn a_table_with_a_queue_of_nobodys_is_not_followed() {
        assert!(follow(&told(&[0, 1, 2, 3]), &[0, 1, 2]).is_none());
        assert!(follow(&told(&[0, 1, 0]), &[0, 1]).is_none());
        assert!(matches!(owners("lo", &[0, 1]), Owners::Hash));
        assert!(matches!(owners("no-such-if0", &[0, 1]), Owners::Hash));
        assert!(matches!(owners("lo", &[0]), Owners::Hash));
    }

    /// A segment of a flow, which its peer sends.
    fn segment(flow: FourTuple) -> Vec<u8> {
        let tuple = FourTuple { local: flow.remote, remote: flow.local };
        let head = FrameHead { tuple, flags: Flags::ACK, ..FrameHead::default() };
        let mut room = vec![0; 128];
        let length = build(&mut room, &head, 0, |_| {}).unwrap();
        room.truncate(length);
        room
    }

    /// What a NIC with the key and table of `nic` shows to somebody who was told `told`.
    fn seen(nic: &Rss, told: &Rss, flows: u16) -> Seen {
        let mut seen = Seen::default();
        for port in 0..flows {
            let flow = flow(1000 + port);
            let enough = seen.add(told, Some(nic.worker(&flow)), &segment(flow));
            assert_eq!(enough == Enough::Yes, seen.flows() >= ENOUGH);
        }
        assert_eq!(seen.flows(), usize::from(flows));
        seen
    }

    fn decided(seen: io::Result<Seen>) -> bool {
        let rss = follow(&told(&[0, 1]), &[0, 1]).unwrap();
        matches!(decide("eth-test", rss, seen), Owners::Rss(_))
    }

    #[test]
    fn a_nic_that_does_as_told_is_followed() {
        let nic = follow(&told(&[0, 1]), &[0, 1]).unwrap();
        let as_told = seen(&nic, &nic, 40);
        assert_eq!(as_told.elsewhere(), 0);
        assert!(decided(Ok(as_told)));
    }

    #[test]
    fn a_nic_with_another_key_is_not_followed() {
        let nic = fourwave_xdp::Rss { key: (101..=140).collect(), table: vec![0, 1] };
        let nic = follow(&nic, &[0, 1]).unwrap();
        let told = follow(&told(&[0, 1]), &[0, 1]).unwrap();
        let other = seen(&nic, &told, 40);
        assert!((10..=30).contains(&other.elsewhere()), "{}", other.elsewhere());
        assert!(!decided(Ok(other)));
    }

    #[test]
    fn a_few_flows_that_are_steered_do_not_count_and_silence_says_nothing() {
        let nic = follow(&told(&[0, 1]), &[0, 1]).unwrap();
        let mut few = seen(&nic, &nic, 40);
        for port in 0..10 {
            few.0.insert(flow(5000 + port), false);
        }
        assert_eq!((few.elsewhere(), few.flows()), (10, 50));
        assert!(decided(Ok(few)));
        assert!(decided(Ok(Seen::default())));
        assert!(decided(Err(io::ErrorKind::PermissionDenied.into())));
    }

    #[test]
    fn a_frame_on_a_queue_of_nobodys_is_elsewhere() {
        let nic = follow(&told(&[0, 1]), &[0, 1]).unwrap();
        let mut one = seen(&nic, &nic, 1);
        assert_eq!(one.elsewhere(), 0);
        one.add(&nic, None, &segment(flow(1000)));
        assert_eq!((one.flows(), one.elsewhere()), (1, 1));
        assert!(decided(Ok(one)), "it may be steered by itself");
        let two = Seen([flow(1), flow(2)].map(|flow| (flow, false)).into());
        assert!(!decided(Ok(two)));
    }

    /// Whether a NIC that deals out by `nic` is followed by who was told `told`. It is a TAP device
    /// in a namespace of its own: who writes a frame chooses the queue that it arrives on.
    fn tried(nic: Rss, told: Rss) -> bool {
        let body = move || {
            // SAFETY: this thread alone leaves the namespace, and nothing relies on being there.
            unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }.unwrap();
            let mut queues = [tap(), tap()];
            let up = Command::new("ip").args(["link", "set", "dev", TAP, "up"]).status();
            assert!(up.unwrap().success());
            let done = AtomicBool::new(false);
            let seen = thread::scope(|scope| {
                scope.spawn(|| {
                    // Relaxed: nothing is published with it.
                    for port in (1000..1200).cycle().take_while(|_| !done.load(Relaxed)) {
                        let queue = &mut queues[nic.worker(&flow(port)) as usize];
                        queue.write_all(&segment(flow(port))).unwrap();
                    }
                });
                let seen = look(TAP, &[0, 1], &told, 100 * WATCH);
                done.store(true, Relaxed);
                seen
            });
            assert!(seen.as_ref().is_ok_and(|seen| seen.flows() == ENOUGH), "{seen:?}");
            matches!(decide(TAP, told, seen), Owners::Rss(_))
        };
        thread::spawn(body).join().unwrap()
    }

    const TAP: &str = "fw-rss0";

    /// One more queue of the device.
    fn tap() -> File {
        let mut request = libc::ifreq {
            ifr_name: [0; libc::IFNAMSIZ],
            ifr_ifru: libc::__c_anonymous_ifr_ifru {
                ifru_flags: (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_MULTI_QUEUE) as i16,
            },
        };
        for (to, from) in request.ifr_name.iter_mut().zip(TAP.bytes()) {
            *to = from.cast_signed();
        }
        let file = File::options().read(true).write(true).open("/dev/net/tun").unwrap();
        // SAFETY: TUNSETIFF reads and writes one `ifreq`, which lives across the call and whose
        // name ends in a 0.
        let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
        assert_eq!(result, 0, "{}", io::Error::last_os_error());
        file
    }

    #[test]
    fn what_arrives_decides() {
        if !rustix::process::geteuid().is_root() {
            assert!(std::env::var_os("CI").is_none(), "CI has to run this test as root");
            return;
        }
        let right = || follow(&told(&[0, 1]), &[0, 1]).unwrap();
        let wrong = fourwave_xdp::Rss { key: (101..=140).collect(), table: vec![0, 1] };
        assert!(tried(right(), right()));
        assert!(!tried(follow(&wrong, &[0, 1]).unwrap(), right()));
        // The key is right, and the table turned round.
        assert!(!tried(follow(&told(&[1, 0]), &[0, 1]).unwrap(), right()));
    }
}
