// A program for `std::net`, included twice: after `use std::net::{TcpListener, TcpStream}` and
// after `use fourwave::{TcpListener, TcpStream}`. It tells what it sees, line by line, and nothing
// that may differ from run to run.

use std::fmt::{Debug, Write as _};
use std::io::{self, BufRead, BufReader, BufWriter, IoSlice, IoSliceMut, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, ToSocketAddrs};
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::thread;
use std::time::Duration;

/// What sockets of std are besides.
fn is_like_stds<T: Debug + Send + Sync + UnwindSafe + RefUnwindSafe + Unpin + 'static>(_: &T) {}

fn is_a_stream<T: Read + Write>(_: &T)
where
    for<'a> &'a T: Read + Write,
{
}

/// An outcome in words: errors by kind, as std's users tell them.
fn outcome<T: Debug>(result: io::Result<T>) -> String {
    match result {
        Ok(value) => format!("{value:?}"),
        Err(error) => format!("{:?}", error.kind()),
    }
}

/// Plays the server at `ip` and `port`, then the client of `peer`. Calls `ready` when it listens.
pub fn run(ip: IpAddr, port: u16, peer: SocketAddr, ready: impl FnOnce()) -> io::Result<String> {
    let mut said = String::new();
    let listener = listen(&mut said, ip, port)?;
    ready();
    first_connection(&mut said, &listener)?;
    many(&mut said, &listener)?;
    reset(&mut said, &listener)?;
    drop(listener);
    client(&mut said, peer)?;
    Ok(said)
}

fn listen(said: &mut String, ip: IpAddr, port: u16) -> io::Result<TcpListener> {
    let name = ip.to_string();
    let listener = TcpListener::bind((name.as_str(), port))?;
    is_like_stds(&listener);
    let address = listener.local_addr()?;
    writeln!(said, "bound as asked: {}", address == SocketAddr::new(ip, port)).unwrap();
    writeln!(said, "again: {}", outcome(TcpListener::bind(address).map(drop))).unwrap();
    let text = address.to_string();
    writeln!(said, "by a string: {}", outcome(TcpListener::bind(&text).map(drop))).unwrap();
    let nowhere: &[SocketAddr] = &[];
    writeln!(said, "nowhere: {}", outcome(TcpListener::bind(nowhere).map(drop))).unwrap();
    let both: Vec<SocketAddr> = (ip, 0).to_socket_addrs()?.collect();
    let second = TcpListener::bind(&[&[address], &both[..]].concat()[..])?;
    writeln!(said, "the second has a port: {}", second.local_addr()?.port() != 0).unwrap();

    listener.set_nonblocking(true)?;
    writeln!(said, "nobody yet: {}", outcome(listener.accept().map(drop))).unwrap();
    let mut incoming = listener.incoming();
    writeln!(said, "nobody comes: {:?}", incoming.next().map(|s| outcome(s.map(drop)))).unwrap();
    listener.set_nonblocking(false)?;
    writeln!(said, "error: {}", outcome(listener.take_error())).unwrap();
    writeln!(said, "named: {}", format!("{listener:?}").starts_with("TcpListener { addr: ")).unwrap();
    // The clone is the listener, whatever becomes of the original.
    let clone = listener.try_clone()?;
    drop(listener);
    Ok(clone)
}

fn first_connection(said: &mut String, listener: &TcpListener) -> io::Result<()> {
    let (mut stream, peer) = listener.accept()?;
    is_like_stds(&stream);
    is_a_stream(&stream);
    writeln!(said, "peer: {}", stream.peer_addr()? == peer).unwrap();
    writeln!(said, "ours: {}", stream.local_addr()? == listener.local_addr()?).unwrap();
    writeln!(said, "named: {}", format!("{stream:?}").starts_with("TcpStream { addr: ")).unwrap();
    writeln!(said, "error: {}", outcome(stream.take_error())).unwrap();

    let nodelay = stream.nodelay()?;
    stream.set_nodelay(true)?;
    writeln!(said, "nodelay: {nodelay}, then {}", stream.nodelay()?).unwrap();
    let zero = Some(Duration::ZERO);
    writeln!(said, "times: {:?} {:?}", stream.read_timeout()?, stream.write_timeout()?).unwrap();
    writeln!(said, "no time: {}", outcome(stream.set_read_timeout(zero))).unwrap();
    writeln!(said, "no time: {}", outcome(stream.set_write_timeout(zero))).unwrap();
    let short = Some(Duration::from_millis(20));
    stream.set_read_timeout(short)?;
    stream.set_write_timeout(short)?;
    writeln!(said, "times: {:?} {:?}", stream.read_timeout()?, stream.write_timeout()?).unwrap();
    writeln!(said, "in time: {}", outcome(stream.read(&mut [0; 8]))).unwrap();
    writeln!(said, "in time: {}", outcome(stream.peek(&mut [0; 8]))).unwrap();
    stream.set_read_timeout(None)?;
    stream.set_write_timeout(None)?;
    let clone = stream.try_clone()?;
    clone.set_nonblocking(true)?;
    writeln!(said, "nothing yet: {}", outcome(stream.read(&mut [0; 8]))).unwrap();
    clone.set_nonblocking(false)?;
    drop(clone);

    // The peer begins when it is told to.
    stream.write_all(b"go\n")?;
    let mut eleven = [0; 11];
    while stream.peek(&mut eleven)? < eleven.len() {
        thread::yield_now();
    }
    writeln!(said, "peeked: {}", String::from_utf8_lossy(&eleven)).unwrap();
    let (mut start, mut rest) = ([0; 5], [0; 10]);
    let slices = &mut [IoSliceMut::new(&mut start), IoSliceMut::new(&mut rest)];
    writeln!(said, "read: {}", stream.read_vectored(slices)?).unwrap();
    writeln!(said, "read: {start:?} {rest:?}").unwrap();
    let slices = [IoSlice::new(b"one "), IoSlice::new(b""), IoSlice::new(b"two\n")];
    writeln!(said, "written: {}", stream.write_vectored(&slices)?).unwrap();
    writeln!(said, "written: {}", stream.write(b"")?).unwrap();
    stream.flush()?;

    let mut lines = BufReader::new(&stream);
    for _ in 0..3 {
        let mut line = String::new();
        lines.read_line(&mut line)?;
        writeln!(said, "line: {line:?}").unwrap();
        let mut answers = BufWriter::new(&stream);
        write!(answers, "{} bytes", line.len())?;
        writeln!(answers)?;
    }
    let mut left = Vec::new();
    lines.read_to_end(&mut left)?;
    writeln!(said, "left: {} bytes", left.len()).unwrap();
    writeln!(said, "at the end: {}", outcome(stream.read(&mut [0; 8]))).unwrap();
    stream.write_all(&left)?;
    stream.shutdown(Shutdown::Write)?;
    writeln!(said, "shut: {}", outcome(stream.write(b"x"))).unwrap();
    writeln!(said, "no error: {}", outcome(stream.take_error())).unwrap();
    Ok(())
}

/// A thread for each connection.
fn many(said: &mut String, listener: &TcpListener) -> io::Result<()> {
    let echo = |stream: TcpStream| -> io::Result<u64> {
        let (mut reading, mut writing) = (stream.try_clone()?, stream);
        io::copy(&mut reading, &mut writing)
    };
    let mut total = 0;
    thread::scope(|scope| {
        let connections = listener.incoming().take(8);
        let threads: Vec<_> =
            connections.map(|stream| scope.spawn(move || echo(stream?))).collect();
        for thread in threads {
            total += thread.join().expect("no panic")?;
        }
        io::Result::Ok(())
    })?;
    writeln!(said, "echoed: {total}").unwrap();
    Ok(())
}

/// The peer sends four bytes and resets when they were read.
fn reset(said: &mut String, listener: &TcpListener) -> io::Result<()> {
    let (mut stream, _) = listener.accept()?;
    stream.read_exact(&mut [0; 4])?;
    stream.write_all(b"k")?;
    writeln!(said, "reset: {}", outcome(stream.read(&mut [0; 8]))).unwrap();
    writeln!(said, "then: {}", outcome(stream.read(&mut [0; 8]))).unwrap();
    writeln!(said, "then: {}", outcome(stream.write(b"x"))).unwrap();
    writeln!(said, "then: {}", outcome(stream.shutdown(Shutdown::Both))).unwrap();
    writeln!(said, "then: {}", outcome(stream.peer_addr().map(drop))).unwrap();
    Ok(())
}

/// The peer's listener echoes one connection; at the port above nobody listens.
fn client(said: &mut String, peer: SocketAddr) -> io::Result<()> {
    let second = Duration::from_secs(5);
    let closed = SocketAddr::new(peer.ip(), peer.port() + 1);
    writeln!(said, "refused: {}", outcome(TcpStream::connect(closed).map(drop))).unwrap();
    let refused = TcpStream::connect_timeout(&closed, second).map(drop);
    writeln!(said, "refused: {}", outcome(refused)).unwrap();
    let never = TcpStream::connect_timeout(&closed, Duration::ZERO).map(drop);
    writeln!(said, "no time: {}", outcome(never)).unwrap();
    let nowhere: &[SocketAddr] = &[];
    writeln!(said, "nowhere: {}", outcome(TcpStream::connect(nowhere).map(drop))).unwrap();

    let mut stream = TcpStream::connect(&[closed, peer][..])?;
    writeln!(said, "peer: {}", stream.peer_addr()? == peer).unwrap();
    writeln!(said, "family: {}", stream.local_addr()?.is_ipv4() == peer.is_ipv4()).unwrap();
    let bytes: Vec<u8> = (0..300_000u32).map(|n| (n * 7 + n / 251) as u8).collect();
    let expected = bytes.clone();
    let mut writing = stream.try_clone()?;
    let writer = thread::spawn(move || -> io::Result<()> {
        writing.write_all(&bytes)?;
        writing.shutdown(Shutdown::Write)
    });
    let mut echoed = Vec::new();
    stream.read_to_end(&mut echoed)?;
    writer.join().expect("no panic")?;
    writeln!(said, "as sent: {}", echoed == expected).unwrap();
    Ok(())
}
