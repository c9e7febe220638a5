"""
The tiny server with a witness: a second process that sees what is still sent to its sockets after its death.

The witness holds a duplicate of the listening socket and of every accepted connection, so the kernel neither
refuses nor resets anything when the server dies: nothing but the exit itself can tell the gateway to send no
more. The witness is asleep until its pipe from the server closes, which the kernel does while the server
exits. From then on it takes what arrives, answers it (so that no request fails for the sake of measuring),
and notes when the last request came. After a quiet while it writes one line to the file and ends:

    {"requests": 3, "last_ms": 0.41}     requests after the exit, and when the last came; null when none did

Requests that arrived before the exit and were not read yet are counted as arriving when the witness wakes up:
the figure errs on the unfavourable side, by the time that waking up takes. Where real-time priority is
allowed the witness has it, so that both of its times are those of the events and not of its turn at the
processor.

    python -IS bench/witness_server.py PORT FILE
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import select
import socket
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))  # -I leaves it out

from bench.tiny_server import BACKLOG, READ_BYTES, Connection, answer_of, listen, request_size

QUIET_SECONDS = 0.25
WATCH_SECONDS_MAX = 5.0  # should the gateway never learn of the exit


def main(port: int, file: str) -> None:
    """Split into server and witness."""
    listener = listen(port)
    to_witness, from_server = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.fork() == 0:
        to_witness.close()
        os.setsid()  # whoever ends the server's process group does not end its witness
        quiet = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(quiet, fd)
        with contextlib.suppress(PermissionError):
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        witness(listener, from_server, file)
        os._exit(0)
    from_server.close()
    serve(listener, to_witness, answer_of("witnessed"))


def serve(listener: socket.socket, to_witness: socket.socket, answer: bytes) -> None:
    """As the tiny server, but each accepted connection is handed to the witness as well."""
    epoll = select.epoll()
    epoll.register(listener, select.EPOLLIN)
    connections: dict[int, Connection] = {}
    while True:
        for fd, _ in epoll.poll():
            if fd == listener.fileno():
                try:
                    sock, _ = listener.accept()
                except OSError:
                    continue
                fds = array.array("i", [sock.fileno()])
                to_witness.sendmsg([b"c"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connections[sock.fileno()] = Connection(sock, answer)
                epoll.register(sock, select.EPOLLIN)
            elif not (connections[fd].on_writable() and connections[fd].on_readable()):
                # The witness holds it too, so closing alone tells neither the peer nor the epoll.
                epoll.unregister(fd)
                connections[fd].sock.shutdown(socket.SHUT_RDWR)
                connections.pop(fd).sock.close()


def witness(listener: socket.socket, from_server: socket.socket, file: str) -> None:
    """Collect connections until the server is gone, then see what comes, and write it down."""
    epoll = select.epoll()
    epoll.register(listener, select.EPOLLIN)
    held = collect(from_server, epoll)
    exited = time.monotonic()
    requests, last = observe(listener, epoll, held, until=exited + WATCH_SECONDS_MAX)
    line = {"requests": requests, "last_ms": None if last is None else round((last - exited) * 1000, 3)}
    with open(file, "a") as results:
        results.write(json.dumps(line) + "\n")


def collect(from_server: socket.socket, epoll: select.epoll) -> dict[int, Connection]:
    """
    Take the server's connections until it is gone; those that are held then, by file descriptor.

    Each is put into ``epoll`` at once, which nobody asks until then: work done in the moment of the exit,
    with priority, would keep the server from ending, and so the kernel from telling of it.
    """
    held: dict[int, Connection] = {}
    answer = answer_of("witness")
    while True:
        data, fds, _, _ = socket.recv_fds(from_server, 1, 1)
        if not data:
            return held
        if len(held) >= BACKLOG:
            for fd in [fd for fd, connection in held.items() if not is_open(connection.sock)]:
                epoll.unregister(fd)
                held.pop(fd).sock.close()
        sock = socket.socket(fileno=fds[0])
        sock.setblocking(False)
        held[sock.fileno()] = Connection(sock, answer)
        epoll.register(sock, select.EPOLLIN)


def observe(
    listener: socket.socket, epoll: select.epoll, connections: dict[int, Connection], *, until: float
) -> tuple[int, float | None]:
    """Answer what arrives until it is quiet; how many requests, and when the last came."""
    requests, last = 0, None
    while (ready := epoll.poll(QUIET_SECONDS)) and time.monotonic() < until:
        for fd, _ in ready:
            if fd == listener.fileno():
                sock = listener.accept()[0]
                sock.setblocking(False)
                connections[sock.fileno()] = Connection(sock, answer_of("witness"))
                epoll.register(sock, select.EPOLLIN)
                continue
            if seen := count_requests(connections[fd]):
                requests, last = requests + seen, time.monotonic()
            if not connections[fd].on_readable():
                epoll.unregister(fd)
                connections.pop(fd).sock.close()
    return requests, last


def is_open(sock: socket.socket) -> bool:
    """Whether the connection has not been shut down."""
    try:
        return bool(sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
    except BlockingIOError:
        return True
    except OSError:
        return False


def count_requests(connection: Connection) -> int:
    """How many whole requests lie on the connection, unread."""
    try:
        data = connection.unread + connection.sock.recv(READ_BYTES, socket.MSG_PEEK)
    except OSError:
        return 0
    count = 0
    while (size := request_size(data)) is not None and size <= len(data):
        count, data = count + 1, data[size:]
    return count


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
