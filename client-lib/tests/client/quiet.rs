//! Accept, wait, read, write and close make no system call while the daemon is awake.
//!
//! Shown by the kernel: the serving thread runs in strict seccomp mode, where any system call
//! but `read`, `write` and `exit` kills it, so that its connections are waited for in vain. Not
//! even ending is allowed then; so it lives in a child process, which is this same program told
//! to run one test.

use crate::fake::Fake;
use fourwave::{Events, Interest, Poller, Trigger};
use rustix::thread::{SecureComputingMode, set_secure_computing_mode};
use std::io::{Read, Write};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

const CHILD: &str = "FOURWAVE_TEST_QUIET_CHILD";
const CONNECTIONS: u64 = 500;
/// Some connections before the mode is set: the thread's lane and its heap are there.
const WARM: u64 = 50;

#[test]
fn a_short_connection_makes_no_system_call() {
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "quiet::serving_thread", "--test-threads=1"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    assert!(status.status.success(), "{status:?}");
}

#[test]
fn serving_thread() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let fake = Fake::start(1);
    fake.keep_awake();
    let options = fake.options().nonblocking(true);
    let listener = options.bind("10.99.0.2:80").unwrap();
    let poller = Poller::with_runtime(&fake.runtime()).unwrap();
    let (arrived, served) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (there, done) = (Arc::clone(&arrived), Arc::clone(&served));
    thread::spawn(move || {
        poller.add(&listener, 0, Interest::READABLE, Trigger::Level).unwrap();
        let mut events = Events::with_capacity(4);
        let mut bytes = [0; 8];
        for n in 0..CONNECTIONS {
            if n == WARM {
                set_secure_computing_mode(SecureComputingMode::Strict).unwrap();
            }
            while there.load(Ordering::SeqCst) <= n {
                std::hint::spin_loop();
            }
            poller.wait(&mut events, None).unwrap();
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_nonblocking(true).unwrap();
            poller.add(&stream, 1, Interest::READABLE, Trigger::Edge).unwrap();
            poller.wait(&mut events, None).unwrap();
            let count = stream.read(&mut bytes).unwrap();
            stream.write_all(&bytes[..count]).unwrap();
            drop(stream);
            done.store(n + 1, Ordering::SeqCst);
        }
        // Ending would be a system call.
        loop {
            std::hint::spin_loop();
        }
    });
    for n in 0..CONNECTIONS {
        let handle = fake.with(|world| {
            let handle = world.arrive(80, 0, n);
            world.peer_sends(handle, &n.to_ne_bytes());
            handle
        });
        arrived.store(n + 1, Ordering::SeqCst);
        assert_eq!(fake.until_closed(handle).sent, n.to_ne_bytes());
    }
    fake.until(|_| (served.load(Ordering::SeqCst) == CONNECTIONS).then_some(()));
    // The serving thread cannot end, so neither can this test the usual way.
    std::process::exit(0);
}
