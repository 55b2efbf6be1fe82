//! Clients on the real socket, with workers that only answer.

use super::*;
use crate::config::Clients;
use crate::inquiry::{Answer, Inquiry, Row};
use crate::messages::ToWorker;
use crate::path::view::AddressView;
use crate::path::{PathTable, View};
use crate::served::tests::{FakeMap, have_ports_alone};
use crate::tap::Fate;
use crate::worker::Name;
use fourwave_protocol::capture::{CaptureCount, FrameVerdict, Step};
use fourwave_protocol::control::{BindOptions, MAX_MESSAGE, Reply, Request, decode, encode};
use fourwave_protocol::option::ConnOption;
use fourwave_protocol::query::{Query, SocketFilter, SocketKind, SocketState};
use fourwave_protocol::{Params, Process, Segment, VERSION};
use rustix::event::EventfdFlags;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, SocketAddrUnix,
    SocketType,
};
use std::collections::VecDeque;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

mod forks;
mod succession;
mod worker;

use worker::{FakeWorker, Log, ROWS, SharedWorker};

const WORKERS: u32 = 2;

/// A client's end, blocking, on a thread of its own.
struct Client(OwnedFd);

impl Client {
    fn connect(path: &Path) -> Client {
        let kind = SocketType::SEQPACKET;
        let socket = rustix::net::socket(AddressFamily::UNIX, kind, None).unwrap();
        rustix::net::connect(&socket, &SocketAddrUnix::new(path).unwrap()).unwrap();
        Client(socket)
    }

    fn greet(path: &Path) -> (Client, Params, OwnedFd) {
        let client = Client::connect(path);
        let (reply, mut fds) = client.ask(&hello());
        let Reply::Welcome { params, .. } = reply else { panic!("{reply:?}") };
        (client, params, fds.pop().unwrap())
    }

    fn ask(&self, request: &Request) -> (Reply, Vec<OwnedFd>) {
        self.send_request(request);
        self.reply()
    }

    fn send_request(&self, request: &Request) {
        let mut buffer = [0; MAX_MESSAGE];
        self.send(encode(request, &mut buffer).unwrap());
    }

    fn send(&self, packet: &[u8]) {
        assert_eq!(rustix::net::send(&self.0, packet, SendFlags::NOSIGNAL), Ok(packet.len()));
    }

    fn reply(&self) -> (Reply, Vec<OwnedFd>) {
        let mut packet = [0; MAX_MESSAGE];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let slices = &mut [IoSliceMut::new(&mut packet)];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let got = rustix::net::recvmsg(&self.0, slices, &mut ancillary, flags).unwrap();
        let fds = ancillary.drain().flat_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => fds.collect::<Vec<_>>(),
            _ => panic!("only descriptors are sent"),
        });
        let fds = fds.collect();
        (decode(&packet[..got.bytes]).unwrap(), fds)
    }

    /// Reasons of refusals that were counted, and how often.
    fn counted(&self) -> Vec<String> {
        let Reply::Text { text, more: false } = self.ask(&Request::Stats).0 else { panic!("text") };
        let counts = text.lines().filter_map(|line| {
            let (reason, count) =
                line.strip_prefix("clients_refused{reason=\"")?.split_once("\"} ")?;
            (count != "0").then(|| format!("{reason} {count}"))
        });
        counts.collect()
    }

    fn is_closed(&self) -> bool {
        let mut byte = [0];
        let received = rustix::net::recv(&self.0, &mut byte[..], RecvFlags::empty());
        matches!(received, Ok((0, _)) | Err(Errno::CONNRESET))
    }

    fn is_closed_now(&self) -> bool {
        rustix::net::recv(&self.0, &mut [0][..], RecvFlags::DONTWAIT).is_ok()
    }

    fn listen(&self, address: &str) -> (u32, SocketAddr) {
        let (listener, address) = self.bind(address);
        let reply = self.ask(&Request::Listen { listener, backlog: 5 }).0;
        assert_eq!(reply, Reply::Done);
        (listener, address)
    }

    fn bind(&self, address: &str) -> (u32, SocketAddr) {
        match self.ask(&bind(address.parse().unwrap())).0 {
            Reply::Bound { listener, address } => (listener, address),
            other => panic!("{other:?}"),
        }
    }
}

fn hello() -> Request {
    Request::Hello { version: VERSION, name: "test".to_owned() }
}

fn bind(address: SocketAddr) -> Request {
    Request::Bind { address, options: BindOptions::default() }
}

#[track_caller]
fn errno(reply: (Reply, Vec<OwnedFd>)) -> Errno {
    match reply.0 {
        Reply::Error { errno, detail } => {
            assert!(!detail.is_empty());
            Errno::from_raw_os_error(errno)
        }
        other => panic!("{other:?}"),
    }
}

/// What a test can look at besides its clients.
#[derive(Clone)]
struct Scene {
    path: PathBuf,
    log: Log,
}

impl Scene {
    /// Waits until the workers were told all of `wanted`.
    fn until_told(&self, wanted: &[&str]) {
        for _ in 0..2000 {
            let log = self.log.lock().unwrap().clone();
            if wanted.iter().all(|text| log.iter().any(|line| line == text)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("{wanted:?} not in {:?}", self.log.lock().unwrap());
    }
}

/// Runs `test` as a client of a control thread with two workers; `script` acts beside it on the
/// control thread's side.
fn with_control<S: Future<Output = ()>>(
    clients: Clients,
    room: usize,
    script: impl FnOnce(Rc<Control>, Vec<Rc<FakeWorker>>) -> S,
    test: impl FnOnce(Scene) + Send + 'static,
) {
    have_ports_alone();
    let folder = tempfile::tempdir().unwrap();
    let scene = Scene { path: folder.path().join("control.sock"), log: Log::default() };
    let workers: Vec<Rc<FakeWorker>> = (0..WORKERS)
        .map(|index| {
            let flags = EventfdFlags::NONBLOCK;
            Rc::new(FakeWorker {
                index,
                bell: rustix::event::eventfd(0, flags).unwrap(),
                answers: RefCell::default(),
                questions: RefCell::default(),
                rows: Cell::new(ROWS),
                log: Arc::clone(&scene.log),
                room: Cell::new(room),
                unheard: RefCell::default(),
            })
        })
        .collect();
    let links = workers
        .iter()
        .map(|worker| Box::new(SharedWorker(Rc::clone(worker))) as Box<dyn WorkerLink>);
    let links: Links = Rc::new(links.collect());
    let (paths, _tables, _requests) = Paths::detached();
    let map = Box::new(FakeMap::new(1000));
    let parts = Parts {
        links,
        queues: vec!["test/0".to_owned(), "test/1".to_owned()],
        policy: Policy::new(clients, 1024),
        ports: ServedPorts::new(map, WORKERS, vec!["10.0.0.1".parse().unwrap()]),
        somaxconn: 4096,
        window: 4 << 20,
        tcp: fourwave_tcp::Config::default(),
        paths,
        counters: Box::new(|totals| totals.add("steer_tcp", 7)),
        settings: "interface = \"eth0\"\n".to_owned(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let control = Control::new(parts);
        control.start().unwrap();
        let door = Door::open(&scene.path).unwrap();
        let client = tokio::task::spawn_blocking(move || test(scene));
        let script = script(Rc::clone(&control), workers);
        tokio::select! {
            () = control.accept(&door) => {}
            ((), result) = async { tokio::join!(script, client) } => result.unwrap(),
        }
    });
}

/// With these limits of clients, and workers that do nothing by themselves.
fn run_with(clients: Clients, test: impl FnOnce(Scene) + Send + 'static) {
    with_control(clients, usize::MAX, |_, _| async {}, test);
}

fn run(test: impl FnOnce(Scene) + Send + 'static) {
    with_control(Clients::default(), usize::MAX, |_, _| async {}, test);
}

#[test]
fn a_client_gets_a_segment_lanes_and_listeners() {
    run(|scene| {
        let (client, params, memory) = Client::greet(&scene.path);
        let segment = Segment::map(&memory, params).unwrap();
        assert_eq!(segment.layout().params().workers, WORKERS);
        for expected in [0, 1] {
            let (reply, doorbells) = client.ask(&Request::AttachLane);
            assert_eq!(reply, Reply::Attached { lane: expected });
            assert_eq!(doorbells.len(), WORKERS as usize);
        }
        assert_eq!(client.ask(&Request::DetachLane { lane: 0 }).0, Reply::Done);
        // Free again as soon as the workers have let go of it.
        while client.ask(&Request::AttachLane).0 != (Reply::Attached { lane: 0 }) {}

        let (listener, address) = client.listen("0.0.0.0:0");
        assert_ne!(address.port(), 0);
        // Another backlog needs no worker.
        assert_eq!(client.ask(&Request::Listen { listener, backlog: 9 }).0, Reply::Done);
        assert_eq!(client.ask(&Request::CloseListener { listener }).0, Reply::Done);
        scene.until_told(&["0:Unlisten", "1:Unlisten", "0:ReportIdle", "1:ReportIdle"]);
        // The kernel has the port again, so that it can be claimed again.
        assert_eq!(client.bind(&address.to_string()).1, address);
    });
}

#[test]
fn a_listeners_options_hold_from_its_first_connection() {
    run(|scene| {
        let (client, ..) = Client::greet(&scene.path);
        let (listener, _) = client.bind("0.0.0.0:0");
        let option =
            Request::SetOption { listener, option: ConnOption::ReceiveBuffer, value: 8192 };
        assert_eq!(client.ask(&option).0, Reply::Done);
        assert_eq!(client.ask(&Request::Listen { listener, backlog: 9 }).0, Reply::Done);
        let log = scene.log.lock().unwrap();
        for worker in ["0:begins with", "1:begins with"] {
            let told = log.iter().find(|line| line.starts_with(worker));
            assert!(told.is_some_and(|line| line.contains("8192")), "{log:?}");
        }
    });
}

#[test]
fn an_option_is_answered_when_every_worker_has_heard_of_it() {
    let answered = Arc::new(AtomicBool::new(false));
    let is_answered = Arc::clone(&answered);
    let script = |_, workers: Vec<Rc<FakeWorker>>| {
        workers.iter().for_each(|worker| worker.be_busy());
        async move {
            for worker in &workers {
                worker.until_it_owes().await;
            }
            for worker in &workers {
                tokio::time::sleep(Duration::from_millis(50)).await;
                assert!(!is_answered.load(Ordering::SeqCst), "worker {}", worker.index);
                worker.hear();
            }
        }
    };
    with_control(Clients::default(), usize::MAX, script, move |scene| {
        let (client, ..) = Client::greet(&scene.path);
        let (listener, _) = client.listen("0.0.0.0:0");
        let option =
            Request::SetOption { listener, option: ConnOption::ReceiveBuffer, value: 8192 };
        assert_eq!(client.ask(&option).0, Reply::Done);
        answered.store(true, Ordering::SeqCst);
    });
}

#[test]
fn a_bind_waits_until_every_worker_has_looked() {
    let script = |_, workers: Vec<Rc<FakeWorker>>| {
        workers.iter().for_each(|worker| worker.be_busy());
        async move {
            for worker in &workers {
                worker.until_it_owes().await;
                // Longer than all looks would take if nobody was waited for.
                tokio::time::sleep(Duration::from_millis(200)).await;
                worker.hear();
            }
        }
    };
    with_control(Clients::default(), usize::MAX, script, |scene| {
        let (client, ..) = Client::greet(&scene.path);
        let (listener, address) = client.listen("0.0.0.0:0");
        assert_eq!(client.ask(&Request::CloseListener { listener }).0, Reply::Done);
        let options = BindOptions { reuse_address: false, ..BindOptions::default() };
        let (reply, _) = client.ask(&Request::Bind { address, options });
        assert!(matches!(reply, Reply::Bound { .. }), "{reply:?}");
    });
}

#[test]
fn a_client_that_goes_leaves_nothing() {
    run(|scene| {
        let (client, ..) = Client::greet(&scene.path);
        let (_, address) = client.listen("0.0.0.0:0");
        let (other, ..) = Client::greet(&scene.path);
        assert_eq!(errno(other.ask(&bind(address))), Errno::ADDRINUSE);
        drop(client);
        scene.until_told(&["0:RemoveGroup", "1:RemoveGroup", "0:ReportIdle", "1:ReportIdle"]);
        assert_eq!(other.bind(&address.to_string()).1, address);
    });
}

#[test]
fn refusals_say_why_and_the_client_goes_on() {
    run(|scene| {
        let client = Client::connect(&scene.path);
        assert_eq!(errno(client.ask(&Request::AttachLane)), Errno::INVAL);
        let old = Request::Hello { version: VERSION + 1, name: String::new() };
        assert_eq!(errno(client.ask(&old)), Errno::PROTONOSUPPORT);
        assert!(matches!(client.ask(&hello()).0, Reply::Welcome { .. }));
        assert_eq!(errno(client.ask(&hello())), Errno::ISCONN);
        for lane in [0, u16::MAX] {
            assert_eq!(errno(client.ask(&Request::DetachLane { lane })), Errno::INVAL);
        }
        for listener in [0, 64, u32::MAX] {
            let listen = Request::Listen { listener, backlog: 5 };
            assert_eq!(errno(client.ask(&listen)), Errno::INVAL);
            assert_eq!(errno(client.ask(&Request::CloseListener { listener })), Errno::INVAL);
        }
        for (address, expected) in [
            ("127.0.0.1:8080", Errno::ADDRNOTAVAIL),
            ("[::ffff:127.0.0.1]:8080", Errno::ADDRNOTAVAIL),
            ("192.0.2.77:8080", Errno::ADDRNOTAVAIL),
        ] {
            assert_eq!(errno(client.ask(&bind(address.parse().unwrap()))), expected, "{address}");
        }
        let (listener, _) = client.bind("0.0.0.0:0");
        // Worker 1 refuses this one; then it is bound as before.
        let refused = Request::Listen { listener, backlog: 13 };
        assert_eq!(errno(client.ask(&refused)), Errno::NOBUFS);
        scene.until_told(&["0:Unlisten", "1:Unlisten"]);
        // The answers to that may still be on their way.
        let again = Request::Listen { listener, backlog: 5 };
        while client.ask(&again).0 != Reply::Done {}
    });
}

#[test]
fn every_lane_and_listener_is_a_limit() {
    run(|scene| {
        let (client, params, _memory) = Client::greet(&scene.path);
        for lane in 0..params.lanes {
            assert_eq!(client.ask(&Request::AttachLane).0, Reply::Attached { lane: lane as u16 });
        }
        assert_eq!(errno(client.ask(&Request::AttachLane)), Errno::NOBUFS);
        for listener in 0..params.listeners {
            assert_eq!(client.bind("0.0.0.0:0").0, listener);
        }
        assert_eq!(errno(client.ask(&bind("0.0.0.0:0".parse().unwrap()))), Errno::MFILE);
        assert_eq!(client.counted(), ["lanes 1", "listeners 1"]);
    });
}

/// Bytes that are no message end that client's connection, and nobody else's.
#[test]
fn garbage_ends_a_client_and_no_other() {
    run(|scene| {
        let (good, ..) = Client::greet(&scene.path);
        let mut trailing = encode(&Request::AttachLane, &mut [0; MAX_MESSAGE]).unwrap().to_vec();
        trailing.push(0);
        for packet in [&[0xff][..], &[0xff; 1000], &trailing] {
            let (bad, ..) = Client::greet(&scene.path);
            bad.send(packet);
            assert_eq!(errno(bad.reply()), Errno::PROTO);
            assert!(bad.is_closed());
        }
        assert_eq!(good.counted(), ["no_message 3"]);
        let (large, ..) = Client::greet(&scene.path);
        large.send(&[0; MAX_MESSAGE + 1]);
        assert!(large.is_closed());
        assert!(matches!(good.ask(&Request::AttachLane).0, Reply::Attached { .. }));
    });
}

#[test]
fn an_evicted_client_is_disconnected() {
    let script = |_control, workers: Vec<Rc<FakeWorker>>| async move {
        let group = GroupId(1);
        loop {
            tokio::time::sleep(Duration::from_millis(1)).await;
            if workers[1].log.lock().unwrap().iter().any(|line| line == "1:group 1") {
                break;
            }
        }
        workers[1].say(FromWorker::Evicted { group, worker: 1, reason: "test" });
    };
    with_control(Clients::default(), usize::MAX, script, |scene| {
        let (client, ..) = Client::greet(&scene.path);
        assert!(client.is_closed());
        scene.until_told(&["0:RemoveGroup", "1:RemoveGroup"]);
        Client::greet(&scene.path);
    });
}

#[test]
fn there_are_at_most_max_clients() {
    let clients = Clients { max_clients: 2, ..Clients::default() };
    run_with(clients, |scene| {
        let (first, ..) = Client::greet(&scene.path);
        let (_second, ..) = Client::greet(&scene.path);
        let third = Client::connect(&scene.path);
        assert_eq!(errno(third.ask(&hello())), Errno::MFILE);
        assert!(third.is_closed());
        assert_eq!(first.counted(), ["max_clients 1"]);
        drop(first);
        // Room again, as soon as the first one's end was noticed.
        while !matches!(Client::connect(&scene.path).ask(&hello()).0, Reply::Welcome { .. }) {}
    });
}

/// Many who are one too many and say nothing do not all get the time to.
#[test]
fn a_crowd_is_hung_up_on() {
    let clients = Clients { max_clients: 1, ..Clients::default() };
    run_with(clients, |scene| {
        let (client, ..) = Client::greet(&scene.path);
        let silent: Vec<Client> = (0..100).map(|_| Client::connect(&scene.path)).collect();
        assert!(silent[99].is_closed());
        let told = |silent: &Client| !silent.is_closed_now();
        assert_eq!(silent.iter().filter(|silent| told(silent)).count(), MAX_TURNED_AWAY);
        assert_eq!(client.counted(), ["max_clients 100"]);
    });
}

#[test]
fn a_user_that_may_not_is_refused() {
    let rules = vec![crate::config::Rule {
        ports: Some(vec!["40000".parse().unwrap()]),
        ..crate::config::Rule::default()
    }];
    let clients = Clients { rules, ..Clients::default() };
    run_with(clients, |scene| {
        let (client, ..) = Client::greet(&scene.path);
        let wanted = bind("0.0.0.0:40001".parse().unwrap());
        assert_eq!(errno(client.ask(&wanted)), Errno::ACCESS);
        assert_eq!(client.counted(), ["port 1"]);
    });
}

/// Every message has to be sent twice; nothing is lost and the order stays.
#[test]
fn full_queues_delay_and_lose_nothing() {
    with_control(
        Clients::default(),
        0,
        |_, _| async {},
        |scene| {
            let (client, ..) = Client::greet(&scene.path);
            client.ask(&Request::AttachLane);
            client.listen("0.0.0.0:0");
            let log = scene.log.lock().unwrap().clone();
            for worker in ["0", "1"] {
                let told: Vec<&str> = log
                    .iter()
                    .filter_map(|line| line.strip_prefix(worker)?.strip_prefix(':'))
                    .filter(|line| !line.starts_with("group"))
                    .collect();
                assert_eq!(told, ["AddGroup", "AddLane", "Listen"]);
            }
        },
    );
}

#[test]
fn statistics_are_for_everyone() {
    run(|scene| {
        let tool = Client::connect(&scene.path);
        let (reply, _) = tool.ask(&Request::Stats);
        let Reply::Text { text, more: false } = reply else { panic!("{reply:?}") };
        for line in ["InSegs 42", "clients 1", "groups 0", "steer_tcp 7", "dropped 6"] {
            assert!(text.lines().any(|other| other == line), "{line} is not in {text}");
        }
        let (reply, _) = tool.ask(&Request::Settings);
        let expected = Reply::Text { text: "interface = \"eth0\"\n".to_owned(), more: false };
        assert_eq!(reply, expected);
    });
}

fn sockets() -> Request {
    Request::Query { version: VERSION, query: Query::Sockets(SocketFilter::ALL) }
}

#[test]
fn sockets_come_bit_by_bit_with_listeners_first() {
    run(|scene| {
        let (client, ..) = Client::greet(&scene.path);
        let (_, address) = client.listen("0.0.0.0:0");
        client.send_request(&sockets());
        let mut rows = Vec::new();
        loop {
            let Reply::Sockets { rows: next, more } = client.reply().0 else { panic!("no rows") };
            rows.extend(next);
            if !more {
                break;
            }
        }
        assert_eq!((rows[0].state, rows[0].local), (SocketState::Listen, address));
        assert_eq!((rows[0].receive_queue, rows[0].send_queue), (0, 5));
        assert_eq!(rows.len(), 1 + (WORKERS * ROWS) as usize);
        let owner = rows[1].owner.as_ref().expect("it is ours");
        assert_eq!((owner.pid as u32, owner.name.as_str()), (std::process::id(), "test"));
        for worker in 0..WORKERS {
            assert_eq!(rows.iter().filter(|row| row.worker == Some(worker)).count(), ROWS as usize);
        }
    });
}

#[test]
fn a_tool_that_goes_away_takes_its_question_back() {
    run(|scene| {
        let tool = Client::connect(&scene.path);
        tool.send_request(&sockets());
        drop(tool);
        scene.until_told(&["0:withdrawn", "1:withdrawn"]);
    });
}

#[test]
fn a_tool_of_another_release_is_told() {
    run(|scene| {
        let query = Query::Sockets(SocketFilter::ALL);
        let other = Request::Query { version: VERSION + 1, query };
        assert_eq!(errno(Client::connect(&scene.path).ask(&other)), Errno::PROTONOSUPPORT);
    });
}

fn capture(filter: Vec<Step>) -> Request {
    Request::Capture { version: VERSION, filter, snaplen: 80 }
}

#[test]
fn frames_come_until_the_tool_has_enough() {
    run(|scene| {
        let tool = Client::connect(&scene.path);
        tool.send_request(&capture(vec![Step::Dropped]));
        let expected = Reply::Capturing { queues: vec!["test/0".into(), "test/1".into()] };
        assert_eq!(tool.reply().0, expected);
        let mut frames = Vec::new();
        while frames.len() < 2 {
            let Reply::Captured { frames: next, more: true, .. } = tool.reply().0 else {
                panic!("no frames")
            };
            frames.extend(next);
        }
        frames.sort_by_key(|frame| frame.worker);
        for (worker, frame) in (0..).zip(&frames) {
            assert_eq!((frame.worker, frame.at, frame.length), (worker, 7, 100));
            assert_eq!(frame.bytes, [worker as u8; 80]);
            let dropped = Some("not_ip".to_owned());
            assert_eq!(frame.verdict, FrameVerdict::Received { handed_to: None, dropped });
        }
        rustix::net::shutdown(&tool.0, rustix::net::Shutdown::Write).unwrap();
        let Reply::Captured { frames, counts, more: false } = tool.reply().0 else {
            panic!("it goes on")
        };
        assert!(frames.is_empty());
        assert_eq!(counts, [CaptureCount { matched: 1, missed: 0 }; 2]);
        assert!(tool.is_closed());
    });
}

#[test]
fn captures_that_make_no_sense_or_are_too_many_are_refused() {
    run(|scene| {
        let tool = Client::connect(&scene.path);
        assert_eq!(errno(tool.ask(&capture(vec![Step::And]))), Errno::INVAL);
        assert_eq!(errno(tool.ask(&capture(vec![Step::Reason("x".into())]))), Errno::INVAL);
        let begin = |tool: &Client| tool.ask(&capture(vec![Step::Sent])).0;
        let tools: Vec<Client> = (0..4).map(|_| Client::connect(&scene.path)).collect();
        for tool in &tools {
            assert!(matches!(begin(tool), Reply::Capturing { .. }));
        }
        let refused = tool.ask(&capture(vec![Step::Sent]));
        assert_eq!(errno(refused), Errno::BUSY);
        drop(tools);
        // Room again, as soon as their ends were noticed.
        while !matches!(begin(&tool), Reply::Capturing { .. }) {}
    });
}

#[test]
fn a_draining_daemon_refuses_what_is_new() {
    let (ready, drained) = std::sync::mpsc::channel();
    let script = |control: Rc<Control>, _workers| async move {
        control.drain().await;
        ready.send(()).unwrap();
    };
    with_control(Clients::default(), usize::MAX, script, move |scene| {
        drained.recv().unwrap();
        let client = Client::connect(&scene.path);
        assert_eq!(errno(client.ask(&hello())), Errno::NETDOWN);
    });
}

#[test]
fn workers_get_new_tables_and_ports_follow() {
    let (paths, tables, _requests) = Paths::detached();
    let map = FakeMap::new(1000);
    let log = Log::default();
    let worker = FakeWorker {
        index: 0,
        bell: rustix::event::eventfd(0, EventfdFlags::NONBLOCK).unwrap(),
        answers: RefCell::default(),
        questions: RefCell::default(),
        rows: Cell::new(0),
        log: Arc::clone(&log),
        room: Cell::new(usize::MAX),
        unheard: RefCell::default(),
    };
    let links: Links = Rc::new(vec![Box::new(worker)]);
    let mut ports = ServedPorts::new(Box::new(map.clone()), 1, Vec::new());
    let claimant = crate::served::Claimant { group: GroupId(1), listener: 0 };
    let any = SocketAddr::from(([0, 0, 0, 0], 0));
    let port = ports.claim(claimant, any, crate::served::tests::PLAIN).unwrap().port();
    let policy = Policy::new(Clients::default(), 1024);
    let counters = Box::new(|_: &mut Totals| {});
    let (window, settings) = (1 << 20, String::new());
    let tcp = fourwave_tcp::Config::default();
    let queues = Vec::new();
    let parts = Parts {
        links,
        queues,
        policy,
        ports,
        somaxconn: 1,
        window,
        tcp,
        paths,
        counters,
        settings,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let control = Control::new(parts);
        control.start().unwrap();
        let address = AddressView {
            device: 2,
            address: "10.0.0.9".parse().unwrap(),
            prefix: 8,
            global: true,
            secondary: false,
            tentative: false,
        };
        let view = View { addresses: vec![address], ..View::default() };
        tables.send_replace(Arc::new(PathTable::build(2, 2, &view)));
        while log.lock().unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(*log.lock().unwrap(), ["0:Paths"]);
        assert!(map.entries.borrow().contains(&(port, "10.0.0.9".parse().unwrap())));
    });
}
