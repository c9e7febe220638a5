"""A participant over real HTTP that answers as a test tells it, and remembers what it was asked."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httptools


@dataclass(frozen=True)
class Asked:
    """One call, as it came over the wire."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def branch(self) -> str:
        return self.headers["transaction-branch"]

    @property
    def op(self) -> str:
        return self.headers["transaction-op"]


@dataclass(frozen=True)
class Says:
    """An answer; ``raw`` in its place is sent as it is, and the connection cut after it."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    raw: bytes | None = None

    def wire(self) -> bytes:
        if self.raw is not None:
            return self.raw
        lines = [f"HTTP/1.1 {self.status} X", f"content-length: {len(self.body)}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        return "\r\n".join([*lines, "", ""]).encode() + self.body


Script = Callable[[Asked], Awaitable[Says]]


async def agree(_: Asked) -> Says:
    """Yes to everything."""
    return Says()


def no_of(branch: str, op: str, status: int = 409) -> Script:
    """No to one operation of one branch, yes to everything else."""

    async def script(asked: Asked) -> Says:
        return Says(status if (asked.branch, asked.op) == (branch, op) else 200)

    return script


class Party:
    """A participant; ``script`` says what it answers, ``asked`` what it was asked, in order."""

    def __init__(self) -> None:
        self.script: Script = agree
        self.asked: list[Asked] = []
        self.url = ""
        self._tasks: set[asyncio.Task[None]] = set()

    def ops(self) -> list[tuple[str, str]]:
        """Branch and operation of each call, in order."""
        return [(asked.branch, asked.op) for asked in self.asked]

    def count(self) -> Counter[tuple[str, str]]:
        return Counter(self.ops())

    def answer(self, asked: Asked, transport: asyncio.Transport) -> None:
        self.asked.append(asked)
        task = asyncio.create_task(self._answer(asked, transport))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _answer(self, asked: Asked, transport: asyncio.Transport) -> None:
        says = await self.script(asked)
        transport.write(says.wire())
        if says.raw is not None:
            transport.close()


class _Connection(asyncio.Protocol):
    def __init__(self, party: Party) -> None:
        self._party = party

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._url = b""
        self._headers: dict[str, str] = {}
        self._body = b""

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode().lower()] = value.decode()

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        self._party.answer(Asked(self._url.decode(), self._headers, self._body), self._transport)


@asynccontextmanager
async def serving(port: int = 0) -> AsyncIterator[Party]:
    """A participant that listens on loopback."""
    party = Party()
    server = await asyncio.get_running_loop().create_server(lambda: _Connection(party), "127.0.0.1", port)
    party.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield party
    finally:
        server.close()
        await party.close()
