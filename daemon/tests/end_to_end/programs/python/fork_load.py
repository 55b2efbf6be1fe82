"""A server that forks while its other threads accept, read, write and close.

usage: fork_load.py HOST PORT THREADS

What its peers ask for, in one byte before 64 others, is said in fork_load.rs.
"""

import os
import random
import signal
import socket
import sys
import threading
import time

SIZE = 64
LATER = b"."
NOISE = b"~" * 7


def fork(child):
    pid = os.fork()
    if pid == 0:
        # Not back into the interpreter: the other threads are not here.
        try:
            child()
        finally:
            os._exit(0)
    return pid


def kill(pid):
    """Kills a child and waits until it is gone: it can write yet when the signal is sent."""
    try:
        os.kill(pid, signal.SIGKILL)
        # Has no status to give, because SIGCHLD is ignored.
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        pass


def receive(connection, size):
    received = b""
    while len(received) < size:
        piece = connection.recv(size - len(received))
        if not piece:
            raise EOFError
        received += piece
    return received


def answer(connection, what, data):
    moment = random.uniform(0, 0.003)

    def later():
        time.sleep(moment)
        connection.sendall(LATER)

    def noise():
        while True:
            connection.sendall(NOISE)

    if what == b"p":
        connection.sendall(data)
    elif what == b"c":
        fork(lambda: connection.sendall(data))
    elif what == b"l":
        connection.sendall(data)
        fork(later)
    elif what == b"n":
        child = fork(noise)
        time.sleep(moment)
        kill(child)
        connection.sendall(data)
    else:
        raise ValueError(what)


def serve(listener):
    while True:
        connection, _ = listener.accept()
        with connection:
            try:
                answer(connection, receive(connection, 1), receive(connection, SIZE))
            except (OSError, EOFError) as error:
                print("lost:", repr(error), flush=True)


def main(host, port, threads):
    # Nobody needs to wait for the children.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    listener = socket.create_server((host, int(port)), backlog=100)
    for _ in range(int(threads) - 1):
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
    print("READY", flush=True)
    serve(listener)


main(*sys.argv[1:])
