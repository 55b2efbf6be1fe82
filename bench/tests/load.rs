//! The load generator against servers on loopback that behave in known ways.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;
use std::time::Duration;

use fourwave_bench::load::{self, LoadConfig, LoadReport, Sources, Until};
use fourwave_bench::server::{ServerConfig, kernel, uring};

fn config_of(target: SocketAddr) -> LoadConfig {
    LoadConfig {
        sources: Vec::new(),
        first_source: 0,
        size: 64,
        concurrency: 4,
        rate: None,
        until: Until::Connections(20),
        timeout: Duration::from_secs(20),
        ..LoadConfig::new(target)
    }
}

fn run(config: &LoadConfig) -> LoadReport {
    load::kernel::run(config).unwrap()
}

/// A port on an address that no other test uses: it stays free when this returns.
fn free_port() -> SocketAddr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let address = Ipv4Addr::new(127, 44, 8, NEXT.fetch_add(1, Ordering::Relaxed));
    TcpListener::bind((address, 0)).unwrap().local_addr().unwrap()
}

/// A server that does `behave` with each connection, until the test ends.
fn server(behave: impl Fn(TcpStream) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || listener.incoming().flatten().for_each(behave));
    address
}

fn read_64(stream: &mut TcpStream) -> [u8; 64] {
    let mut bytes = [0; 64];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

/// How a kernel server does its work.
type Serve = fn(&ServerConfig) -> std::io::Result<()>;

/// The echo server under test elsewhere, in a thread that lives as long as the process.
fn echo_server(size: usize) -> SocketAddr {
    echo_server_of(kernel::serve, ServerConfig::new(Vec::new(), size))
}

fn echo_server_of(serve: Serve, mut config: ServerConfig) -> SocketAddr {
    let free = free_port();
    config.listen = vec![free];
    thread::spawn(move || serve(&config));
    while TcpStream::connect(free).is_err() {
        thread::yield_now();
    }
    free
}

/// Those that can be used here.
fn kernel_servers() -> Vec<Serve> {
    let mut servers: Vec<Serve> = vec![kernel::serve];
    match uring::check() {
        Ok(()) => servers.push(uring::serve),
        Err(problem) => eprintln!("skipped: {problem}"),
    }
    servers
}

fn only(name: &str, count: u64) -> BTreeMap<String, u64> {
    BTreeMap::from([(name.to_owned(), count)])
}

#[test]
fn every_connection_of_a_good_server_completes() {
    let report = run(&LoadConfig { until: Until::Connections(500), ..config_of(echo_server(64)) });
    assert_eq!((report.started, report.completed), (500, 500), "{:?}", report.errors);
    assert_eq!((report.connect_latency.count(), report.completed_in_window), (500, 500));
}

#[test]
fn every_kind_of_kernel_server_echoes_and_closes() {
    let cpus = fourwave_bench::machine::cpus().unwrap();
    for serve in kernel_servers() {
        for (defer_accept, threads) in [(false, 1), (true, 1), (false, 2)] {
            let cpus = cpus.iter().copied().cycle().take(threads).collect();
            let config = ServerConfig { cpus, defer_accept, ..ServerConfig::new(Vec::new(), 64) };
            let target = echo_server_of(serve, config);
            let report = run(&LoadConfig { until: Until::Connections(500), ..config_of(target) });
            assert_eq!((report.completed, report.error_count()), (500, 0), "{:?}", report.errors);
            assert_eq!(report.reply_latency.count(), 500);
        }
    }
}

#[test]
fn a_request_that_never_becomes_whole_ends_its_connection_only() {
    for serve in kernel_servers() {
        let target = echo_server_of(serve, ServerConfig::new(Vec::new(), 64));
        for part in [0, 1, 63] {
            let mut stream = TcpStream::connect(target).unwrap();
            stream.write_all(&[7; 64][..part]).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            let mut rest = Vec::new();
            // What came before the end may come back: then the server closes.
            let _ = stream.read_to_end(&mut rest);
            assert!(rest.len() <= part);
        }
        let report = run(&config_of(target));
        assert_eq!((report.completed, report.error_count()), (20, 0), "{:?}", report.errors);
    }
}

#[test]
fn kept_connections_make_one_request_after_another() {
    for serve in kernel_servers() {
        let target = echo_server_of(serve, ServerConfig::new(Vec::new(), 0));
        let mut length = Duration::from_millis(200);
        loop {
            let until = Until::Elapsed(length);
            let report = run(&LoadConfig { keep_alive: true, until, ..config_of(target) });
            assert_eq!((report.completed, report.error_count()), (4, 0), "{:?}", report.errors);
            assert!(report.reply_latency.count() >= report.replies_in_window);
            if report.replies_in_window > 40 {
                break;
            }
            // Something else may have had the CPU nearly all the while.
            assert!(length < Duration::from_secs(10), "{} in {length:?}", report.replies_in_window);
            length *= 2;
        }
    }
}

#[test]
fn accepts_are_told_by_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let stamps = Some(folder.path().join("stamps"));
    for serve in kernel_servers() {
        let server = ServerConfig { stamps: stamps.clone(), ..ServerConfig::new(Vec::new(), 64) };
        let config = LoadConfig {
            sources: vec![Ipv4Addr::new(127, 44, 9, 1).into()],
            until: Until::Connections(640),
            stamps: stamps.clone(),
            ..config_of(echo_server_of(serve, server))
        };
        let report = run(&config);
        assert_eq!(report.error_count(), 0, "{:?}", report.errors);
        // One of 16, and the server had one connection more to begin with.
        assert!((39..=41).contains(&report.accept_latency.count()), "{report:?}");
    }
}

#[test]
fn a_megabyte_goes_there_and_back() {
    let size = 1 << 20;
    let report = run(&LoadConfig { size, ..config_of(echo_server(size)) });
    assert_eq!((report.completed, report.error_count()), (20, 0), "{:?}", report.errors);
}

#[test]
fn an_open_loop_ends_what_it_started() {
    let rate = Some(2000.0);
    let report =
        run(&LoadConfig { rate, until: Until::Connections(200), ..config_of(echo_server(64)) });
    assert_eq!((report.completed, report.error_count()), (200, 0), "{:?}", report.errors);
}

#[test]
fn refusals_are_counted_by_errno() {
    let report = run(&config_of(free_port()));
    assert_eq!((report.completed, report.errors), (0, only("ECONNREFUSED", 20)));
    assert_eq!(report.connect_latency.count(), 0);
}

#[test]
fn one_wrong_byte_is_noticed() {
    let report = run(&config_of(server(|mut stream| {
        let mut bytes = read_64(&mut stream);
        bytes[63] ^= 1;
        stream.write_all(&bytes).unwrap();
    })));
    assert_eq!((report.completed, report.errors), (0, only("wrong echo", 20)));
}

#[test]
fn bytes_of_another_connection_are_noticed() {
    let first = std::sync::Mutex::new(None);
    let report = run(&config_of(server(move |mut stream| {
        let bytes = read_64(&mut stream);
        let always = *first.lock().unwrap().get_or_insert(bytes);
        stream.write_all(&always).unwrap();
    })));
    assert_eq!((report.completed, report.errors), (1, only("wrong echo", 19)));
}

#[test]
fn one_byte_more_or_less_is_noticed() {
    let more = run(&config_of(server(|mut stream| {
        let mut bytes = read_64(&mut stream).to_vec();
        bytes.push(0);
        stream.write_all(&bytes).unwrap();
    })));
    assert_eq!((more.completed, more.errors), (0, only("wrong echo", 20)));
    let less = run(&config_of(server(|mut stream| {
        let bytes = read_64(&mut stream);
        stream.write_all(&bytes[..63]).unwrap();
    })));
    assert_eq!((less.completed, less.errors), (0, only("short echo", 20)));
}

#[test]
fn silence_is_a_timeout() {
    let held = std::sync::Mutex::new(Vec::new());
    let silent = server(move |stream| held.lock().unwrap().push(stream));
    let report = run(&LoadConfig { timeout: Duration::from_millis(50), ..config_of(silent) });
    assert_eq!((report.completed, report.errors), (0, only("timeout", 20)));
}

#[test]
fn a_taken_port_is_skipped() {
    // Numbers of pairs count from port 1024 of the first address. The address is this test's own.
    let address = Ipv4Addr::new(127, 44, 7, 1);
    let taken = TcpListener::bind((address, 0)).unwrap();
    let first_source = u64::from(taken.local_addr().unwrap().port()) - 1024;
    let sources = vec![address.into()];
    let expected = Sources::new(sources.clone(), first_source + 21).unwrap().position();
    let report = run(&LoadConfig { sources, first_source, ..config_of(echo_server(64)) });
    assert_eq!((report.completed, report.error_count()), (20, 0), "{:?}", report.errors);
    assert_eq!((report.ports_skipped, report.next_source), (1, expected));
}
