"""
Asks the node whose instance this is, with asyncio and without; what is asked is decided by generators.

Where the node is comes from the environment of an instance: ``UNISONO_API`` and ``UNISONO_TOKEN``, or else
the socket in ``UNISONO_STATE`` and the application's name. Nothing is tried again here.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import select
import socket
import threading
import time
from collections.abc import AsyncGenerator, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import urlencode, urlsplit

from unisono.client.errors import MaybeDone, NodeError, NotRunning, Refused

T = TypeVar("T")

OK, NO_CONTENT, NOT_MODIFIED = 200, 204, 304

_SPARE = 10.0  # seconds that an answer may take beyond what the node was asked to wait
_IDLE_MAX = 64  # connections that are kept
_CHUNK = 65536
_HEAD_MAX = 65536
_EVENT_MAX = 64 << 20  # an event holds all changes of one revision
_SILENCE = 60.0  # seconds without even a comment, after which a stream is taken for broken


@dataclass(frozen=True, kw_only=True)
class Node:
    """Where a node answers: a Unix socket, or host and port; and who asks."""

    socket_path: str | None = None
    host: str = ""
    port: int = 0
    token: str | None = field(default=None, repr=False)  # a secret: not for logs
    namespace: str | None = None

    @classmethod
    def at(cls, api: str, *, token: str | None = None, namespace: str | None = None) -> Node:
        """
        The node at ``unix:/path/of.sock`` or ``http://host:port``.

        Raises:
            ValueError: It is neither.
        """
        if api.startswith("unix:"):
            return cls(socket_path=api.removeprefix("unix:"), token=token, namespace=namespace)
        parts = urlsplit(api)
        if parts.scheme != "http" or not parts.hostname:
            raise ValueError(f"a node answers at unix:/PATH or http://HOST:PORT, not at {api!r}")
        return cls(host=parts.hostname, port=parts.port or 80, token=token, namespace=namespace)

    @classmethod
    def of_environment(cls, environment: Mapping[str, str] = os.environ) -> Node:
        """
        The node whose instance this process is.

        Raises:
            NotRunning: It is none.
        """
        api = environment.get("UNISONO_API")
        if api:
            return cls.at(api, token=environment.get("UNISONO_TOKEN"))
        state, application = environment.get("UNISONO_STATE"), environment.get("UNISONO_APPLICATION")
        if not state or not application:
            raise NotRunning(
                "this process is no instance of a node, UNISONO_API is not set; give api= and namespace="
            )
        return cls(socket_path=os.path.join(state, "api.sock"), namespace=application)

    def __str__(self) -> str:
        return self.socket_path or f"{self.host}:{self.port}"

    def target(self, path: str, query: Mapping[str, str]) -> str:
        """The request's target, with the namespace where one is to be named."""
        pairs = {**query, **({"namespace": self.namespace} if self.namespace else {})}
        return f"{path}?{urlencode(pairs)}" if pairs else path

    def headers(self, ask: Ask, body: bytes | None) -> dict[str, str]:
        """The request's headers."""
        found = {"Host": "localhost", **dict(ask.headers)}
        if self.token:
            found["Authorization"] = f"Bearer {self.token}"
        if body is not None:
            found["Content-Type"] = "application/json" if ask.raw is None else "application/octet-stream"
            found["Content-Length"] = str(len(body))
        return found


@dataclass(frozen=True, kw_only=True)
class Ask:
    """
    One request, with a ``body`` that is sent as JSON, or ``raw`` bytes.

    ``wait`` is for how many seconds the node was asked to wait before it answers.
    """

    method: str
    path: str
    body: Mapping[str, Any] | None = None
    raw: bytes | None = None
    query: tuple[tuple[str, str], ...] = ()
    headers: tuple[tuple[str, str], ...] = ()
    wait: float = 0.0

    def content(self) -> bytes | None:
        """What is sent; POST always has JSON."""
        if self.raw is not None:
            return self.raw
        if self.body is None:
            return b"{}" if self.method == "POST" else None
        return json.dumps(self.body, separators=(",", ":"), allow_nan=False).encode()


@dataclass(frozen=True, kw_only=True)
class Told:
    """One answer: what its JSON says, or its bytes where it is none; header names are in lower case."""

    status: int
    content: Any
    headers: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class ServerSent:
    """One server-sent event."""

    kind: str
    id: str | None
    data: str


@dataclass(frozen=True)
class Pause:
    """Wait for so many seconds."""

    seconds: float


Steps = Generator[Ask | Pause, Any, T]
"""What is to be asked, one step after the other: each is sent its answer, or thrown what went wrong."""


async def carry_out(asking: Asking, steps: Steps[T]) -> T:
    """Ask step by step, with asyncio; what the steps return."""
    try:
        step = next(steps)
        while True:
            try:
                if isinstance(step, Pause):
                    await asyncio.sleep(step.seconds)
                    told = None
                else:
                    told = await asking.ask(step)
            except NodeError as error:
                step = steps.throw(error)
            else:
                step = steps.send(told)
    except StopIteration as end:
        value: T = end.value
        return value


def carry_out_sync(asking: AskingSync, steps: Steps[T]) -> T:
    """As :func:`carry_out`, without asyncio."""
    try:
        step = next(steps)
        while True:
            try:
                if isinstance(step, Pause):
                    time.sleep(step.seconds)
                    told = None
                else:
                    told = asking.ask(step)
            except NodeError as error:
                step = steps.throw(error)
            else:
                step = steps.send(told)
    except StopIteration as end:
        value: T = end.value
        return value


def node_of(api: str | None, namespace: str | None) -> Node:
    """The node that is named, or the one whose instance this is."""
    return Node.of_environment() if api is None else Node.at(api, namespace=namespace)


class Asking:
    """Asks with asyncio. Its connections belong to one event loop."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(self, ask: Ask) -> Told:
        """
        Ask and wait for the answer.

        Raises:
            NotRunning: Nothing was sent.
            MaybeDone: It was sent, and no whole answer came; also when cancelled it may have been done.
        """
        reader, writer = self._take_idle() or await self._connect()
        kept = False
        try:
            async with asyncio.timeout(ask.wait + _SPARE):
                writer.write(_request(self._node, ask))
                await writer.drain()
                told, kept = await _read(reader)
        except (OSError, EOFError, ValueError, TimeoutError) as error:
            raise MaybeDone(f"the node did not answer: {error or type(error).__name__}") from error
        finally:
            if kept and len(self._idle) < _IDLE_MAX:
                self._idle.append((reader, writer))
            else:
                writer.close()
        return told

    async def events(self, ask: Ask) -> AsyncGenerator[ServerSent, None]:
        """
        The server-sent events of an answer, until the node ends it; over a connection of its own.

        Raises:
            NotRunning: Nothing was sent, or the stream broke, or not even a comment came for a while.
            Refused: The node said no.
        """
        reader, writer = await self._connect()
        try:
            async with asyncio.timeout(_SPARE):
                writer.write(_request(self._node, ask))
                await writer.drain()
                status, headers = await _read_head(reader)
                if status != OK:
                    told, _ = await _read_body(reader, status, headers)
                    raise Refused(status, told.content if isinstance(told.content, dict) else {})
            parser = EventParser()
            while True:
                async with asyncio.timeout(_SILENCE):
                    chunk = await _read_chunk(reader)
                if not chunk:
                    return
                for event in parser.feed(chunk):
                    yield event
        except (OSError, EOFError, ValueError, TimeoutError) as error:
            raise NotRunning(f"the node's stream broke: {error or type(error).__name__}") from error
        finally:
            writer.close()

    def close(self) -> None:
        """Close the connections that are kept."""
        while self._idle:
            self._idle.pop()[1].close()

    def _take_idle(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        """A kept connection that the node has not closed meanwhile."""
        while self._idle:
            reader, writer = self._idle.pop()
            if not reader.at_eof() and not writer.is_closing():
                return reader, writer
            writer.close()
        return None

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        node = self._node
        try:
            async with asyncio.timeout(_SPARE):
                if node.socket_path is not None:
                    return await asyncio.open_unix_connection(node.socket_path, limit=_HEAD_MAX)
                return await asyncio.open_connection(node.host, node.port, limit=_HEAD_MAX)
        except (OSError, TimeoutError) as error:
            raise NotRunning(f"no node answers at {node}: {error}") from error


class AskingSync:
    """Asks without asyncio, over one connection for each thread; may be shared by threads."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._kept = _Kept()

    def ask(self, ask: Ask) -> Told:
        """As :meth:`Asking.ask`."""
        connection = self._take(ask.wait + _SPARE)
        kept = False
        try:
            status, headers, response = self._send(connection, ask)
            told = _told(status, response.read(), headers)
            kept = not response.will_close
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise MaybeDone(f"the node did not answer: {error or type(error).__name__}") from error
        finally:
            if not kept:
                self._kept.connection = None
                connection.close()
        return told

    def events(self, ask: Ask) -> Generator[ServerSent, None, None]:
        """As :meth:`Asking.events`."""
        connection = self._connect(_SILENCE)
        try:
            status, headers, response = self._send(connection, ask)
            if status != OK:
                told = _told(status, response.read(), headers)
                raise Refused(status, told.content if isinstance(told.content, dict) else {})
            parser = EventParser()
            while chunk := response.read1(_CHUNK):
                yield from parser.feed(chunk)
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise NotRunning(f"the node's stream broke: {error or type(error).__name__}") from error
        finally:
            connection.close()

    def _send(
        self, connection: http.client.HTTPConnection, ask: Ask
    ) -> tuple[int, dict[str, str], http.client.HTTPResponse]:
        body = ask.content()
        target = self._node.target(ask.path, dict(ask.query))
        connection.request(ask.method, target, body, self._node.headers(ask, body))
        response = connection.getresponse()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response

    def _take(self, timeout: float) -> http.client.HTTPConnection:
        """This thread's connection; a new one where the node has closed it, or this process was forked."""
        kept = self._kept
        connection = kept.connection
        if connection is None or kept.pid != os.getpid() or _is_over(connection):
            kept.connection, kept.pid = self._connect(timeout), os.getpid()
            return kept.connection
        connection.sock.settimeout(timeout)
        return connection

    def _connect(self, timeout: float) -> http.client.HTTPConnection:
        node = self._node
        connection = http.client.HTTPConnection(node.host or "localhost", node.port, timeout=timeout)
        try:
            if node.socket_path is not None:
                connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                connection.sock.settimeout(timeout)
                connection.sock.connect(node.socket_path)
            else:
                connection.connect()
        except OSError as error:
            connection.close()
            raise NotRunning(f"no node answers at {node}: {error}") from error
        return connection


class _Kept(threading.local):
    """What one thread keeps."""

    connection: http.client.HTTPConnection | None = None
    pid = 0


def _is_over(connection: http.client.HTTPConnection) -> bool:
    """Whether a connection without a request can be read from: then the node has closed it."""
    if connection.sock is None:
        return True
    watched = select.poll()  # select() can't take descriptors above 1023
    watched.register(connection.sock, select.POLLIN)
    return bool(watched.poll(0))


class EventParser:
    """Takes a stream of server-sent events in pieces of any size, and gives those that are whole."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterator[ServerSent]:
        """
        The events that ``data`` completes, without comments.

        Raises:
            ValueError: An event is larger than any that a node sends.
        """
        begin = max(0, len(self._rest) - 1)
        self._rest += data
        while (end := self._rest.find(b"\n\n", begin)) >= 0:
            lines = self._rest[:end].decode().split("\n")
            del self._rest[: end + 2]
            begin = 0
            said = {
                name: value.removeprefix(" ") for name, _, value in (line.partition(":") for line in lines)
            }
            if "data" in said:
                yield ServerSent(kind=said.get("event", "message"), id=said.get("id"), data=said["data"])
        if len(self._rest) > _EVENT_MAX:
            raise ValueError(f"an event is larger than {_EVENT_MAX} bytes")


def _request(node: Node, ask: Ask) -> bytes:
    body = ask.content()
    lines = [f"{ask.method} {node.target(ask.path, dict(ask.query))} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in node.headers(ask, body).items()]
    return "\r\n".join([*lines, "", ""]).encode() + (body or b"")


async def _read(reader: asyncio.StreamReader) -> tuple[Told, bool]:
    """An answer, and whether its connection may be kept. The node says the length of all but streams."""
    status, headers = await _read_head(reader)
    return await _read_body(reader, status, headers)


async def _read_chunk(reader: asyncio.StreamReader) -> bytes:
    """The next chunk of a body (RFC 9112, section 7.1), empty at its end."""
    size = int((await reader.readline()).partition(b";")[0], 16)
    return (await reader.readexactly(size + 2))[:-2]


async def _read_head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    status = int(head[0].split(" ", 2)[1])
    headers = {
        name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])
    }
    return status, headers


async def _read_body(reader: asyncio.StreamReader, status: int, headers: dict[str, str]) -> tuple[Told, bool]:
    if status in (NO_CONTENT, NOT_MODIFIED):
        return _told(status, b"", headers), headers.get("connection", "").lower() != "close"
    if "content-length" not in headers:
        return _told(status, await reader.read(), headers), False
    content = await reader.readexactly(int(headers["content-length"]))
    return _told(status, content, headers), headers.get("connection", "").lower() != "close"


def _told(status: int, content: bytes, headers: Mapping[str, str]) -> Told:
    is_json = headers.get("content-type", "").partition(";")[0].endswith(("/json", "+json"))
    found: Any = content
    if is_json:
        found = json.loads(content) if content else None
    return Told(status=status, content=found, headers=headers)
