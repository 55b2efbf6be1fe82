//! Groups of several processes.

use super::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

impl Client {
    /// A fork of this client.
    fn fork(&self) -> (Client, Process) {
        match self.ask(&Request::Fork) {
            (Reply::Forked { process, .. }, mut fds) => (Client(fds.remove(0)), process),
            (other, _) => panic!("{other:?}"),
        }
    }

    fn lane(&self) -> u16 {
        match self.ask(&Request::AttachLane).0 {
            Reply::Attached { lane } => lane,
            other => panic!("{other:?}"),
        }
    }

    fn close(&self, listener: u32) -> Reply {
        self.ask(&Request::CloseListener { listener }).0
    }

    /// Owners of all listeners, as root is told.
    fn owners(&self) -> Vec<i32> {
        let query = Query::Sockets(SocketFilter::ALL);
        self.send_request(&Request::Query { version: VERSION, query });
        let mut owners = Vec::new();
        loop {
            let Reply::Sockets { rows, more } = self.reply().0 else { panic!("no sockets") };
            let listeners = rows.iter().filter(|row| row.state == SocketState::Listen);
            owners.extend(listeners.filter_map(|row| Some(row.owner.as_ref()?.pid)));
            if !more {
                return owners;
            }
        }
    }
}

fn told(scene: &Scene, what: &str) -> usize {
    scene.log.lock().unwrap().iter().filter(|line| line.contains(what)).count()
}

#[test]
fn a_listener_ends_with_its_last_holder() {
    run(|scene| {
        let (parent, ..) = Client::greet(&scene.path);
        let (listener, address) = parent.listen("0.0.0.0:0");
        let (child, name) = parent.fork();
        assert_ne!(name, Process::FIRST);
        scene.until_told(&["0:Fork", "1:Fork"]);
        assert_eq!(parent.close(listener), Reply::Done);
        assert_eq!(errno(parent.ask(&Request::CloseListener { listener })), Errno::INVAL);
        assert_eq!(errno(parent.ask(&Request::Listen { listener, backlog: 1 })), Errno::INVAL);
        assert_eq!(told(&scene, "Unlisten"), 0, "the child has it yet");
        assert_eq!(child.ask(&Request::Listen { listener, backlog: 9 }).0, Reply::Done);
        // Not the child's: it came after the fork.
        let (own, _) = parent.listen("0.0.0.0:0");
        assert_eq!(errno(child.ask(&Request::CloseListener { listener: own })), Errno::INVAL);
        assert_eq!(child.close(listener), Reply::Done);
        scene.until_told(&["0:Unlisten", "1:Unlisten"]);
        assert_eq!(child.bind(&address.to_string()).1, address);
    });
}

#[test]
fn a_process_that_goes_takes_its_own_along() {
    run(|scene| {
        let (parent, params, memory) = Client::greet(&scene.path);
        let (kept, _) = parent.listen("0.0.0.0:0");
        let (child, _) = parent.fork();
        let (_, address) = child.listen("0.0.0.0:0");
        let (mine, theirs) = (parent.lane(), child.lane());
        assert_eq!(errno(parent.ask(&Request::DetachLane { lane: theirs })), Errno::INVAL);
        // It waits, and its rings are not empty.
        let segment = Segment::map(&memory, params).unwrap();
        segment.listener(kept).wait(theirs);
        drop(child);
        scene.until_told(&["0:RemoveProcess", "1:RemoveProcess", "0:Unlisten", "1:RemoveLane"]);
        assert_eq!(told(&scene, "RemoveGroup"), 0);
        // Its lane is free again, and nobody is woken there for it.
        while parent.lane() != theirs {}
        assert!(!segment.listener(kept).is_waiting(theirs));
        assert_eq!(parent.bind(&address.to_string()).1, address);
        assert_eq!(parent.ask(&Request::DetachLane { lane: mine }).0, Reply::Done);
        drop(parent);
        scene.until_told(&["0:RemoveGroup", "1:RemoveGroup"]);
    });
}

#[test]
fn a_fork_is_given_a_lane_while_most_are_free() {
    run(|scene| {
        let (parent, params, _) = Client::greet(&scene.path);
        let (Reply::Forked { lane: Some(lane), .. }, fds) = parent.ask(&Request::Fork) else {
            panic!("there are {} lanes", params.lanes);
        };
        assert_eq!(fds.len(), 1 + WORKERS as usize, "its connection and its doorbells");
        assert_eq!(errno(parent.ask(&Request::DetachLane { lane })), Errno::INVAL, "the child's");
        while u32::from(parent.lane()) < params.lanes / 2 {}
        let (Reply::Forked { lane: None, .. }, fds) = parent.ask(&Request::Fork) else {
            panic!("those that are left are for who asks");
        };
        assert_eq!(fds.len(), 1);
        parent.lane();
    });
}

#[test]
fn a_group_ends_with_its_last_process() {
    run(|scene| {
        let (parent, ..) = Client::greet(&scene.path);
        let (listener, _) = parent.listen("0.0.0.0:0");
        let (child, _) = parent.fork();
        let (grandchild, _) = child.fork();
        // As programs go into the background.
        drop(parent);
        drop(child);
        while told(&scene, "RemoveProcess") < 2 * WORKERS as usize {
            std::thread::yield_now();
        }
        assert_eq!(told(&scene, "RemoveGroup"), 0);
        assert_eq!(grandchild.close(listener), Reply::Done);
        drop(grandchild);
        scene.until_told(&["0:RemoveGroup", "1:RemoveGroup"]);
    });
}

#[test]
fn a_fork_says_who_it_is() {
    run(|scene| {
        let (parent, ..) = Client::greet(&scene.path);
        parent.listen("0.0.0.0:0");
        let (child, _) = parent.fork();
        drop(parent);
        // The test's own process speaks for the child.
        assert_eq!(child.ask(&Request::Arrived).0, Reply::Done);
        let tool = Client::connect(&scene.path);
        assert_eq!(tool.owners(), [rustix::process::getpid().as_raw_pid()]);
        assert_eq!(errno(tool.ask(&Request::Arrived)), Errno::INVAL, "it is no client");
        assert_eq!(errno(tool.ask(&Request::Fork)), Errno::INVAL);
        assert_eq!(errno(child.ask(&hello())), Errno::ISCONN);
    });
}

#[test]
fn forks_count_as_clients() {
    let clients = Clients { max_clients: 3, ..Clients::default() };
    run_with(clients, |scene| {
        let (parent, ..) = Client::greet(&scene.path);
        let (_one, _) = parent.fork();
        let (two, _) = parent.fork();
        assert_eq!(errno(parent.ask(&Request::Fork)), Errno::AGAIN);
        drop(two);
        while matches!(parent.ask(&Request::Fork).0, Reply::Error { .. }) {}
    });
}

#[test]
fn all_processes_of_a_hostile_client_are_disconnected() {
    let forked = Arc::new(AtomicBool::new(false));
    let has_forked = Arc::clone(&forked);
    with_control(
        Clients::default(),
        usize::MAX,
        |_, workers| async move {
            // Both processes are there, and know it.
            while !has_forked.load(Ordering::Acquire) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let (group, worker) = (GroupId(1), 0);
            workers[0].say(FromWorker::Evicted { group, worker, reason: "a test" });
        },
        move |scene| {
            let (parent, ..) = Client::greet(&scene.path);
            let (child, _) = parent.fork();
            forked.store(true, Ordering::Release);
            assert!(parent.is_closed() && child.is_closed());
            scene.until_told(&["0:RemoveGroup", "1:RemoveGroup"]);
        },
    );
}
