"""The other end of sockets.py: does with kernel sockets what it is told over a Unix socket.

usage: peer.py CONTROL OWN_ADDRESS...

Each line that comes over CONTROL is a JSON list, the name of a method of Peer and its arguments;
the answer is one line of JSON, what the method returns. An OSError is answered as its name.
"""

import errno
import hashlib
import json
import socket
import struct
import sys

PATIENCE = 20.0


def pattern(size):
    """Bytes whose every page differs."""
    block = b"".join(struct.pack(">I", at) for at in range(0, min(size, 1 << 16), 4))
    return (block * (size // len(block) + 1))[:size] if size else b""


class Peer:
    """Sockets by the names that the other side gives them."""

    def __init__(self, own_address):
        self.own_address = own_address
        self.sockets = {}

    def listen(self, name, backlog=16):
        """Returns the port."""
        family = socket.AF_INET6 if ":" in self.own_address else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.settimeout(PATIENCE)
        listener.bind((self.own_address, 0))
        listener.listen(backlog)
        self.sockets[name] = listener
        return listener.getsockname()[1]

    def accept(self, listener, name):
        stream, address = self.sockets[listener].accept()
        stream.settimeout(PATIENCE)
        self.sockets[name] = stream
        return address[0]

    def connect(self, name, host, port):
        self.sockets[name] = socket.create_connection((host, port), timeout=PATIENCE)
        return None

    def try_connect(self, host, port):
        """For what is to fail."""
        socket.create_connection((host, port), timeout=PATIENCE).close()
        return None

    def local_port(self, name):
        return self.sockets[name].getsockname()[1]

    def send(self, name, size):
        self.sockets[name].sendall(pattern(size))
        return None

    def say(self, name, text):
        self.sockets[name].sendall(text.encode())
        return None

    def hear(self, name, size):
        """Exactly `size` bytes, or what comes before the end, as text."""
        return self._read(name, size).decode("latin-1")

    def digest(self, name, size):
        """Likewise, as length and hash."""
        return summary(self._read(name, size))

    def _read(self, name, size):
        data = bytearray()
        while len(data) < size:
            part = self.sockets[name].recv(min(65536, size - len(data)))
            if not part:
                break
            data += part
        return bytes(data)

    def rest(self, name):
        """All until the end."""
        return self.digest(name, 1 << 40)

    def ends(self, name):
        """How the stream ends from here on: with its end, or an error."""
        return "eof" if self.sockets[name].recv(1) == b"" else "data"

    def shutdown(self, name):
        self.sockets[name].shutdown(socket.SHUT_WR)
        return None

    def close(self, name):
        self.sockets.pop(name).close()
        return None

    def reset(self, name):
        stream = self.sockets.pop(name)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        stream.close()
        return None


def summary(data):
    return f"{len(data)} bytes {hashlib.sha256(data).hexdigest()[:16]}"


def main():
    control_path, own_address = sys.argv[1:]
    peer = Peer(own_address)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(control_path)
        listener.listen(1)
        print("READY", flush=True)
        control, _ = listener.accept()
    with control, control.makefile("rw") as lines:
        for line in lines:
            method, *arguments = json.loads(line)
            try:
                answer = getattr(peer, method)(*arguments)
            except TimeoutError:
                answer = "timed out"
            except OSError as error:
                answer = errno.errorcode[error.errno]
            lines.write(json.dumps(answer) + "\n")
            lines.flush()


if __name__ == "__main__":
    main()
