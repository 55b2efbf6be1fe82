//! Rules that span modules, checked by loom in every interleaving.

use crate::Handle;
use crate::accept::{
    AcceptEntry, AcceptHeader, AcceptProducer, AcceptRing, ListenerBlock, Waiting,
};
use crate::process::Process;
use crate::wake::publish_fence;
use loom::sync::Arc;
use loom::thread;

struct Listener {
    block: ListenerBlock,
    header: AcceptHeader,
    entries: [AcceptEntry; 2],
}

impl Listener {
    fn ring(&self) -> AcceptRing<'_> {
        AcceptRing::new(&self.header, &self.entries)
    }

    /// The worker's side: queues a connection, returns the lane that it wakes.
    fn push(&self, producer: &mut AcceptProducer, stamp: u64) -> Option<u16> {
        let handle = Handle { index: 1, generation: 1 };
        assert!(producer.push(&self.ring(), Waiting { handle, stamp }));
        publish_fence();
        self.block.take_waiter(0)
    }

    /// An acceptor's side, by the rule of [`ListenerBlock::wait`]. `true`: it has taken a
    /// connection and goes away; `false`: it sleeps.
    fn accept(&self, lane: u16) -> bool {
        loop {
            self.block.wait(lane);
            publish_fence();
            if !self.ring().is_empty() && self.leave_and_take(lane) {
                return true;
            }
            if self.block.is_waiting(lane) {
                return false;
            }
            if self.leave_and_take(lane) {
                return true;
            }
        }
    }

    fn leave_and_take(&self, lane: u16) -> bool {
        self.block.unwait(lane);
        self.ring().pop(Process::FIRST).is_some()
    }
}

/// Two acceptors that take one connection each, and two connections: nobody sleeps for ever.
#[test]
fn a_wake_up_is_worth_one_connection() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let listener = Arc::new(Listener {
            block: ListenerBlock::new(),
            header: AcceptHeader::new(),
            entries: [AcceptEntry::new(), AcceptEntry::new()],
        });
        let acceptors = [1, 2].map(|lane| {
            let listener = Arc::clone(&listener);
            thread::spawn(move || listener.accept(lane))
        });
        let mut producer = AcceptProducer::new();
        let woken = [1, 2].map(|stamp| listener.push(&mut producer, stamp));
        let mut took = acceptors.map(|acceptor| acceptor.join().unwrap());
        for lane in woken.into_iter().flatten() {
            let took = &mut took[usize::from(lane) - 1];
            // A lane that was told while it looked has used that already.
            *took = *took || listener.leave_and_take(lane) || listener.accept(lane);
        }
        assert_eq!(took, [true, true]);
    });
}
