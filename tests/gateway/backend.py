"""Scripted backends: raw sockets that do what a test says, and remember what arrived."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@dataclass
class Peer:
    """One connection that the gateway has made to a backend."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    number: int  # of the connection, from 1 on
    backend: Backend

    async def head(self) -> bytes:
        """The next request's head; IncompleteReadError when the gateway closes instead."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        self.backend.heads.append(head)
        return head

    async def exactly(self, count: int) -> bytes:
        """So many bytes of a body."""
        return await self.reader.readexactly(count)

    async def say(self, data: bytes) -> None:
        """Send bytes."""
        self.writer.write(data)
        await self.writer.drain()

    async def gone(self) -> None:
        """Wait until the gateway has closed the connection."""
        with suppress(ConnectionError):
            while await self.reader.read(65536):
                pass

    def reset(self) -> None:
        """Break the connection with a RST, as the kernel does for a killed process with unread data."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")  # SO_LINGER with no time
        self.writer.transport.abort()


Script = Callable[[Peer], Awaitable[None]]


@dataclass
class Backend:
    """A server on a port of its own whose every connection follows a script."""

    script: Script
    heads: list[bytes] = field(default_factory=list)
    connections: int = 0
    port: int = 0
    _server: asyncio.Server | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def start(self, port: int = 0) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port, limit=1 << 20)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        # A task of its own, so that ending it does not cancel the one that asyncio's server looks after.
        task = asyncio.create_task(self._follow(Peer(reader, writer, self.connections, self)))
        self._tasks.add(task)
        await asyncio.wait((task,))
        self._tasks.discard(task)
        writer.close()

    async def _follow(self, peer: Peer) -> None:
        # The gateway's closing is the end of most scripts.
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            await self.script(peer)


def answering(answer: bytes = OK) -> Script:
    """Answers every request without a body in the same way, on kept-alive connections."""

    async def script(peer: Peer) -> None:
        while True:
            await peer.head()
            await peer.say(answer)

    return script


async def silent(peer: Peer) -> None:
    """Takes a request and never answers."""
    await peer.head()
    await peer.gone()


async def breaking_late(peer: Peer) -> None:
    """Takes a request, and breaks the connection a tenth of a second after it."""
    await peer.head()
    await asyncio.sleep(0.1)
    peer.reset()


class Endless:
    """A script whose answer has no end; ``sent`` counts the bytes of it that were taken."""

    def __init__(self) -> None:
        self.sent = 0

    async def __call__(self, peer: Peer) -> None:
        await peer.head()
        await peer.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        peer.writer.transport.set_write_buffer_limits(0)
        while True:
            await peer.say(b"8000\r\n" + b"x" * 0x8000 + b"\r\n")
            self.sent += 0x8000

    async def until_blocked(self) -> None:
        """Wait until nothing more of it is taken for a second."""
        last = -1
        while last != self.sent or not self.sent:
            last = self.sent
            await asyncio.sleep(1)


async def resetting(peer: Peer) -> None:
    """Takes a request and breaks the connection."""
    await peer.head()
    peer.reset()
