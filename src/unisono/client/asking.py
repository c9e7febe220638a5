"""
Carries questions to a node and answers back, with asyncio and without.

What is asked, and where, is in :mod:`.questions`. Nothing is tried again here: the errors say whether that
would be safe, and :mod:`.insisting` does it.
"""

from __future__ import annotations

import asyncio
import http.client
import os
import select
import socket
import threading
import time
from collections.abc import AsyncGenerator, Generator
from typing import TypeVar

from unisono.client.errors import MaybeDone, NodeError, NotRunning, Refused
from unisono.client.questions import Ask, EventParser, Node, Pause, ServerSent, Steps, Told

T = TypeVar("T")

OK, NO_CONTENT, NOT_MODIFIED = 200, 204, 304

_SPARE = 10.0  # seconds that an answer may take beyond what the node was asked to wait
_IDLE_MAX = 64  # connections that are kept
_CHUNK = 65536
_HEAD_MAX = 65536
_SILENCE = 60.0  # seconds without even a comment, after which a stream is taken for broken


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
            raise NotRunning(f"no node answers at {node}: {_why(error)}") from error


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
            told = Told.of(status, response.read(), headers)
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
                told = Told.of(status, response.read(), headers)
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
            raise NotRunning(f"no node answers at {node}: {_why(error)}") from error
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
        return Told.of(status, b"", headers), headers.get("connection", "").lower() != "close"
    if "content-length" not in headers:
        return Told.of(status, await reader.read(), headers), False
    content = await reader.readexactly(int(headers["content-length"]))
    return Told.of(status, content, headers), headers.get("connection", "").lower() != "close"


def _why(error: OSError) -> str:
    """What the system says, without its number; a time that is over says nothing itself."""
    return error.strerror or str(error) or "no answer in time"
