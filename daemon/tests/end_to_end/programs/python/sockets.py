"""What Python's socket, select and selectors modules do, as a transcript.

usage: sockets.py CONTROL OWN_ADDRESS PEER_ADDRESS PORT [SCENARIO...]

Nothing in the transcript may depend on time or on what the kernel chooses (ports, sizes of
buffers), so that it is the same on every TCP that behaves as Linux's does. The other end is
peer.py, told over the Unix socket CONTROL what to do.
"""

import array
import ctypes
import errno
import fcntl
import json
import os
import select
import selectors
import signal
import socket
import stat
import struct
import sys
import tempfile
import termios
import threading
import time

from peer import PATIENCE, pattern, summary

SCENARIOS = []


def scenario(function):
    SCENARIOS.append(function)
    return function


class Stage:
    """The addresses, the other end, and what a scenario opened."""

    def __init__(self, control, own, peer, port):
        self.own, self.peer, self.port = own, peer, port
        self.control = socket.socket(socket.AF_UNIX)
        self.control.connect(control)
        self.lines = self.control.makefile("rw")
        self.opened = []
        self.names = 0

    def tell(self, method, *arguments):
        """Has the other end do something; returns its answer."""
        self.lines.write(json.dumps([method, *arguments]) + "\n")
        self.lines.flush()
        return json.loads(self.lines.readline())

    def keep(self, sock):
        self.opened.append(sock)
        return sock

    def tcp(self):
        return self.keep(socket.socket(socket.AF_INET, socket.SOCK_STREAM))

    def name(self):
        self.names += 1
        return f"s{self.names}"

    def listener(self, backlog=16):
        sock = self.tcp()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((self.own, self.port))
        sock.listen(backlog)
        sock.settimeout(PATIENCE)
        return sock

    def accepted(self):
        """A connection that the other end opened: our socket, its name there."""
        name = self.name()
        with self.listener() as listener:
            self.tell("connect", name, self.own, self.port)
            stream, _ = listener.accept()
        stream.settimeout(PATIENCE)
        return self.keep(stream), name

    def opened_pair(self):
        """A connection that we opened."""
        listener, name = self.name(), self.name()
        port = self.tell("listen", listener)
        stream = self.keep(socket.create_connection((self.peer, port), timeout=PATIENCE))
        self.tell("accept", listener, name)
        self.tell("close", listener)
        return stream, name

    def free_peer_port(self):
        """A port of the other end that nobody listens on."""
        name = self.name()
        port = self.tell("listen", name)
        self.tell("close", name)
        return port

    def clean(self):
        for sock in self.opened:
            sock.close()
        self.opened.clear()


def say(label, *values):
    print(f"  {label}:", *values, flush=True)


def attempt(label, call, *arguments):
    """Writes down what a call returns or raises."""
    try:
        say(label, show(call(*arguments)))
    except TimeoutError as error:
        # A timeout of Python's own has no errno; ETIMEDOUT is another thing.
        say(label, "ETIMEDOUT" if error.errno == errno.ETIMEDOUT else "timed out")
    except OSError as error:
        say(label, errno.errorcode.get(error.errno, repr(error)))


def show(value):
    if isinstance(value, bytes) and len(value) > 64:
        return summary(value)
    if isinstance(value, socket.socket):
        return "socket"
    return repr(value)


EVENTS = [
    (select.EPOLLIN, "IN"),
    (select.EPOLLPRI, "PRI"),
    (select.EPOLLOUT, "OUT"),
    (select.EPOLLERR, "ERR"),
    (select.EPOLLHUP, "HUP"),
    (select.EPOLLRDHUP, "RDHUP"),
]


def events(mask):
    return "|".join(name for bit, name in EVENTS if mask & bit) or "none"


ALL = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLPRI


def ready(sock, wanted=ALL, patience=0.0):
    """What poll says, and what a fresh epoll says: the two must agree."""
    poll = select.poll()
    poll.register(sock, wanted)
    polled = poll.poll(patience * 1000)
    with select.epoll() as epoll:
        epoll.register(sock, wanted)
        epolled = epoll.poll(patience)
    masks = {events(mask) for _, mask in polled}, {events(mask) for _, mask in epolled}
    return " / ".join("|".join(sorted(mask)) or "none" for mask in masks)


def wait_readable(sock):
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    assert poll.poll(PATIENCE * 1000), "nothing comes"


def until_over(sock):
    """Waits for the acknowledgement of our FIN, the last that comes."""
    deadline = time.monotonic() + PATIENCE
    try:
        while sock.getpeername() and time.monotonic() < deadline:
            time.sleep(0.001)
    except OSError:
        pass


def receive(sock, size):
    data = bytearray()
    while len(data) < size:
        part = sock.recv(size - len(data))
        if not part:
            break
        data += part
    return bytes(data)


@scenario
def fresh_socket(stage):
    sock = stage.tcp()
    say("small descriptor", sock.fileno() < 100)
    say("is a socket", stat.S_ISSOCK(os.fstat(sock.fileno()).st_mode))
    say("kind", sock.family.name, sock.type.name, sock.proto)
    for name in ["SO_TYPE", "SO_DOMAIN", "SO_PROTOCOL", "SO_ERROR", "SO_ACCEPTCONN"]:
        attempt(name, sock.getsockopt, socket.SOL_SOCKET, getattr(socket, name))
    attempt("name", sock.getsockname)
    attempt("peer", sock.getpeername)
    attempt("recv", sock.recv, 1)
    attempt("send", sock.send, b"x", socket.MSG_NOSIGNAL)
    attempt("shutdown", sock.shutdown, socket.SHUT_RDWR)
    attempt("accept", sock.accept)
    say("poll", ready(sock))
    sock.close()
    attempt("closed", sock.recv, 1)
    attempt("bad descriptor", os.fstat, 10_000)


@scenario
def options(stage):
    stream, name = stage.accepted()
    for level, option, value in [
        (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
        (socket.SOL_SOCKET, "SO_OOBINLINE", 1),
        (socket.IPPROTO_TCP, "TCP_NODELAY", 1),
        (socket.IPPROTO_TCP, "TCP_CORK", 1),
        (socket.IPPROTO_TCP, "TCP_CORK", 0),
        (socket.IPPROTO_TCP, "TCP_KEEPIDLE", 77),
        (socket.IPPROTO_TCP, "TCP_KEEPINTVL", 7),
        (socket.IPPROTO_TCP, "TCP_KEEPCNT", 3),
        (socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", 30_000),
        (socket.IPPROTO_TCP, "TCP_LINGER2", 11),
        (socket.IPPROTO_IP, "IP_TOS", 0x10),
        (socket.IPPROTO_IP, "IP_TTL", 9),
        (socket.IPPROTO_IP, "IP_TTL", 0),
        (socket.IPPROTO_IP, "IP_TTL", 256),
        (socket.IPPROTO_IP, "IP_TTL", -1),
    ]:
        number = getattr(socket, option)
        attempt(f"set {option} {value}", stream.setsockopt, level, number, value)
        attempt(f"get {option}", stream.getsockopt, level, number)
    for option, value in [("SO_REUSEADDR", 0), ("SO_REUSEADDR", 1), ("SO_REUSEPORT", 1), ("SO_RCVLOWAT", 1)]:
        number = getattr(socket, option)
        attempt(f"get {option}", stream.getsockopt, socket.SOL_SOCKET, number)
        attempt(f"set {option} {value}", stream.setsockopt, socket.SOL_SOCKET, number, value)
        attempt(f"get {option}", stream.getsockopt, socket.SOL_SOCKET, number)
    attempt("get SO_SNDLOWAT", stream.getsockopt, socket.SOL_SOCKET, socket.SO_SNDLOWAT)
    attempt("set SO_SNDLOWAT", stream.setsockopt, socket.SOL_SOCKET, socket.SO_SNDLOWAT, 1)
    attempt("IPV6_V6ONLY", stream.setsockopt, socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    attempt("IPV6_V6ONLY", stream.getsockopt, socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
    linger = struct.pack("ii", 1, 5)
    attempt("set SO_LINGER", stream.setsockopt, socket.SOL_SOCKET, socket.SO_LINGER, linger)
    attempt("get SO_LINGER", stream.getsockopt, socket.SOL_SOCKET, socket.SO_LINGER, 8)
    linger = struct.pack("ii", 0, 0)
    attempt("clear SO_LINGER", stream.setsockopt, socket.SOL_SOCKET, socket.SO_LINGER, linger)
    limit = struct.pack("ll", 3, 500_000)
    for option in [socket.SO_RCVTIMEO, socket.SO_SNDTIMEO]:
        attempt("set a time limit", stream.setsockopt, socket.SOL_SOCKET, option, limit)
        attempt("get a time limit", stream.getsockopt, socket.SOL_SOCKET, option, 16)
    size = stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)
    say("MSS is sensible", 500 < size <= 1460)
    info = stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    say("TCP_INFO state", info[0])
    for option in [socket.SO_RCVBUF, socket.SO_SNDBUF]:
        attempt("set a buffer", stream.setsockopt, socket.SOL_SOCKET, option, 50_000)
        attempt("twice that", stream.getsockopt, socket.SOL_SOCKET, option)
    attempt("too short", stream.setsockopt, socket.SOL_SOCKET, socket.SO_KEEPALIVE, b"\1")
    attempt("unknown option", stream.setsockopt, socket.IPPROTO_TCP, 9999, 1)
    attempt("unknown option", stream.getsockopt, socket.IPPROTO_TCP, 9999)
    attempt("FIONREAD", fionread, stream)
    stage.tell("say", name, "hello")
    wait_readable(stream)
    attempt("FIONREAD", fionread, stream)
    stream.sendall(b"out")
    say("heard", stage.tell("hear", name, 3))
    until_over_the_line(stream)
    attempt("nobody is signalled", fcntl.ioctl, stream, 0x5452, struct.pack("i", 0))
    lo = fcntl.ioctl(stream, 0x8933, struct.pack("16si20x", b"lo", 0))
    say("interfaces", struct.unpack("16si20x", lo)[1])
    attempt("ioctl of terminals", fcntl.ioctl, stream, termios.TIOCGWINSZ, bytes(8))


def until_over_the_line(sock):
    """Until all that was sent is acknowledged, by SIOCOUTQ and SIOCOUTQNSD."""
    deadline = time.monotonic() + PATIENCE
    for request in [termios.TIOCOUTQ, 0x894B]:
        count = array.array("i", [1])
        while count[0] and time.monotonic() < deadline:
            fcntl.ioctl(sock, request, count)
        say("on the line", count[0])


def fionread(sock):
    count = array.array("i", [0])
    fcntl.ioctl(sock, termios.FIONREAD, count)
    return count[0]


@scenario
def binding(stage):
    sock = stage.tcp()
    attempt("foreign address", sock.bind, ("192.0.2.1", stage.port))
    attempt("bind", sock.bind, (stage.own, stage.port))
    attempt("bind again", sock.bind, (stage.own, stage.port))
    say("name", sock.getsockname() == (stage.own, stage.port))
    say("listening", sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    attempt("listen", sock.listen, 5)
    say("listening", sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    attempt("listen again", sock.listen, 7)
    other = stage.tcp()
    attempt("in use", other.bind, (stage.own, stage.port))
    attempt("peer of a listener", sock.getpeername)
    attempt("recv of a listener", sock.recv, 1)
    attempt("send of a listener", sock.send, b"x", socket.MSG_NOSIGNAL)
    attempt("listener connects", sock.connect, (stage.peer, 1))
    sock.setblocking(False)
    attempt("nobody came", sock.accept)
    sock.settimeout(0.05)
    attempt("nobody came in time", sock.accept)
    say("poll", ready(sock))
    stage.tell("connect", "early", stage.own, stage.port)
    wait_readable(sock)
    say("poll", ready(sock))
    sock.close()
    attempt("refused", stage.tell, "try_connect", stage.own, stage.port)
    stage.tell("close", "early")


@scenario
def accepting(stage):
    listener = stage.listener()
    stage.tell("connect", "a", stage.own, stage.port)
    stream, address = listener.accept()
    stage.keep(stream)
    say("peer", address == (stage.peer, stage.tell("local_port", "a")), stream.getpeername() == address)
    say("own", stream.getsockname() == (stage.own, stage.port))
    say("inheritable", stream.get_inheritable(), "blocking", stream.getblocking())
    say("poll", ready(stream))
    say("flags", fcntl.fcntl(stream, fcntl.F_GETFL) & os.O_NONBLOCK)
    attempt("connect", stream.connect, (stage.peer, 1))
    attempt("listen", stream.listen, 1)
    attempt("accept", stream.accept)
    stream.sendall(b"welcome")
    say("heard", stage.tell("hear", "a", 7))
    # The listener goes, the connection stays.
    listener.close()
    stage.tell("say", "a", "still here")
    say("recv", receive(stream, 10))
    stage.tell("close", "a")
    attempt("end", stream.recv, 10)
    attempt("end again", stream.recv, 10)
    # Options of a listener are inherited.
    listener = stage.listener()
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    stage.tell("connect", "b", stage.own, stage.port)
    stream = stage.keep(listener.accept()[0])
    say("inherited", stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
    say("inherited", stream.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))
    stage.tell("close", "b")


@scenario
def many_accepts(stage):
    listener = stage.listener(64)
    names = [stage.name() for _ in range(40)]
    for name in names:
        stage.tell("connect", name, stage.own, stage.port)
        stage.tell("say", name, name)
    streams = {}
    for _ in names:
        stream = stage.keep(listener.accept()[0])
        streams[stream] = stream.recv(10).decode()
    say("all came, in order", list(streams.values()) == names)
    for stream, name in streams.items():
        stream.sendall(name.upper().encode())
        stream.close()
    say("all were answered", all(stage.tell("hear", n, 10) == n.upper() for n in names))
    for name in names:
        stage.tell("close", name)


@scenario
def wildcard(stage):
    sock = stage.tcp()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("", stage.port))
    sock.listen()
    say("name", sock.getsockname() == ("0.0.0.0", stage.port))
    stage.tell("connect", "w", stage.own, stage.port)
    stream = stage.keep(sock.accept()[0])
    say("own", stream.getsockname() == (stage.own, stage.port))
    stage.tell("close", "w")


@scenario
def both_families(stage):
    address = ("::", stage.port)
    with socket.create_server(address, family=socket.AF_INET6, dualstack_ipv6=True) as server:
        say("name", server.getsockname()[0])
        stage.tell("connect", "d", stage.own, stage.port)
        stream, peer = server.accept()
        with stream:
            say("peer", peer[0] == f"::ffff:{stage.peer}", len(peer), stream.family.name)
            say("own", stream.getsockname()[0] == f"::ffff:{stage.own}")
            stream.sendall(b"mapped")
            say("heard", stage.tell("hear", "d", 6))
        stage.tell("close", "d")


@scenario
def create_server(stage):
    with socket.create_server((stage.own, stage.port), reuse_port=True) as server:
        with socket.create_server((stage.own, stage.port), reuse_port=True) as second:
            for _ in range(4):
                stage.tell("connect", "c", stage.own, stage.port)
                came, _, _ = select.select([server, second], [], [], PATIENCE)
                say("at one of the two", len(came))
                came[0].accept()[0].close()
                say("ends", stage.tell("ends", "c"))
                stage.tell("close", "c")


def exchange(stage, stream, name):
    stage.tell("say", name, "0123456789")
    wait_readable(stream)
    attempt("peek", stream.recv, 4, socket.MSG_PEEK)
    attempt("peek again", stream.recv, 4, socket.MSG_PEEK)
    attempt("read", stream.recv, 4)
    buffer = bytearray(8)
    attempt("recv_into", stream.recv_into, buffer, 3)
    say("buffer", bytes(buffer))
    attempt("recvfrom", stream.recvfrom, 2)
    attempt("nothing", stream.recv, 0)
    attempt("last", stream.recv, 100)
    # Python waits itself where there is a timeout.
    stream.settimeout(None)
    attempt("dontwait", stream.recv, 1, socket.MSG_DONTWAIT)
    stage.tell("say", name, "abc")
    later = threading.Timer(0.05, stage.tell, ["say", name, "defgh"])
    later.start()
    attempt("waitall", stream.recv, 8, socket.MSG_WAITALL)
    later.join()
    stage.tell("say", name, "abc")
    later = threading.Timer(0.05, stage.tell, ["say", name, "defghij"])
    later.start()
    attempt("peek at all", stream.recv, 8, socket.MSG_WAITALL | socket.MSG_PEEK)
    later.join()
    ignored = socket.MSG_DONTROUTE | socket.MSG_EOR | socket.MSG_MORE | socket.MSG_CTRUNC | 1 << 24
    attempt("ignored flags", stream.recv, 8, ignored)
    attempt("peek at all there is", stream.recv, 8, socket.MSG_WAITALL | socket.MSG_PEEK | socket.MSG_DONTWAIT)
    attempt("the rest", stream.recv, 8)
    stage.tell("say", name, "vectors and more")
    wait_readable(stream)
    attempt("recvmsg", stream.recvmsg, 3)
    parts = [bytearray(2), bytearray(3), bytearray(100)]
    received, control, flags, address = stream.recvmsg_into(parts)
    say("recvmsg_into", received, control, flags, address)
    say("parts", bytes(parts[0]), bytes(parts[1]), bytes(parts[2][: received - 5]))
    attempt("send", stream.send, b"plain ")
    attempt("sendmsg", stream.sendmsg, [b"three ", b"", b"parts "])
    attempt("sendto", stream.sendto, b"to ", 0, (stage.peer, 9))
    attempt("write", os.write, stream.fileno(), b"write ")
    attempt("writev", os.writev, stream.fileno(), [b"write", b"v "])
    ignored = socket.MSG_PEEK | socket.MSG_WAITALL | socket.MSG_TRUNC | socket.MSG_ERRQUEUE | 1 << 26
    attempt("ignored flags", stream.send, b"all the same ", ignored)
    attempt("more", stream.send, b"held back ", socket.MSG_MORE)
    attempt("end of it", stream.send, b"end")
    attempt("nothing", stream.send, b"")
    say("heard", stage.tell("hear", name, 60))
    stage.tell("say", name, "read and readv")
    wait_readable(stream)
    attempt("read", os.read, stream.fileno(), 5)
    parts = [bytearray(4), bytearray(100)]
    attempt("readv", os.readv, stream.fileno(), parts)
    say("parts", bytes(parts[0]), bytes(parts[1][:5]))
    attempt("pread", os.pread, stream.fileno(), 1, 0)
    attempt("lseek", os.lseek, stream.fileno(), 0, os.SEEK_SET)
    stage.tell("close", name)
    attempt("end", stream.recv, 1)


@scenario
def exchange_accepted(stage):
    exchange(stage, *stage.accepted())


@scenario
def exchange_opened(stage):
    exchange(stage, *stage.opened_pair())


def half_close(stage, stream, name):
    say("open", ready(stream))
    stage.tell("shutdown", name)
    wait_readable(stream)
    say("half closed by the peer", ready(stream))
    attempt("end", stream.recv, 1)
    attempt("still sends", stream.send, b"answer")
    say("heard", stage.tell("hear", name, 6))
    attempt("shutdown", stream.shutdown, socket.SHUT_WR)
    say("ends", stage.tell("ends", name))
    say("closed both ways", ready(stream))
    until_over(stream)
    attempt("peer", stream.getpeername)
    attempt("send", stream.send, b"x", socket.MSG_NOSIGNAL)
    attempt("shutdown again", stream.shutdown, socket.SHUT_WR)
    stage.tell("close", name)


@scenario
def half_close_accepted(stage):
    half_close(stage, *stage.accepted())


@scenario
def half_close_opened(stage):
    half_close(stage, *stage.opened_pair())


@scenario
def own_half_close(stage):
    stream, name = stage.accepted()
    attempt("shutdown", stream.shutdown, socket.SHUT_WR)
    say("ends", stage.tell("ends", name))
    say("poll", ready(stream))
    stage.tell("say", name, "more")
    say("still receives", receive(stream, 4))
    stage.tell("close", name)
    attempt("end", stream.recv, 1)
    say("closed both ways", ready(stream))


@scenario
def reading_side_shut(stage):
    stream, name = stage.accepted()
    attempt("shutdown", stream.shutdown, socket.SHUT_RD)
    attempt("end", stream.recv, 1)
    say("poll", ready(stream))
    attempt("send", stream.send, b"out")
    say("heard", stage.tell("hear", name, 3))
    stage.tell("close", name)


@scenario
def reset_by_peer(stage):
    for pair in [stage.accepted, stage.opened_pair]:
        stream, name = pair()
        stage.tell("reset", name)
        wait_readable(stream)
        say("poll", ready(stream))
        attempt("recv", stream.recv, 1)
        attempt("recv again", stream.recv, 1)
        attempt("send", stream.send, b"x", socket.MSG_NOSIGNAL)
        attempt("name", lambda: stream.getsockname()[0] == stage.own)
        attempt("peer", stream.getpeername)
        # Whether an error that was told is one for poll is not the same everywhere.
        say("poll", ready(stream).replace("|ERR", ""))
        stream, name = pair()
        stage.tell("reset", name)
        wait_readable(stream)
        error = stream.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        say("SO_ERROR", errno.errorcode.get(error, error))
        say("told once", stream.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
        attempt("recv", stream.recv, 1)


@scenario
def writing_to_the_closed(stage):
    stream, name = stage.accepted()
    stage.tell("close", name)
    wait_readable(stream)
    attempt("the first is taken", stream.send, b"x")
    # The answer is a reset.
    poll = select.poll()
    poll.register(stream, 0)
    say("poll", [events(mask) for _, mask in poll.poll(PATIENCE * 1000)])
    attempt("the second is not", stream.send, b"x", socket.MSG_NOSIGNAL)


@scenario
def reset_by_us(stage):
    stream, name = stage.accepted()
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.close()
    say("linger 0", stage.tell("ends", name))
    stage.tell("close", name)
    stream, name = stage.accepted()
    stage.tell("say", name, "unread")
    wait_readable(stream)
    stream.close()
    say("unread data", stage.tell("ends", name))
    stage.tell("close", name)
    stream, name = stage.accepted()
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 10))
    stream.sendall(b"lingers")
    stream.close()
    say("linger 10", stage.tell("hear", name, 7), stage.tell("ends", name))
    stage.tell("close", name)


@scenario
def sigpipe(stage):
    caught = []
    before = signal.signal(signal.SIGPIPE, lambda *_: caught.append("SIGPIPE"))
    try:
        stream, name = stage.accepted()
        stream.shutdown(socket.SHUT_WR)
        attempt("MSG_NOSIGNAL", stream.send, b"x", socket.MSG_NOSIGNAL)
        say("caught", caught)
        attempt("send", stream.send, b"x")
        say("caught", caught)
        attempt("write", os.write, stream.fileno(), b"x")
        say("caught", caught)
        attempt("sendmsg", stream.sendmsg, [b"x"])
        say("caught", caught)
        stage.tell("close", name)
    finally:
        signal.signal(signal.SIGPIPE, before)


@scenario
def interrupted(stage):
    class Alarm(Exception):
        pass

    armed = []

    # Python runs it between any two of its steps: only the call is to be interrupted, and once.
    def ring(*_):
        if armed:
            armed.clear()
            raise Alarm

    before = signal.signal(signal.SIGALRM, ring)
    stream, name = stage.accepted()
    listener = stage.listener()
    # Ends without an error where the signal came first, in both.
    for label, call in [
        ("recv", lambda: stream.recv(1)),
        ("accept", listener.accept),
        ("select", lambda: select.select([stream], [], [])),
        ("poll", lambda: select.poll().poll(PATIENCE * 1000)),
        ("epoll", lambda: epoll_of(stream).poll(PATIENCE)),
        ("waitall", lambda: stream.recv(9, socket.MSG_WAITALL)),
    ]:
        stream.settimeout(None)
        listener.settimeout(None)
        # Again and again, for a signal that comes before the call does not interrupt it.
        signal.setitimer(signal.ITIMER_REAL, 0.03, 0.03)
        try:
            armed.append(True)
            say(label, show(call()))
        except Alarm:
            say(label, "interrupted")
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)
    # A handler that returns: the call goes on.
    counted = []
    before = signal.signal(signal.SIGALRM, lambda *_: counted.append(1))
    signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
    later = threading.Timer(0.1, stage.tell, ["say", name, "goes on"])
    later.start()
    say("recv", stream.recv(7))
    later.join()
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)
    say("handler ran", bool(counted))
    stage.tell("close", name)


def epoll_of(sock, mask=select.EPOLLIN):
    epoll = select.epoll()
    epoll.register(sock, mask)
    return epoll


@scenario
def timeouts(stage):
    stream, name = stage.accepted()
    stream.settimeout(0.05)
    attempt("recv", stream.recv, 1)
    attempt("waitall", stream.recv, 4, socket.MSG_WAITALL)
    stream.settimeout(None)
    limit = struct.pack("ll", 0, 50_000)
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
    attempt("SO_RCVTIMEO", stream.recv, 1)
    stage.tell("say", name, "part")
    wait_readable(stream)
    attempt("what there is at the end of the time", stream.recv, 10, socket.MSG_WAITALL)
    say("select", select.select([stream], [], [], 0.02))
    say("select", len(select.select([stream], [stream], [stream], 0.02)[1]))
    stage.tell("say", name, "in time")
    stream.settimeout(PATIENCE)
    say("recv", receive(stream, 7))
    stage.tell("close", name)


def fill(stream, data):
    """Sends `data` over and over until nothing more fits.

    Returns how many bytes did, the error that said so, and what poll says then. It may be that
    only the bytes' acknowledgement was missing, and makes room again: then it goes on.
    """
    sent, deadline = 0, time.monotonic() + PATIENCE
    while True:
        try:
            while True:
                sent += stream.send(data[sent % len(data) :])
        except (BlockingIOError, TimeoutError) as error:
            refusal = type(error).__name__
        look = ready(stream)
        if "OUT" not in look or time.monotonic() > deadline:
            return sent, refusal, look


@scenario
def full_send_buffer(stage):
    for blocking in [False, True]:
        stream, name = stage.accepted()
        data = pattern(1 << 16)
        stream.settimeout(0.1 if blocking else 0)
        sent, refusal, look = fill(stream, data)
        say("full", refusal)
        say("some fits", sent > 0, "poll", look)
        digest = stage.tell("digest", name, sent)
        expected = summary((data * (sent // len(data) + 1))[:sent])
        say("all came", digest == expected)
        poll = select.poll()
        poll.register(stream, select.POLLOUT)
        say("room again", [events(mask) for _, mask in poll.poll(PATIENCE * 1000)])
        stream.close()
        say("ends", stage.tell("ends", name))
        stage.tell("close", name)


@scenario
def send_timeout(stage):
    stream, name = stage.accepted()
    stream.setblocking(True)
    limit = struct.pack("ll", 0, 50_000)
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
    data = pattern(64 << 20)
    # What was taken before the time was up; then nothing more is.
    sent = stream.send(data)
    say("a part", 0 < sent < len(data))
    more = 0
    try:
        while True:
            more += stream.send(data[sent + more :])
    except BlockingIOError:
        say("then", "EAGAIN")
    say("all came", stage.tell("digest", name, sent + more) == summary(data[: sent + more]))
    stage.tell("close", name)


@scenario
def connecting(stage):
    port = stage.tell("listen", "l")
    stream = stage.tcp()
    stream.setblocking(False)
    say("connect", errno.errorcode[stream.connect_ex((stage.peer, port))])
    poll = select.poll()
    poll.register(stream, select.POLLOUT)
    say("poll", [events(mask) for _, mask in poll.poll(PATIENCE * 1000)])
    say("SO_ERROR", stream.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
    say("peer", stream.getpeername() == (stage.peer, port))
    say("own", stream.getsockname()[0] == stage.own)
    # The first one after it tells success; then it is known.
    code = stream.connect_ex((stage.peer, port))
    say("connect", errno.errorcode.get(code, code))
    code = stream.connect_ex((stage.peer, port))
    say("connect", errno.errorcode.get(code, code))
    say("accepted from", stage.tell("accept", "l", "x") == stage.own)
    stream.setblocking(True)
    stream.sendall(b"from a non-blocking connect")
    say("heard", stage.tell("hear", "x", 27))
    stage.tell("close", "x")

    stream = stage.tcp()
    attempt("blocking", stream.connect, (stage.peer, port))
    stage.tell("accept", "l", "y")
    attempt("again", stream.connect, (stage.peer, port))
    stage.tell("close", "y")

    stream = stage.tcp()
    stream.bind((stage.own, 0))
    chosen = stream.getsockname()[1]
    say("bound", chosen > 0)
    attempt("bound connects", stream.connect, (stage.peer, port))
    say("from there", stream.getsockname() == (stage.own, chosen))
    stage.tell("accept", "l", "z")
    stage.tell("close", "z")
    stage.tell("close", "l")


@scenario
def refused(stage):
    port = stage.free_peer_port()
    stream = stage.tcp()
    attempt("blocking", stream.connect, (stage.peer, port))
    attempt("peer", stream.getpeername)
    say("SO_ERROR", stream.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
    stream = stage.tcp()
    stream.setblocking(False)
    say("connect", errno.errorcode[stream.connect_ex((stage.peer, port))])
    poll = select.poll()
    poll.register(stream, select.POLLOUT)
    say("poll", [events(mask) for _, mask in poll.poll(PATIENCE * 1000)])
    error = stream.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    say("SO_ERROR", errno.errorcode.get(error, error))
    say("SO_ERROR", stream.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
    attempt("send", stream.send, b"x", socket.MSG_NOSIGNAL)
    stream = stage.tcp()
    stream.settimeout(PATIENCE)
    attempt("with a timeout", stream.connect, (stage.peer, port))
    attempt("create_connection", socket.create_connection, (stage.peer, port), PATIENCE)
    attempt("wrong family", stage.tcp().connect, ("::1", port))
    # The same socket may try again, once it has told that the first attempt failed.
    listening = stage.tell("listen", "l")
    attempt("aborted", stream.connect, (stage.peer, listening))
    attempt("another try", stream.connect, (stage.peer, listening))
    stage.tell("accept", "l", "x")
    stream.sendall(b"second try")
    say("heard", stage.tell("hear", "x", 10))
    stage.tell("close", "x")
    stage.tell("close", "l")


@scenario
def epoll_triggers(stage):
    stream, name = stage.accepted()
    stream.setblocking(False)
    level = epoll_of(stream, select.EPOLLIN | select.EPOLLRDHUP)
    edge = epoll_of(stream, select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET)
    once = epoll_of(stream, select.EPOLLIN | select.EPOLLONESHOT)

    def look(label, patience=0.0):
        masks = [
            "+".join(events(mask) for _, mask in epoll.poll(patience)) or "none"
            for epoll in [level, edge, once]
        ]
        say(label, *masks)

    attempt("twice", level.register, stream, select.EPOLLIN)
    look("quiet")
    look("quiet again")
    stage.tell("say", name, "some")
    wait_readable(stream)
    look("data")
    look("unread")
    say("partly", stream.recv(2))
    look("partly read")
    stage.tell("say", name, "more")
    while fionread(stream) < 6:
        pass
    look("more data")
    once.modify(stream, select.EPOLLIN | select.EPOLLONESHOT)
    look("armed again")
    say("rest", receive(stream, 6))
    once.modify(stream, select.EPOLLIN | select.EPOLLONESHOT)
    look("drained")
    stage.tell("shutdown", name)
    wait_readable(stream)
    look("end")
    attempt("recv", stream.recv, 1)
    look("end seen")
    level.modify(stream, 0)
    look("nothing wanted")
    level.unregister(stream)
    attempt("absent", level.modify, stream, select.EPOLLIN)
    attempt("absent", level.unregister, stream)
    # Closing takes it out of every set.
    edge.modify(stream, select.EPOLLIN)
    stream.close()
    say("closed", edge.poll(0.02))
    stage.tell("close", name)
    for epoll in [level, edge, once]:
        epoll.close()


@scenario
def epoll_of_many(stage):
    """Kernel descriptors and TCP in the same sets."""
    listener = stage.listener()
    left, right = socket.socketpair()
    reader, writer = os.pipe()
    stream, name = stage.opened_pair()
    selector = selectors.DefaultSelector()
    say("selector", type(selector).__name__)
    for what, data in [(listener, "listener"), (left, "pair"), (reader, "pipe"), (stream, "tcp")]:
        selector.register(what, selectors.EVENT_READ, data)

    def select_all(label, timeout=0.0):
        # Not all that is ready has to come at once.
        ready = set()
        for _ in range(20):
            ready |= {key.data for key, _ in selector.select(timeout)}
        say(label, sorted(ready))

    select_all("quiet", 0.002)
    right.send(b"x")
    select_all("pair")
    os.write(writer, b"x")
    select_all("pipe too")
    stage.tell("say", name, "x")
    wait_readable(stream)
    select_all("tcp too")
    stage.tell("connect", "n", stage.own, stage.port)
    wait_readable(listener)
    select_all("all")
    rlist, wlist, xlist = select.select(
        [listener, left, reader, stream], [stream, left, writer], [stream], 0
    )
    say("select", len(rlist), len(wlist), len(xlist))
    poll = select.poll()
    for what in [listener, left, reader, stream]:
        poll.register(what, select.POLLIN | select.POLLOUT)
    say("poll", sorted(events(mask) for _, mask in poll.poll(0)))
    say("read", left.recv(1), os.read(reader, 1), stream.recv(1))
    listener.accept()[0].close()
    select_all("none")
    selector.unregister(stream)
    stage.tell("say", name, "y")
    wait_readable(stream)
    select_all("not watched")
    selector.register(stream, selectors.EVENT_READ | selectors.EVENT_WRITE, "tcp")
    say("both", [(key.data, mask) for key, mask in selector.select(0)])
    # An epoll in an epoll.
    inner = epoll_of(stream)
    outer = epoll_of(inner)
    say("nested", [events(mask) for _, mask in outer.poll(1)])
    inner.close()
    outer.close()
    selector.close()
    for what in [left, right]:
        what.close()
    for descriptor in [reader, writer]:
        os.close(descriptor)
    stage.tell("close", "n")
    stage.tell("close", name)


@scenario
def epoll_of_twins(stage):
    """One socket under several numbers."""
    stream, name = stage.accepted()
    twin = stage.keep(stream.dup())
    watch = select.epoll()
    watch.register(stream, select.EPOLLIN)
    watch.register(twin, select.EPOLLIN | select.EPOLLOUT | select.EPOLLONESHOT)
    attempt("twice", watch.register, twin, select.EPOLLIN)
    names = {stream.fileno(): "stream", twin.fileno(): "twin"}

    def told(label):
        ready = set()
        for _ in range(20):
            ready |= {(names[number], events(mask)) for number, mask in watch.poll(0)}
        say(label, sorted(ready))

    told("fresh")
    told("once")
    stage.tell("say", name, "x")
    wait_readable(stream)
    told("bytes")
    watch.modify(twin, select.EPOLLIN | select.EPOLLET)
    told("an edge")
    stream.recv(1)
    told("none")
    watch.unregister(stream)
    stage.tell("say", name, "y")
    wait_readable(stream)
    told("the twin")
    attempt("gone", watch.modify, stream, select.EPOLLIN)
    # It is watched until the last number is closed.
    watch.modify(twin, select.EPOLLIN)
    names[twin.fileno()] = "closed twin"
    twin.close()
    told("closed")
    stream.close()
    told("all closed")
    watch.close()
    both = select.poll()
    stream, name = stage.accepted()
    twin = stage.keep(stream.dup())
    both.register(stream, select.POLLIN)
    both.register(twin, select.POLLOUT)
    say("poll", sorted(events(mask) for _, mask in both.poll(0)))


@scenario
def woken_from_sleep(stage):
    """The event comes while the call sleeps, for each way of waiting."""
    stream, name = stage.accepted()
    listener = stage.listener()
    ways = [
        ("recv", lambda: stream.recv(1)),
        ("select", lambda: len(select.select([stream], [], [], PATIENCE)[0]) and stream.recv(1)),
        ("poll", lambda: wait_readable(stream) or stream.recv(1)),
        ("epoll", lambda: epoll_of(stream).poll(PATIENCE) and stream.recv(1)),
        ("edge", lambda: epoll_of(stream, select.EPOLLIN | select.EPOLLET).poll(PATIENCE) and stream.recv(1)),
    ]
    for label, way in ways:
        later = threading.Timer(0.03, stage.tell, ["say", name, label[0]])
        later.start()
        say(label, way())
        later.join()
    for label, way in [
        ("accept", listener.accept),
        ("select", lambda: select.select([listener], [], [], PATIENCE) and listener.accept()),
        ("epoll", lambda: epoll_of(listener).poll(PATIENCE) and listener.accept()),
    ]:
        other = stage.name()
        later = threading.Timer(0.03, stage.tell, ["connect", other, stage.own, stage.port])
        later.start()
        connection, _ = way()
        later.join()
        connection.sendall(label.encode())
        connection.close()
        say(label, stage.tell("rest", other))
        stage.tell("close", other)
    # A kernel descriptor wakes a wait for both.
    reader, writer = os.pipe()
    epoll = epoll_of(stream)
    epoll.register(reader, select.EPOLLIN)
    later = threading.Timer(0.03, os.write, [writer, b"x"])
    later.start()
    say("pipe", [fd == reader for fd, _ in epoll.poll(PATIENCE)])
    later.join()
    later = threading.Timer(0.03, os.write, [writer, b"x"])
    os.read(reader, 1)
    later.start()
    say("pipe", [fd == reader for fd in select.select([stream, reader], [], [], PATIENCE)[0]])
    later.join()
    os.close(reader)
    os.close(writer)
    # Another thread's shutdown ends a read.
    later = threading.Timer(0.03, stream.shutdown, [socket.SHUT_RDWR])
    later.start()
    stream.settimeout(None)
    say("shut down", stream.recv(1))
    later.join()
    stage.tell("close", name)


@scenario
def files(stage):
    stream, name = stage.accepted()
    with stream.makefile("rwb") as both:
        stage.tell("say", name, "first line\nsecond\nrest")
        say("line", both.readline())
        say("line", both.readline())
        say("rest", both.read(4))
        both.write(b"answer\n")
        both.flush()
    say("heard", stage.tell("hear", name, 7))
    with stream.makefile("r", encoding="utf-8", newline="\n") as text:
        stage.tell("say", name, "Grüße\n")
        say("text", text.readline())
    data = pattern(1_000_001)
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        file.seek(0)
        reading = in_background(stage.tell, "digest", name, len(data))
        say("sendfile", stream.sendfile(file))
        say("came", reading() == summary(data))
        reading = in_background(stage.tell, "digest", name, 5000)
        say("os.sendfile", os.sendfile(stream.fileno(), file.fileno(), 123, 5000))
        say("came", reading() == summary(data[123:5123]))
        file.seek(7)
        reading = in_background(stage.tell, "digest", name, 100)
        say("from its position", os.sendfile(stream.fileno(), file.fileno(), None, 100), file.tell())
        os.lseek(file.fileno(), 0, os.SEEK_CUR)
        say("position", os.lseek(file.fileno(), 0, os.SEEK_CUR))
        say("came", reading() == summary(data[7:107]))
        attempt("past its end", os.sendfile, stream.fileno(), file.fileno(), len(data), 10)
    reader, writer = os.pipe()
    os.write(writer, b"spliced")
    attempt("splice", os.splice, reader, stream.fileno(), 100)
    say("heard", stage.tell("hear", name, 7))
    stage.tell("say", name, "back")
    wait_readable(stream)
    attempt("splice", os.splice, stream.fileno(), writer, 100)
    say("read", os.read(reader, 100))
    os.close(reader)
    os.close(writer)
    with tempfile.TemporaryFile() as file:
        attempt("not from a socket", os.sendfile, file.fileno(), stream.fileno(), 0, 10)
    stage.tell("close", name)


def in_background(call, *arguments):
    """Starts a call; returns what gives its result."""
    results = []
    thread = threading.Thread(target=lambda: results.append(call(*arguments)))
    thread.start()

    def result():
        thread.join()
        return results[0]

    return result


@scenario
def bulk(stage):
    for pair in [stage.accepted, stage.opened_pair]:
        stream, name = pair()
        data = pattern(5_000_000)
        reading = in_background(stage.tell, "digest", name, len(data))
        stream.sendall(data)
        say("sent", reading() == summary(data))
        sending = in_background(stage.tell, "send", name, len(data))
        say("received", summary(receive(stream, len(data))) == summary(data))
        sending()
        stream.shutdown(socket.SHUT_WR)
        say("ends", stage.tell("ends", name))
        stage.tell("close", name)


@scenario
def descriptors(stage):
    stream, name = stage.accepted()
    twin = stage.keep(stream.dup())
    say("another number", twin.fileno() != stream.fileno())
    stream.close()
    twin.sendall(b"by the twin")
    say("heard", stage.tell("hear", name, 11))
    number = os.dup(twin.fileno())
    third = fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 50)
    say("at least", third >= 50, fcntl.fcntl(third, fcntl.F_GETFD))
    os.write(third, b"by number")
    say("heard", stage.tell("hear", name, 9))
    target = os.open("/dev/null", os.O_RDWR)
    os.dup2(third, target)
    os.close(third)
    os.write(target, b"dup2")
    say("heard", stage.tell("hear", name, 4))
    # The number becomes a file again.
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, target)
    say("a file", os.write(target, b"nowhere"), stat.S_ISCHR(os.fstat(target).st_mode))
    os.close(target)
    os.close(null)
    # Flags belong to what the numbers name in common.
    os.set_blocking(number, False)
    say("shared flag", os.get_blocking(twin.fileno()))
    fcntl.ioctl(number, 0x5421, struct.pack("i", 0))
    say("FIONBIO", os.get_blocking(twin.fileno()))
    for flags in [os.O_APPEND, os.O_APPEND | os.O_NONBLOCK, os.O_CREAT | os.O_EXCL, os.O_DIRECT, 0]:
        attempt("status flags", fcntl.fcntl, number, fcntl.F_SETFL, flags)
        say("are", fcntl.fcntl(twin, fcntl.F_GETFL) & ~os.O_LARGEFILE)
    for request in [termios.FIONCLEX, termios.FIOCLEX]:
        attempt("for exec", fcntl.ioctl, number, request)
        say("is kept", fcntl.fcntl(number, fcntl.F_GETFD), fcntl.fcntl(twin, fcntl.F_GETFD))
    again = socket.socket(fileno=number)
    say("known again", again.family.name, again.type.name, again.proto)
    stage.tell("say", name, "hello")
    again.settimeout(PATIENCE)
    say("recv", receive(again, 5))
    twin.close()
    say("still open", again.getpeername()[0] == stage.peer)
    detached = again.detach()
    os.close(detached)
    say("ends", stage.tell("ends", name))
    stage.tell("close", name)
    attempt("closed", os.close, detached)
    # Numbers are used again, lowest first.
    first = stage.tcp()
    number = first.fileno()
    first.close()
    say("the same number", stage.tcp().fileno() == number)
    listener = stage.listener()
    twin = stage.keep(listener.dup())
    listener.close()
    twin.settimeout(PATIENCE)
    stage.tell("connect", name, stage.own, stage.port)
    twin.accept()[0].close()
    say("a listener's twin", stage.tell("ends", name))
    stage.tell("close", name)


@scenario
def stdio(stage):
    """Streams of C over a socket and its duplicate, as old servers have them."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.fdopen.restype = ctypes.c_void_p

    def call(label, function, *arguments):
        ctypes.set_errno(0)
        result = function(*arguments)
        failed = errno.errorcode.get(ctypes.get_errno()) if result in (-1, 0, None) else None
        say(label, result, failed)

    def line(stream):
        room = ctypes.create_string_buffer(64)
        return libc.fgets(room, 64, stream) and room.value

    stream, name = stage.accepted()
    stream.settimeout(None)
    numbers = [stream.detach()]
    numbers.append(os.dup(numbers[0]))
    reading, writing = [
        ctypes.c_void_p(libc.fdopen(number, mode)) for number, mode in zip(numbers, [b"rb", b"wb"])
    ]
    say("numbers", libc.fileno(reading) == numbers[0], libc.fileno(writing) == numbers[1])
    stage.tell("say", name, "first\nsecond\nlast")
    say("lines", line(reading), line(reading))
    call("seek", libc.fseek, reading, 0, os.SEEK_SET)
    call("tell", libc.ftell, writing)
    say("put", libc.fputs(b"one ", writing) >= 0, libc.fputs(b"two", writing) >= 0)
    call("flush", libc.fflush, writing)
    say("heard", stage.tell("hear", name, 7))
    stage.tell("shutdown", name)
    say("last", line(reading), line(reading), libc.feof(reading), libc.ferror(reading))
    bulk = pattern(100_000)
    call("bulk", libc.fwrite, bulk, 1, len(bulk), writing)
    call("close", libc.fclose, writing)
    say("heard", stage.tell("digest", name, len(bulk)) == summary(bulk))
    call("close", libc.fclose, reading)
    attempt("closed", os.close, numbers[0])
    say("ends", stage.tell("ends", name))
    # Nobody reads what is still in the buffer.
    stream, name = stage.accepted()
    stream.settimeout(None)
    both = ctypes.c_void_p(libc.fdopen(stream.detach(), b"r+"))
    say("put", libc.fputs(b"lost", both) >= 0)
    stage.tell("reset", name)
    poll = select.poll()
    poll.register(libc.fileno(both), select.POLLIN)
    say("reset", [events(mask) for _, mask in poll.poll(PATIENCE * 1000)])
    call("flush", libc.fflush, both)
    say("error", libc.ferror(both) != 0)
    libc.fclose(both)


@scenario
def other_sockets(stage):
    """What is not TCP stays as it was."""
    left, right = socket.socketpair()
    with left, right:
        left.sendall(b"pair")
        say("pair", right.recv(10))
        attempt("shutdown", left.shutdown, socket.SHUT_WR)
        say("end", right.recv(10))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as two:
            one.bind((stage.own, stage.port))
            two.bind((stage.own, 0))
            two.settimeout(PATIENCE)
            one.sendto(b"datagram", two.getsockname())
            data, address = two.recvfrom(100)
            say("datagram", data, address == (stage.own, stage.port))
    # TCP at a port that is not fourwave's.
    with socket.create_server((stage.own, stage.port + 1000)) as server:
        stage.tell("connect", "k", stage.own, stage.port + 1000)
        stream, _ = server.accept()
        with stream:
            stage.tell("say", "k", "kernel")
            say("kernel", receive(stream, 6))
        stage.tell("close", "k")


def run(stage, function):
    started = time.monotonic()
    print(f"{function.__name__}", flush=True)
    try:
        function(stage)
    except Exception as error:  # The transcript goes on; what differs will show.
        line = error.__traceback__
        while line.tb_next and line.tb_next.tb_frame.f_code.co_filename == __file__:
            line = line.tb_next
        say(f"FAILED in line {line.tb_lineno}", type(error).__name__, error)
    finally:
        stage.clean()
        # Not part of the transcript.
        print(f"{function.__name__} {time.monotonic() - started:.2f} s", file=sys.stderr, flush=True)


def main():
    control, own, peer, port, *wanted = sys.argv[1:]
    stage = Stage(control, own, peer, int(port))
    for function in SCENARIOS:
        if not wanted or function.__name__ in wanted:
            run(stage, function)
    print("END", flush=True)


if __name__ == "__main__":
    main()
