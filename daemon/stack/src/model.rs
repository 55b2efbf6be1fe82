//! What workers share of a listener, checked by loom in every interleaving.

use std::sync::Arc;

use loom::thread;

use crate::backlog::ListenerShared;

/// Two workers claim places on an accept queue and an application takes from it: the queue never
/// holds more than its backlog and one, and every place comes back.
#[test]
fn a_backlog_is_exact_over_all_workers() {
    for backlog in [0, 1] {
        loom::model(move || {
            let shared = ListenerShared::new(backlog);
            let worker = |shared: Arc<ListenerShared>| {
                thread::spawn(move || {
                    let claimed = shared.claim_accept();
                    assert!(shared.accept_len() <= backlog + 1);
                    claimed
                })
            };
            let workers = [worker(shared.clone()), worker(shared.clone())];
            let claimed = workers.map(|worker| worker.join().unwrap());
            let count = claimed.iter().filter(|claimed| **claimed).count() as u32;
            assert_eq!(count, backlog + 1);
            assert_eq!(shared.accept_len(), count);
            assert!(!shared.claim_accept());
            (0..count).for_each(|_| shared.release_accept());
            assert_eq!(shared.accept_len(), 0);
        });
    }
}

/// A place that one worker gives back can be another's at once, and is nobody's twice.
#[test]
fn a_place_given_back_is_taken_once() {
    loom::model(|| {
        let shared = ListenerShared::new(0);
        assert!(shared.claim_accept());
        let other = shared.clone();
        let taker = thread::spawn(move || {
            other.release_accept();
            other.claim_accept()
        });
        let ours = shared.claim_accept();
        let theirs = taker.join().unwrap();
        assert!(ours != theirs, "{ours} {theirs}");
        assert_eq!(shared.accept_len(), 1);
    });
}

/// Handshakes that begin, age and end at two workers leave nothing behind.
#[test]
fn a_syn_queue_empties() {
    loom::model(|| {
        let shared = ListenerShared::new(0);
        let other = shared.clone();
        let worker = thread::spawn(move || {
            let claimed = other.claim_syn();
            if claimed {
                other.age_syn();
                other.release_syn(false);
            }
            claimed
        });
        shared.force_syn();
        // With its own handshake the queue is full already.
        let retries = shared.syn_ack_retries(5);
        assert_eq!(retries, 5);
        shared.release_syn(true);
        worker.join().unwrap();
        assert_eq!(shared.syn_len(), 0);
        assert!(shared.claim_syn(), "a place is left, and it is young");
        shared.release_syn(true);
        assert_eq!((shared.syn_len(), shared.syn_ack_retries(5)), (0, 5));
    });
}

/// Two workers send cookies at slightly different times: both have noted it.
#[test]
fn an_overflow_is_noted() {
    loom::model(|| {
        let shared = ListenerShared::new(0);
        let other = shared.clone();
        let worker = thread::spawn(move || other.note_overflow(5));
        shared.note_overflow(4);
        worker.join().unwrap();
        assert!(shared.overflowed_within(2, 6));
        assert!(!shared.overflowed_within(2, 20));
    });
}
