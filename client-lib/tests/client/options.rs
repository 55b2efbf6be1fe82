//! Socket options: set and asked for, inherited, in Linux's numbers; and lingering.

use crate::fake::{Closed, Fake, SILENT_PORT};
use crate::{errno_of, listener};
use fourwave::{TcpKeepalive, TcpListener, TcpStream};
use fourwave_protocol::Handle;
use fourwave_protocol::option::ConnOption;
use rustix::io::Errno;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

const SOL_SOCKET: i32 = 1;
const IPPROTO_IP: i32 = 0;
const IPPROTO_TCP: i32 = 6;
const IPPROTO_IPV6: i32 = 41;

fn accepted(fake: &Fake) -> (TcpListener, TcpStream, Handle) {
    let listener = listener(fake);
    let handle = fake.with(|world| world.arrive(80, world.params().workers - 1, 1));
    let stream = listener.accept().unwrap().0;
    (listener, stream, handle)
}

fn int(value: i32) -> [u8; 4] {
    value.to_ne_bytes()
}

#[test]
fn what_is_set_is_what_the_daemon_says() {
    let fake = Fake::start(2);
    let (_, stream, handle) = accepted(&fake);
    assert!(!stream.nodelay().unwrap());
    stream.set_nodelay(true).unwrap();
    assert!(stream.nodelay().unwrap());
    stream.set_cork(true).unwrap();
    assert!(stream.cork().unwrap());
    stream.set_quickack(true).unwrap();
    assert!(stream.quickack().unwrap());
    stream.set_tcp_user_timeout(Some(Duration::from_millis(1500))).unwrap();
    assert_eq!(stream.tcp_user_timeout().unwrap(), Some(Duration::from_millis(1500)));
    stream.set_tcp_user_timeout(None).unwrap();
    assert_eq!(stream.tcp_user_timeout().unwrap(), None);
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(10))
        .with_interval(Duration::from_secs(5))
        .with_retries(3);
    stream.set_tcp_keepalive(&keepalive).unwrap();
    assert!(stream.keepalive().unwrap());
    assert_eq!(stream.keepalive_time().unwrap(), Duration::from_secs(10));
    assert_eq!(stream.keepalive_interval().unwrap(), Duration::from_secs(5));
    assert_eq!(stream.keepalive_retries().unwrap(), 3);
    stream.set_mss(600).unwrap();
    assert_eq!(stream.mss().unwrap(), 600);
    stream.set_recv_buffer_size(8000).unwrap();
    stream.set_send_buffer_size(9000).unwrap();
    assert_eq!(
        (stream.recv_buffer_size().unwrap(), stream.send_buffer_size().unwrap()),
        (16_000, 18_000)
    );
    stream.set_tos(0xbb).unwrap();
    stream.set_tclass(0x28).unwrap();
    assert_eq!((stream.tos().unwrap(), stream.tclass().unwrap()), (0xb8, 0x28));
    stream.set_tcp_congestion("reno").unwrap();
    assert_eq!(stream.tcp_congestion().unwrap(), "reno");
    assert_eq!(errno_of(stream.set_tcp_congestion("bbr")), Errno::NOENT.raw_os_error());
    stream.set_linger(Some(Duration::from_millis(1500))).unwrap();
    assert_eq!(stream.linger().unwrap(), Some(Duration::from_secs(2)));
    let set = fake.with(|world| world.option(handle, ConnOption::Linger));
    assert_eq!(set, 3);
}

#[test]
fn values_out_of_range_go_nowhere() {
    let fake = Fake::start(1);
    let (listener, stream, handle) = accepted(&fake);
    let invalid = Errno::INVAL.raw_os_error();
    assert_eq!(errno_of(stream.set_mss(87)), invalid);
    assert_eq!(errno_of(listener.set_mss(40_000)), invalid);
    let too_short = TcpKeepalive::new().with_time(Duration::from_millis(999));
    assert_eq!(errno_of(stream.set_tcp_keepalive(&too_short)), invalid);
    assert_eq!(fake.with(|world| world.option(handle, ConnOption::KeepAlive)), 0);
    assert_eq!(errno_of(stream.set_tcp_user_timeout(Some(Duration::MAX))), invalid);
    assert_eq!(errno_of(fake.options().mss(1).connect("10.99.0.1:1")), invalid);
    assert_eq!(errno_of(fake.options().syn_count(0).bind("10.99.0.2:0")), invalid);
}

#[test]
fn accepted_streams_begin_with_what_their_listener_has() {
    let fake = Fake::start(2);
    let options = fake.options().nodelay(true).mss(900).linger(Some(Duration::ZERO)).tos(8);
    let listener = options.bind("10.99.0.2:80").unwrap();
    assert!(listener.nodelay().unwrap());
    assert_eq!((listener.mss().unwrap(), listener.tos().unwrap()), (900, 8));
    listener.set_keepalive(true).unwrap();
    let handle = fake.with(|world| world.arrive(80, 1, 1));
    let (stream, _) = listener.accept().unwrap();
    assert!(stream.nodelay().unwrap() && stream.keepalive().unwrap());
    assert_eq!((stream.mss().unwrap(), stream.tos().unwrap()), (900, 8));
    drop(stream);
    assert!(fake.until_closed(handle).abort, "it lingers for no time");
}

#[test]
fn options_come_before_the_connection() {
    let fake = Fake::start(2);
    let options = fake.options().nonblocking(true).mss(700).tclass(0x28);
    let peer = SocketAddr::new([10, 99, 0, 1].into(), SILENT_PORT);
    let (first, second) = (options.connect(peer).unwrap(), options.connect(peer).unwrap());
    let plain = fake.options().nonblocking(true).connect(peer).unwrap();
    for (stream, expected) in [(&first, (700, 0x28)), (&second, (700, 0x28)), (&plain, (0, 0))] {
        assert_eq!((stream.mss().unwrap(), stream.tclass().unwrap()), expected);
    }
}

#[test]
fn information_is_the_daemons() {
    let fake = Fake::start(1);
    let (_, mut stream, handle) = accepted(&fake);
    stream.write_all(&[1; 100]).unwrap();
    fake.until(|world| (world.sent(handle).len() == 100).then_some(()));
    let info = stream.tcp_info().unwrap();
    assert_eq!((info.state, info.snd_mss, info.snd_cwnd), (1, 1448, 10));
    assert_eq!((info.bytes_acked, info.rtt), (100, Duration::from_micros(12_345)));
    let mut raw = [0; 512];
    let len = stream.getsockopt(IPPROTO_TCP, 11, &mut raw).unwrap();
    assert_eq!(len, 236);
    assert_eq!(u32::from_ne_bytes(raw[68..72].try_into().unwrap()), 12_345);
    // Less room, less of it.
    assert_eq!(stream.getsockopt(IPPROTO_TCP, 11, &mut raw[..20]).unwrap(), 20);
    fake.with(|world| world.fail(handle, Errno::CONNRESET));
    assert_eq!(stream.tcp_info().unwrap().state, 7);
}

#[test]
fn an_error_is_told_once() {
    let fake = Fake::start(1);
    let (_, stream, handle) = accepted(&fake);
    let error = || {
        let mut value = [0; 4];
        assert_eq!(stream.getsockopt(SOL_SOCKET, 4, &mut value).unwrap(), 4);
        i32::from_ne_bytes(value)
    };
    assert_eq!(error(), 0);
    fake.with(|world| world.fail(handle, Errno::CONNRESET));
    assert_eq!((error(), error()), (Errno::CONNRESET.raw_os_error(), 0));
}

#[test]
fn linuxs_layouts() {
    let fake = Fake::start(1);
    let (listener, stream, _) = accepted(&fake);
    let get = |level, name| {
        let mut value = [0xee; 64];
        let len = stream.getsockopt(level, name, &mut value).unwrap();
        value[..len].to_vec()
    };
    let linger = [int(1), int(5)].concat();
    stream.setsockopt(SOL_SOCKET, 13, &linger).unwrap();
    assert_eq!(get(SOL_SOCKET, 13), linger);
    assert_eq!(errno_of(stream.setsockopt(SOL_SOCKET, 13, &int(1))), Errno::INVAL.raw_os_error());
    stream.setsockopt(SOL_SOCKET, 13, &[int(0), int(5)].concat()).unwrap();
    assert_eq!(get(SOL_SOCKET, 13), [int(0), int(0)].concat());

    let time = [3i64.to_ne_bytes(), 500_000i64.to_ne_bytes()].concat();
    stream.setsockopt(SOL_SOCKET, 20, &time).unwrap();
    assert_eq!(get(SOL_SOCKET, 20), time);
    assert_eq!(stream.read_timeout().unwrap(), Some(Duration::from_millis(3500)));
    let wrong = [0i64.to_ne_bytes(), 1_000_000i64.to_ne_bytes()].concat();
    assert_eq!(errno_of(stream.setsockopt(SOL_SOCKET, 21, &wrong)), Errno::DOM.raw_os_error());
    stream.setsockopt(SOL_SOCKET, 20, &[0; 16]).unwrap();
    assert_eq!(stream.read_timeout().unwrap(), None);

    stream.setsockopt(IPPROTO_TCP, 13, b"reno").unwrap();
    assert_eq!(get(IPPROTO_TCP, 13), b"reno\0\0\0\0\0\0\0\0\0\0\0\0");
    stream.setsockopt(IPPROTO_TCP, 8, &int(-1)).unwrap();
    assert_eq!(get(IPPROTO_TCP, 8), int(-1));
    stream.setsockopt(IPPROTO_TCP, 8, &int(1000)).unwrap();
    assert_eq!(get(IPPROTO_TCP, 8), int(120));
    stream.setsockopt(IPPROTO_TCP, 1, &int(17)).unwrap();
    assert_eq!(get(IPPROTO_TCP, 1), int(1));
    assert_eq!(errno_of(stream.setsockopt(IPPROTO_TCP, 1, &[1])), Errno::INVAL.raw_os_error());
    stream.setsockopt(SOL_SOCKET, 8, &int(5000)).unwrap();
    assert_eq!(get(SOL_SOCKET, 8), int(10_000));
    stream.setsockopt(IPPROTO_IP, 1, &int(0xff)).unwrap();
    assert_eq!(get(IPPROTO_IP, 1), int(0xfc));
    assert_eq!(
        errno_of(stream.setsockopt(IPPROTO_IPV6, 67, &int(256))),
        Errno::INVAL.raw_os_error()
    );
    assert_eq!(errno_of(stream.setsockopt(IPPROTO_TCP, 4, &int(-1))), Errno::INVAL.raw_os_error());
    assert_eq!((get(SOL_SOCKET, 3), get(SOL_SOCKET, 38)), (int(1).to_vec(), int(6).to_vec()));
    assert_eq!((get(SOL_SOCKET, 39), get(SOL_SOCKET, 30)), (int(2).to_vec(), int(0).to_vec()));
    let mut value = [0; 4];
    listener.getsockopt(SOL_SOCKET, 30, &mut value).unwrap();
    assert_eq!(value, int(1));
    // Out-of-band data comes in line; that cannot be turned off.
    stream.setsockopt(SOL_SOCKET, 10, &int(1)).unwrap();
    assert_eq!(
        errno_of(stream.setsockopt(SOL_SOCKET, 10, &int(0))),
        Errno::NOPROTOOPT.raw_os_error()
    );
}

/// A row of the table in the documentation.
struct Row<'a> {
    level: i32,
    name: i32,
    option: &'a str,
    stream: &'a str,
    listener: &'a str,
}

fn rows() -> Vec<Row<'static>> {
    // Flags follow, which end-to-end tests compare.
    let (table, _) = include_str!("../../OPTIONS.md").split_once("\n# Flags").unwrap();
    let lines = table.lines().filter(|line| line.starts_with("| ") && !line.contains("| level "));
    lines
        .filter(|line| !line.starts_with("| level"))
        .map(|line| {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            let level = match cells[1] {
                "SOL_SOCKET" => SOL_SOCKET,
                "IPPROTO_IP" => IPPROTO_IP,
                "IPPROTO_IPV6" => IPPROTO_IPV6,
                "IPPROTO_TCP" => IPPROTO_TCP,
                other => panic!("no level: {other}"),
            };
            let name = cells[3].parse().unwrap();
            Row { level, name, option: cells[2], stream: cells[4], listener: cells[5] }
        })
        .collect()
}

/// What the calls do, in the table's words.
fn offered(
    set: impl Fn(&[u8]) -> io::Result<()>,
    get: impl Fn(&mut [u8]) -> io::Result<usize>,
) -> String {
    let works = |result: io::Result<()>| match result {
        Ok(()) => true,
        Err(error) => error.raw_os_error() != Some(Errno::NOPROTOOPT.raw_os_error()),
    };
    // Ones in all words: a value that every option takes, or calls invalid.
    let value = [int(1); 8].concat();
    let words = [("set", works(set(&value))), ("get", works(get(&mut [0; 256]).map(|_| ())))];
    let words: Vec<&str> = words.iter().filter(|(_, on)| *on).map(|(word, _)| *word).collect();
    if words.is_empty() { "–".to_owned() } else { words.join(" ") }
}

#[test]
fn the_table_is_true() {
    let fake = Fake::start(1);
    let (listener, stream, _) = accepted(&fake);
    let rows = rows();
    assert!(rows.len() > 30);
    let of_stream = |level, name| {
        offered(
            |value| stream.setsockopt(level, name, value),
            |out| stream.getsockopt(level, name, out),
        )
    };
    let of_listener = |level, name| {
        offered(
            |value| listener.setsockopt(level, name, value),
            |out| listener.getsockopt(level, name, out),
        )
    };
    for Row { level, name, option, stream, listener } in &rows {
        assert_eq!(of_stream(*level, *name), *stream, "{option} of a stream");
        assert_eq!(of_listener(*level, *name), *listener, "{option} of a listener");
    }
    for level in [SOL_SOCKET, IPPROTO_IP, IPPROTO_TCP, IPPROTO_IPV6, 17, -1] {
        for name in -1..128 {
            if !rows.iter().any(|row| (row.level, row.name) == (level, name)) {
                assert_eq!(of_stream(level, name), "–", "{level} {name}");
                assert_eq!(of_listener(level, name), "–", "{level} {name}");
            }
        }
    }
}

#[test]
fn lingering_for_no_time_resets() {
    let fake = Fake::start(1);
    let (_, mut stream, handle) = accepted(&fake);
    stream.write_all(b"lost, perhaps").unwrap();
    stream.set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
    assert!(fake.until_closed(handle).abort);
}

/// Closes on another thread; what tells that it is done.
fn close_elsewhere(stream: TcpStream) -> (thread::JoinHandle<()>, mpsc::Receiver<()>) {
    let (done, is_done) = mpsc::channel();
    let closing = thread::spawn(move || {
        drop(stream);
        // Nobody may listen any more.
        let _ = done.send(());
    });
    (closing, is_done)
}

#[test]
fn closing_lingers_until_all_is_acknowledged() {
    for nonblocking in [false, true] {
        let fake = Fake::start(2);
        let (_listener, mut stream, handle) = accepted(&fake);
        fake.with(|world| world.hold_acks(handle, true));
        stream.set_linger(Some(Duration::from_secs(3600))).unwrap();
        stream.write_all(b"all of it").unwrap();
        stream.set_nonblocking(nonblocking).unwrap();
        let (closing, is_done) = close_elsewhere(stream);
        fake.until(|world| world.is_fin_sent(handle).then_some(()));
        assert_eq!(is_done.recv_timeout(Duration::from_millis(20)).ok(), None);
        assert_eq!(fake.with(|world| world.closed(handle)), None);
        fake.with(|world| world.hold_acks(handle, false));
        closing.join().unwrap();
        let closed = Closed { abort: false, sent: b"all of it".to_vec() };
        assert_eq!(fake.until_closed(handle), closed);
    }
}

#[test]
fn closing_lingers_no_longer_than_asked() {
    let fake = Fake::start(1);
    let (_listener, mut stream, handle) = accepted(&fake);
    fake.with(|world| world.hold_acks(handle, true));
    stream.set_linger(Some(Duration::from_secs(1))).unwrap();
    stream.write_all(b"on its way").unwrap();
    close_elsewhere(stream).0.join().unwrap();
    assert_eq!(fake.until_closed(handle), Closed { abort: false, sent: b"on its way".to_vec() });
}

#[test]
fn a_failure_ends_lingering() {
    let fake = Fake::start(1);
    let (_listener, stream, handle) = accepted(&fake);
    fake.with(|world| world.hold_acks(handle, true));
    stream.set_linger(Some(Duration::from_secs(3600))).unwrap();
    let (closing, _) = close_elsewhere(stream);
    fake.until(|world| world.is_fin_sent(handle).then_some(()));
    fake.with(|world| world.fail(handle, Errno::CONNRESET));
    closing.join().unwrap();
}

#[test]
fn unread_bytes_are_no_reason_to_linger() {
    let fake = Fake::start(1);
    let (_listener, mut stream, handle) = accepted(&fake);
    fake.with(|world| {
        world.peer_sends(handle, b"ab");
        world.hold_acks(handle, true);
    });
    assert_eq!(stream.read(&mut [0; 1]).unwrap(), 1);
    stream.set_linger(Some(Duration::from_secs(3600))).unwrap();
    drop(stream);
    fake.until_closed(handle);
    assert!(!fake.with(|world| world.is_fin_sent(handle)));
}
