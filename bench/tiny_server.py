"""
A server that starts in a few hundredths of a second and answers every request at once.

It stands for a service wherever the service itself is not what is measured. It is an epoll loop over
plain sockets, because importing asyncio alone takes three times as long as this takes to listen. It knows
as much HTTP/1.1 as the gateway and the load generator speak: kept-alive and pipelined requests, with or
without a body of known length.

    python -IS bench/tiny_server.py PORT [LABEL]
"""

from __future__ import annotations

import os
import select
import socket
import sys

READ_BYTES = 65536
HEAD_BYTES_MAX = 65536
BACKLOG = 1024


class Connection:
    """One accepted connection: what was read and not answered yet, what was answered and not sent yet."""

    def __init__(self, sock: socket.socket, answer: bytes) -> None:
        self.sock = sock
        self.unread = b""
        self.unsent = b""
        self._answer = answer

    def on_readable(self) -> bool:
        """Read and answer what is whole. False: the peer is gone or speaks no HTTP."""
        try:
            data = self.sock.recv(READ_BYTES)
        except BlockingIOError:
            return True
        except OSError:
            return False
        if not data:
            return False
        self.unread += data
        while (size := request_size(self.unread)) is not None:
            if size > len(self.unread):
                break
            self.unread = self.unread[size:]
            self.unsent += self._answer
        return len(self.unread) <= HEAD_BYTES_MAX and self.on_writable()

    def on_writable(self) -> bool:
        """Send what can be sent now. False: the peer is gone."""
        if not self.unsent:
            return True
        try:
            self.unsent = self.unsent[self.sock.send(self.unsent) :]
        except BlockingIOError:
            return True
        except OSError:
            return False
        return True


def request_size(data: bytes) -> int | None:
    """Bytes of the request at the start of ``data``, body included; ``None`` while its head is not whole."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    head = data[:end].lower()
    at = head.find(b"\r\ncontent-length:")
    if at < 0:
        return end + 4
    value = head[at + len(b"\r\ncontent-length:") :].split(b"\r\n", 1)[0]
    return end + 4 + int(value)


def answer_of(label: str) -> bytes:
    """The one answer that this server gives: who gave it."""
    body = f'{{"pid":{os.getpid()},"label":"{label}"}}\n'.encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def listen(port: int) -> socket.socket:
    """A listening socket on loopback that does not block."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(BACKLOG)
    listener.setblocking(False)
    return listener


def serve(listener: socket.socket, answer: bytes) -> None:
    """Answer for ever; SIGTERM ends the process, no request is ever unanswered longer than one turn."""
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
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connections[sock.fileno()] = Connection(sock, answer)
                epoll.register(sock, select.EPOLLIN)
                continue
            connection = connections[fd]
            alive = connection.on_writable() and connection.on_readable()
            if not alive:
                del connections[fd]
                connection.sock.close()  # leaves the epoll with it
            else:
                epoll.modify(fd, select.EPOLLIN | (select.EPOLLOUT if connection.unsent else 0))


if __name__ == "__main__":
    serve(listen(int(sys.argv[1])), answer_of(sys.argv[2] if len(sys.argv) > 2 else ""))
