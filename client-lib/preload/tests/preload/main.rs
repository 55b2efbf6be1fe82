//! The preloaded library under Python, with a daemon in the test's process or without one. No
//! privilege needed.

#[allow(dead_code, reason = "the client library's tests use all of it")]
#[path = "../../../tests/client/fake/mod.rs"]
mod fake;

use fake::Fake;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const PYTHON: &str = "/usr/bin/python3";

/// The library. Cargo does not build it for tests, which cannot link it.
fn library() -> PathBuf {
    let executable = std::env::current_exe().unwrap();
    let folder = executable.parent().unwrap();
    let name = "libfourwave_preload.so";
    let places = [folder.join(name), folder.parent().unwrap().join(name)];
    let newest = |path: &PathBuf| path.metadata().and_then(|meta| meta.modified()).ok();
    places
        .into_iter()
        .filter(|path| path.is_file())
        .max_by_key(newest)
        .expect("cargo build -p fourwave-preload")
}

/// Runs a Python program with the library under it. `None`, and says so, without Python.
fn run(script: &str, socket: &Path, variables: &[(&str, &str)]) -> Option<Output> {
    if !Path::new(PYTHON).exists() {
        assert!(std::env::var_os("CI").is_none(), "no {PYTHON}");
        eprintln!("skipped: no {PYTHON}");
        return None;
    }
    let output = Command::new(PYTHON)
        .args(["-c", script])
        .env("LD_PRELOAD", library())
        .env("FOURWAVE_SOCKET", socket)
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    Some(output)
}

/// Standard error of a program that has to succeed.
fn said(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{:?}\n{text}", output.status);
    text
}

fn nowhere() -> &'static Path {
    Path::new("/nonexistent/control.sock")
}

#[test]
fn without_a_daemon_the_reason_is_said_once() {
    let script = "
import errno, socket
for _ in range(2):
    with socket.socket() as s:
        try:
            s.bind(('0.0.0.0', 7000))
            raise SystemExit('bound')
        except OSError as e:
            assert e.errno == errno.ENETDOWN, e
    with socket.socket() as s:
        try:
            s.connect(('10.99.0.2', 7000))
            raise SystemExit('connected')
        except OSError as e:
            assert e.errno == errno.ENETDOWN, e
# Everything else is the kernel's.
with socket.create_server(('127.0.0.1', 0)) as server:
    with socket.create_connection(server.getsockname()) as client:
        peer, _ = server.accept()
        peer.sendall(b'kernel')
        peer.close()
        assert client.recv(10) == b'kernel'
";
    let variables = [("FOURWAVE_PORTS", "7000"), ("FOURWAVE_CONNECT", "10.99.0.2:7000")];
    let Some(output) = run(script, nowhere(), &variables) else { return };
    let text = said(&output);
    assert_eq!(text.matches("/nonexistent/control.sock").count(), 1, "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
}

/// A first call may come from a signal handler, where the dynamic linker must not be asked.
#[test]
fn functions_are_found_before_the_program_begins() {
    let script = "
import os, select, socket
a, b = socket.socketpair()
os.write(2, b'BEGIN')
a.shutdown(socket.SHUT_WR)
select.poll().poll(0)
b.recv(1)
os.close(os.dup(0))
os.write(2, b'END')
";
    // The linker says which symbols it looks up.
    let variables = [("FOURWAVE_PORTS", "7000"), ("LD_DEBUG", "symbols"), ("LD_BIND_NOW", "1")];
    let Some(output) = run(script, nowhere(), &variables) else { return };
    let text = said(&output);
    let (before, rest) = text.split_once("BEGIN").expect("it began");
    let (during, _) = rest.split_once("END").expect("it ended");
    for name in ["shutdown", "poll", "recv", "close", "dup"] {
        let lookup = format!("symbol={name};");
        assert!(before.contains(&lookup) && !during.contains(&lookup), "{name}: {during}");
    }
}

#[test]
fn the_kernel_can_stand_in() {
    let script = "
import socket
with socket.socket() as s:
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(('0.0.0.0', 0))
    free = s.getsockname()[1]
for _ in range(2):
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(('0.0.0.0', free))
        s.listen()
        with socket.create_connection(('127.0.0.1', free)) as client:
            peer, _ = s.accept()
            client.sendall(b'kernel')
            assert peer.recv(10) == b'kernel'
            peer.close()
";
    let variables = [("FOURWAVE_PORTS", "1-65535"), ("FOURWAVE_FALLBACK", "kernel")];
    let Some(output) = run(script, nowhere(), &variables) else { return };
    let text = said(&output);
    assert_eq!(text.matches("kernel sockets are used").count(), 1, "{text}");
}

#[test]
fn mistakes_are_said_where_sockets_are_made() {
    let variables = [("FOURWAVE_PORTS", "http"), ("FOURWAVE_CONNECT", "10.0.0.0/99")];
    let Some(output) = run("import os", nowhere(), &variables) else { return };
    assert_eq!(said(&output), "");
    let script = "import socket; socket.socket().close(); socket.socket().close()";
    let text = said(&run(script, nowhere(), &variables).unwrap());
    assert_eq!((text.lines().count(), text.matches("http").count()), (2, 1), "{text}");
}

#[test]
fn programs_that_close_everything_go_on() {
    let text = run_with_pair(
        "
first, limit = listener.fileno() + 1, 4096
for fd in [client, server]:
    assert fd.detach() >= first
os.closerange(first, limit)
def try_to_close(fd):
    try:
        os.close(fd)
    except OSError:
        pass
for fd in range(first, limit):
    try_to_close(fd)
libc.close_range(first, 0xffffffff, 0)
libc.closefrom(first)
# What carries the sockets is still there.
client, server = pair()
client.sendall(b'on')
assert server.recv(10) == b'on'
",
    );
    assert!(text.is_none_or(|text| text.is_empty()));
}

/// Two ends of a fourwave connection, `client` and `server`, of the program itself.
const PAIR: &str = "
import array, ctypes, errno, os, select, signal, socket, subprocess, sys, threading, time
listener = socket.create_server(('10.99.0.2', 7000))
def pair():
    client = socket.create_connection(('10.99.0.2', 7000))
    server, _ = listener.accept()
    return client, server
def fails(number, call, *arguments):
    try:
        call(*arguments)
    except OSError as e:
        assert e.errno == number, e
    else:
        raise AssertionError(call, arguments)
libc = ctypes.CDLL(None, use_errno=True)
client, server = pair()
assert client.getpeername() == ('10.99.0.2', 7000)
";

/// Runs a program that has a pair, with a daemon of its own.
fn run_with_pair(script: &str) -> Option<String> {
    let fake = Fake::start(2);
    let variables = [("FOURWAVE_PORTS", "7000"), ("FOURWAVE_CONNECT", "10.99.0.2")];
    let output = run(&format!("{PAIR}{script}"), &fake.path(), &variables)?;
    Some(said(&output))
}

#[test]
fn sockets_are_not_handed_on() {
    let text = run_with_pair(
        "
here, there = socket.socketpair()
fails(errno.EOPNOTSUPP, socket.send_fds, here, [b'x'], [server.fileno()])
fails(errno.EOPNOTSUPP, socket.send_fds, here, [b'x'], [0, server.fileno()])
# The kernel's are.
socket.send_fds(here, [b'x'], [0])
_, fds, _, _ = socket.recv_fds(there, 1, 4)
os.close(fds[0])
",
    );
    let Some(text) = text else { return };
    assert_eq!((text.matches("SCM_RIGHTS").count(), text.lines().count()), (1, 1), "{text}");
}

#[test]
fn other_programs_get_none() {
    let text = run_with_pair(
        "
code = '''
import errno, os, sys
try:
    os.read(int(sys.argv[1]), 1)
except OSError as e:
    print(errno.errorcode[e.errno])
'''
fd = server.fileno()
def child(**options):
    done = subprocess.run([sys.executable, '-c', code, str(fd)], stdout=subprocess.PIPE, **options)
    return done.stdout.strip()
assert child(pass_fds=[fd]) == b'ENOTCONN'
assert child() == b'EBADF'
assert child(close_fds=False) == b'EBADF'
# The sockets are still there.
client.sendall(b'after')
assert server.recv(10) == b'after'
",
    );
    assert!(text.is_none_or(|text| text.is_empty()));
}

#[test]
fn numbers_are_closed_in_many_ways() {
    let text = run_with_pair(
        "
fd = server.fileno()
os.closerange(fd, fd + 1)
assert client.recv(1) == b''
fails(errno.EBADF, os.close, fd)
server.detach()
client, server = pair()
fd = server.detach()
os.close(fd)
assert client.recv(1) == b''
# Kept for the next socket, and closed all the same.
fails(errno.EBADF, os.close, fd)
fails(errno.EBADF, os.dup, fd)
fails(errno.EBADF, os.set_inheritable, fd, True)
client, server = pair()
assert server.fileno() == fd
# A file can take its place.
null = os.open('/dev/null', os.O_RDONLY)
os.dup2(null, fd)
assert client.recv(1) == b''
assert os.read(fd, 1) == b''
server.close()
",
    );
    assert!(text.is_none_or(|text| text.is_empty()));
}

/// What a program of C does with `FILE`.
const STDIO: &str = "
stream_of = libc.fdopen
stream_of.restype = ctypes.c_void_p
def fdopen(fd, mode):
    return ctypes.c_void_p(stream_of(fd, mode))
def gets(stream):
    line = ctypes.create_string_buffer(100)
    return libc.fgets(line, 100, stream) and line.value
";

#[test]
fn sockets_have_streams() {
    let text = run_with_pair(&format!(
        "{STDIO}
client.settimeout(10)
fd = server.detach()
other = os.dup(fd)
reading, writing = fdopen(fd, b'r'), fdopen(other, b'w')
assert (libc.fileno(reading), libc.fileno_unlocked(writing)) == (fd, other)
client.sendall(b'one\\ntwo\\nthree')
assert (gets(reading), gets(reading)) == (b'one\\n', b'two\\n')
assert libc.fputs(b'kept until ', writing) >= 0
client.setblocking(False)
fails(errno.EAGAIN, client.recv, 1)
client.settimeout(10)
assert libc.fputs(b'it is flushed', writing) >= 0 and libc.fflush(writing) == 0
assert client.recv(100) == b'kept until it is flushed'
assert libc.fseek(reading, 0, 0) == -1
client.shutdown(socket.SHUT_WR)
assert gets(reading) == b'three' and not gets(reading) and libc.feof(reading)
# More than the socket takes at once.
bulk = bytes(range(256)) * 4000
got = []
def take():
    while sum(map(len, got)) < len(bulk):
        got.append(client.recv(65536))
taking = threading.Thread(target=take)
taking.start()
assert libc.fwrite(bulk, 1, len(bulk), writing) == len(bulk) and libc.fflush(writing) == 0
taking.join()
assert b''.join(got) == bulk
assert libc.fclose(writing) == 0
client.setblocking(False)
fails(errno.EAGAIN, client.recv, 1)
client.settimeout(10)
assert libc.fclose(reading) == 0 and client.recv(1) == b''
fails(errno.EBADF, os.close, fd)
# A stream over something else, also one that has the address of one of ours.
null = fdopen(os.open('/dev/null', os.O_RDWR), b'r+')
assert libc.fileno(null) >= 0 and libc.fputs(b'x', null) >= 0 and libc.fclose(null) == 0
for round in range(3):
    client, server = pair()
    stream = fdopen(server.detach(), b'r+')
    client.sendall(b'all\\n')
    assert gets(stream) == b'all\\n' and libc.fputs(b'the same\\n', stream) >= 0
    assert libc.fclose(stream) == 0 and client.recv(100) == b'the same\\n'
assert not fdopen(os.dup(client.fileno()), b'nonsense')
"
    ));
    assert!(text.is_none_or(|text| text.is_empty()));
}

/// libc closes the number of a stream by itself.
#[test]
fn a_stream_leaves_nothing_behind_its_number() {
    let text = run_with_pair(&format!(
        "{STDIO}
# A stream that was there before the socket was ours.
with socket.socket() as fresh:
    fd = fresh.detach()
stream = fdopen(fd, b'r+')
same = socket.socket(fileno=os.dup(fd))
same.connect(('10.99.0.2', 7000))
peer, _ = listener.accept()
same.close()
assert libc.fclose(stream) == 0
peer.settimeout(10)
assert peer.recv(1) == b''
files = []
while fd not in files:
    files.append(os.open('/dev/zero', os.O_RDONLY))
assert os.read(fd, 1) == bytes(1)
"
    ));
    assert!(text.is_none_or(|text| text.is_empty()));
}

#[test]
fn calls_by_number() {
    let text = run_with_pair(
        "
import platform
if platform.machine() == 'x86_64':
    client.send(b'abc')
    buffer = ctypes.create_string_buffer(8)
    server.setblocking(True)
    # recvfrom, sendto, accept4
    assert libc.syscall(45, server.fileno(), buffer, 8, socket.MSG_PEEK, 0, 0) == 3
    assert buffer.raw[:3] == b'abc'
    assert libc.syscall(44, server.fileno(), b'defg', 4, socket.MSG_NOSIGNAL, 0, 0) == 4
    assert client.recv(8) == b'defg'
    listener.setblocking(False)
    assert libc.syscall(288, listener.fileno(), 0, 0, 0) == -1
    assert ctypes.get_errno() == errno.EAGAIN
    assert libc.syscall(39) == os.getpid()
    # __recv_chk, __poll_chk
    assert libc.__recv_chk(server.fileno(), buffer, 8, 8, 0) == 3
    client.send(b'x')
    entry = (ctypes.c_int * 2)(server.fileno(), select.POLLIN)
    assert libc.__poll_chk(entry, 1, -1, 8) == 1
",
    );
    assert!(text.is_none_or(|text| text.is_empty()));
}

#[test]
fn a_listener_that_is_shut_wakes_who_waits() {
    let text = run_with_pair(
        "
def accept():
    fails(errno.EINVAL, listener.accept)
    ended.append(True)
ended = []
threads = [threading.Thread(target=accept) for _ in range(2)]
for thread in threads:
    thread.start()
time.sleep(0.01)
listener.shutdown(socket.SHUT_RDWR)
for thread in threads:
    thread.join()
assert ended == [True, True]
fails(errno.EINVAL, listener.accept)
",
    );
    assert!(text.is_none_or(|text| text.is_empty()));
}

#[test]
fn sleepers_notice_their_first_socket() {
    // The instance is the kernel's own when the thread goes to sleep in it.
    let text = run_with_pair(
        "
poll = select.epoll()
told = []
thread = threading.Thread(target=lambda: told.append(poll.poll()))
thread.start()
time.sleep(0.01)
poll.register(server, select.EPOLLIN)
time.sleep(0.01)
client.send(b'x')
thread.join()
assert told == [[(server.fileno(), select.EPOLLIN)]], told
",
    );
    assert!(text.is_none_or(|text| text.is_empty()));
}
