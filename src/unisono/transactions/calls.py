"""
Calling participants over HTTP/1.1: connections that are kept, one call at a time on each, callbacks
instead of tasks.

A coordinator makes two to four calls per transaction, so what a call costs decides how many transactions
it can run; docs/decisions/0013-transactions.md has the figures of the alternatives. Redirects are not
followed, an answer that breaks off is none, and every call ends: with an answer, or with a word on why
there is none.

Which answers mean what is :mod:`.answers`'; how many calls at a time :mod:`.participants`'.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

import httptools

from unisono.transactions.targets import Address, is_outside

MAX_ANSWER_BYTES = 1024 * 1024
MAX_HEAD_BYTES = 64 * 1024
_MAX_SENT_BYTES = 8 * MAX_ANSWER_BYTES  # with what a body in chunks of single bytes has around them
_IDLE_SECONDS = 4.0  # below the 5 s after which common servers close: one closed under way costs a retry
_IDLE_MAX = 128  # connections that are kept per participant
_CONNECT_SECONDS = 3.0


@dataclass(slots=True)
class Reply:
    """
    What came of a call. ``status`` 0: nothing that counts as an answer, and ``error`` says why.

    Headers have lowercase names.
    """

    status: int = 0
    headers: dict[bytes, bytes] = field(default_factory=dict)
    body: bytes = b""
    error: str = ""


Done = Callable[[Reply], None]


class HttpCaller:
    """Calls, until :meth:`close`. All methods belong to one event loop."""

    def __init__(self) -> None:
        self._pools: dict[tuple[str, int, bool, bool], _Pool] = {}
        self._opening: set[asyncio.Task[None]] = set()

    def call(self, address: Address, request: bytes, timeout: float, done: Done) -> None:
        """
        Send a request; ``done`` is called once, later, within ``timeout`` seconds or hardly more.

        ``request`` is all of it but the line of the method and the Host header.
        """
        head = f"POST {address.path or '/'} HTTP/1.1\r\nHost: {address.authority}\r\n".encode()
        _Call(self, address, head + request, timeout, done).start()

    async def close(self) -> None:
        """Cut all connections; calls under way are not answered any more."""
        for task in self._opening:
            task.cancel()
        if self._opening:
            await asyncio.wait(self._opening)
        for pool in self._pools.values():
            pool.close()
        self._pools.clear()

    def pool(self, address: Address) -> _Pool:
        """The idle connections to a participant."""
        key = address.participant
        pool = self._pools.get(key)
        if pool is None:
            pool = self._pools[key] = _Pool(lambda: self._pools.pop(key, None))
        return pool

    def open(self, call: _Call) -> None:
        """Connect for a call."""
        task = asyncio.create_task(self._open(call), name="unisono-transaction-connect")
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _open(self, call: _Call) -> None:
        try:
            async with asyncio.timeout(min(_CONNECT_SECONDS, call.left())):
                connection = await self._connected(call.address)
        except TimeoutError:
            call.end(Reply(error="could not connect in time"))
        except (OSError, ssl.SSLError, UnicodeError) as error:
            call.end(Reply(error=f"could not connect: {error}"))
        else:
            connection.send(call, fresh=True)

    async def _connected(self, address: Address) -> _Connection:
        """
        A new connection.

        Raises:
            OSError: There is none to be had.
        """
        loop = asyncio.get_running_loop()
        context = ssl.create_default_context() if address.tls else None
        name = address.host if address.tls else None
        refused: OSError | None = None
        for host in await _outside(address) if address.outside else [address.host]:
            try:
                _, connection = await loop.create_connection(
                    lambda: _Connection(self.pool(address)),
                    host,
                    address.port,
                    ssl=context,
                    server_hostname=name,
                )
            except OSError as error:
                refused = error
            else:
                return connection
        raise refused or OSError(f"{address.host} has no address")


async def _outside(address: Address) -> list[str]:
    """
    The addresses that a name has, without those of this machine: looked up once, and connected to as they
    are, so that a second answer of whoever answers for the name changes nothing.

    Raises:
        OSError: It has none.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    hosts = list(dict.fromkeys(str(place[0]) for *_, place in found))
    outside = [host for host in hosts if is_outside(host)]
    if hosts and not outside:
        raise OSError(f"{address.host} leads to {hosts[0]}, which no name outside this machine may lead to")
    return outside


class _Call:
    """One call on its way."""

    __slots__ = ("_caller", "_deadline", "_done", "_timer", "address", "connection", "request")

    def __init__(
        self, caller: HttpCaller, address: Address, request: bytes, timeout: float, done: Done
    ) -> None:
        loop = asyncio.get_running_loop()
        self._caller = caller
        self.address = address
        self.request = request
        self.connection: _Connection | None = None
        self._done: Done | None = done
        self._deadline = loop.time() + timeout
        self._timer = loop.call_later(timeout, self._late, timeout)

    def start(self) -> None:
        """On a kept connection, or a new one."""
        connection = self._caller.pool(self.address).take()
        if connection is None:
            self._caller.open(self)
        else:
            connection.send(self, fresh=False)

    def again(self) -> None:
        """The kept connection had been closed meanwhile, and nothing came: use a new one."""
        if self._done is not None:
            self.connection = None
            self._caller.open(self)

    def left(self) -> float:
        """Seconds until it is too late."""
        return max(0.0, self._deadline - asyncio.get_running_loop().time())

    def end(self, reply: Reply) -> None:
        """Say what came of it, unless that was said."""
        done, self._done = self._done, None
        if done is not None:
            self._timer.cancel()
            done(reply)

    @property
    def over(self) -> bool:
        """Whether nobody waits for it any more."""
        return self._done is None

    def _late(self, timeout: float) -> None:
        connection = self.connection
        self.end(Reply(error=f"no answer in {timeout:.3g} s"))
        if connection is not None:
            connection.abort()


class _Pool:
    """Connections to one participant that are kept open and not in use, the latest used first."""

    def __init__(self, forget: Callable[[], object]) -> None:
        self._idle: deque[tuple[_Connection, float]] = deque()
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._forget = forget

    def take(self) -> _Connection | None:
        """One that is still open."""
        while self._idle:
            connection, _ = self._idle.pop()
            if connection.usable:
                return connection
        return None

    def give(self, connection: _Connection) -> None:
        """Keep one that has done its work."""
        if len(self._idle) >= _IDLE_MAX:
            connection.abort()
            return
        self._idle.append((connection, self._loop.time()))
        if self._timer is None:
            self._timer = self._loop.call_later(_IDLE_SECONDS, self._sweep)

    def close(self) -> None:
        """Close all that are kept."""
        if self._timer is not None:
            self._timer.cancel()
        for connection, _ in self._idle:
            connection.abort()
        self._idle.clear()

    def _sweep(self) -> None:
        """Close those that have not been used for long: the first in line."""
        self._timer = None
        now = self._loop.time()
        while self._idle and (now - self._idle[0][1] >= _IDLE_SECONDS or not self._idle[0][0].usable):
            self._idle.popleft()[0].abort()
        if self._idle:
            self._timer = self._loop.call_later(_IDLE_SECONDS - (now - self._idle[0][1]), self._sweep)
        else:
            self._forget()


class _Connection(asyncio.Protocol):
    """A connection with at most one call on it."""

    def __init__(self, pool: _Pool) -> None:
        self._pool = pool
        self._transport: asyncio.Transport | None = None
        self._call: _Call | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._fresh = True
        self._begun = False  # something of the answer has come
        self._headers_done = False
        self._delimited = False  # the answer says where it ends
        self._headers: dict[bytes, bytes] = {}
        self._body: list[bytes] = []
        self._size = 0
        self._sent = 0  # bytes of the answer so far, its head and all between its chunks included
        self._answer: Reply | None = None  # until all that came with it has been read
        self._keep = False  # the connection, behind that answer
        self.usable = False

    def send(self, call: _Call, *, fresh: bool) -> None:
        """Make a call; nothing else may be under way."""
        if call.over:
            if self.usable:
                self._pool.give(self)
            return
        self._call, call.connection = call, self
        self._fresh = fresh
        self._begun = self._headers_done = self._delimited = False
        self._headers, self._body, self._size = {}, [], 0
        self._sent = 0
        if self._transport is None or not self.usable:
            self._lost("the connection broke")
        else:
            self._transport.write(call.request)

    def abort(self) -> None:
        """Cut it."""
        self.usable = False
        if self._transport is not None:
            self._transport.abort()

    # asyncio's

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is open."""
        self._transport = cast(asyncio.Transport, transport)  # not a subclass of it in every loop
        self.usable = True

    def data_received(self, data: bytes) -> None:
        """Some of an answer; while none is expected, a reason to cut."""
        if self._call is None:
            self.abort()
            return
        self._begun = True
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if self._answer is None:
                self._lost(f"the answer is no HTTP: {error}")
                self.abort()
        if self._answer is not None:
            self._complete(self._answer)
            return
        self._sent += len(data)
        if self._sent > (_MAX_SENT_BYTES if self._headers_done else MAX_HEAD_BYTES):
            what = "its body" if self._headers_done else "its head"
            self._lost(f"the answer does not end: {self._sent} bytes, and still in {what}")
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is closed; an answer without a length of its own is complete then, any other has broken off."""
        self.usable = False
        if self._call is None:
            return
        if exc is None and self._headers_done and not self._delimited:
            self._complete(self._told())
        else:
            self._lost("the answer broke off" if self._begun else "the connection broke")

    # The parser's

    def on_message_begin(self) -> None:
        """An answer, or one more: after an interim one, or one that nobody asked for."""
        self._keep = False
        self._headers = {}
        self._headers_done = self._delimited = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        """The head is there."""
        self._headers_done = True
        status = self._parser.get_status_code()
        coded = b"chunked" in self._headers.get(b"transfer-encoding", b"").lower()
        self._delimited = coded or b"content-length" in self._headers or status in (204, 304) or status < 200

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self._size += len(body)
        if self._size > MAX_ANSWER_BYTES:
            self._lost(f"the answer is larger than {MAX_ANSWER_BYTES} bytes")
            self.abort()
        else:
            self._body.append(body)

    def on_message_complete(self) -> None:
        """An answer has ended, as it said it would."""
        if self._answer is None and self._parser.get_status_code() >= 200:
            self._answer = self._told()
            self._keep = self._delimited and self._parser.should_keep_alive()

    def _told(self) -> Reply:
        return Reply(self._parser.get_status_code(), self._headers, b"".join(self._body))

    def _complete(self, answer: Reply) -> None:
        """
        Hand an answer over, and the connection to whoever calls next: not one on which more has come, which
        would pass for the answer to the next call.
        """
        call, self._call = self._call, None
        self._answer, self._body = None, []
        if self._keep and self.usable:
            self._pool.give(self)
        else:
            self.abort()
        if call is not None:
            call.end(answer)

    def _lost(self, error: str) -> None:
        call, self._call = self._call, None
        if call is None:
            return
        if not self._begun and not self._fresh:
            call.again()
        else:
            call.end(Reply(error=error))
