"""HTTP/2 by hand, frame by frame where a test wants it: a client for the gateway, and a scripted instance."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from ssl import SSLContext

from h2.config import H2Configuration
from h2.connection import ConnectionState, H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    RequestReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.exceptions import ProtocolError

Headers = Iterable[tuple[str, str]]

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What a client says first."""


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A frame as it goes over the wire (RFC 9113, section 4.1)."""
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


@dataclass
class Stream:
    """What has come on one stream."""

    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    trailers: dict[str, str] | None = None
    ended: bool = False
    reset: int | None = None  # the error code that it was reset with
    unsent: int | None = None  # GOAWAY said that it was not looked at, with this code

    @property
    def status(self) -> int:
        return int(self.headers[":status"])

    @property
    def over(self) -> bool:
        return self.ended or self.reset is not None or self.unsent is not None


class Connection:
    """One side of a connection: what came, and when it changes."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        client: bool,
        lenient: bool = False,
    ) -> None:
        self.reader = reader
        self.writer = writer
        strict = not lenient
        self.h2 = H2Connection(
            H2Configuration(
                client_side=client,
                header_encoding="utf-8",
                validate_outbound_headers=strict,
                normalize_outbound_headers=strict,
            )
        )
        self.streams: dict[int, Stream] = {}
        self.goaway: int | None = None  # its error code
        self.closed = False
        self.takes_data = True  # whether data that came is acknowledged, so that more may come
        self._changed = asyncio.Condition()
        self._reading: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self.h2.initiate_connection()
        await self.flush()
        self._reading = asyncio.create_task(self._read())

    async def close(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
        self.writer.transport.abort()

    async def flush(self) -> None:
        self.writer.write(self.h2.data_to_send())
        with suppress(ConnectionError):
            await self.writer.drain()

    async def send_data(self, stream: int, data: bytes, *, end: bool = False) -> None:
        """Send data as the other side's windows allow."""
        while data:
            await self.until(lambda: self._window(stream) > 0 or self._is_given_up(stream))
            if self._window(stream) <= 0:
                raise ConnectionError("the other side takes nothing more of this stream")
            size = min(len(data), self._window(stream), self.h2.max_outbound_frame_size)
            self.h2.send_data(stream, data[:size])
            data = data[size:]
            await self.flush()
        if end:
            self.h2.end_stream(stream)
            await self.flush()

    def _window(self, stream: int) -> int:
        return self.h2.local_flow_control_window(stream)

    def _is_given_up(self, stream: int) -> bool:
        there = self.streams[stream]
        # The end of a request is not that of its answer.
        is_answered = there.ended and self.h2.config.client_side
        return is_answered or there.reset is not None or there.unsent is not None

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Wait until something is so that only the other side can bring about."""
        async with asyncio.timeout(60), self._changed:
            await self._changed.wait_for(lambda: is_so() or self.closed)

    async def _read(self) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError, ProtocolError):
            if not self.h2.config.client_side:
                self.h2.receive_data(await self.reader.readexactly(24))
            while True:
                head = await self.reader.readexactly(9)
                frame = head + await self.reader.readexactly(int.from_bytes(head[:3]))
                for event in self.h2.receive_data(frame):
                    self.note(event)
                await self.flush()
                async with self._changed:
                    self._changed.notify_all()
        self.closed = True
        async with self._changed:
            self._changed.notify_all()

    def note(self, event: Event) -> None:
        """Remember what came."""
        if isinstance(event, RequestReceived | ResponseReceived):
            self.streams.setdefault(event.stream_id, Stream()).headers = dict(event.headers)  # type: ignore[arg-type]
        elif isinstance(event, TrailersReceived):
            self.streams[event.stream_id].trailers = dict(event.headers)  # type: ignore[arg-type]
        elif isinstance(event, DataReceived):
            self.streams[event.stream_id].body += event.data
            if self.takes_data:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, StreamEnded):
            self.streams[event.stream_id].ended = True
        elif isinstance(event, StreamReset):
            self.streams[event.stream_id].reset = int(event.error_code)
        elif isinstance(event, ConnectionTerminated):
            self.goaway = int(event.error_code or 0)
            # h2 takes this for the end; what was asked before is still answered.
            self.h2.state_machine.state = ConnectionState.CLIENT_OPEN
            for number, stream in self.streams.items():
                if number > (event.last_stream_id or 0):
                    stream.unsent = self.goaway


class Http2Client(Connection):
    """A client of the gateway."""

    @classmethod
    async def open(
        cls, port: int, ssl: SSLContext | None = None, name: str | None = None, *, lenient: bool = False
    ) -> Http2Client:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=ssl, server_hostname=name)
        client = cls(reader, writer, client=True, lenient=lenient)
        await client.start()
        return client

    async def request(
        self,
        path: str = "/",
        *,
        method: str = "GET",
        headers: Headers = (),
        end: bool = True,
        host: str = "shop",
    ) -> int:
        """Begin a request; gives its stream."""
        stream = self.h2.get_next_available_stream_id()
        self.streams[stream] = Stream()
        scheme = "https" if self.writer.get_extra_info("ssl_object") else "http"
        pseudo = [(":method", method), (":scheme", scheme), (":authority", host), (":path", path)]
        self.h2.send_headers(stream, [*pseudo, *headers], end_stream=end)
        await self.flush()
        return stream

    async def answer(self, stream: int) -> Stream:
        """Wait for the end of an answer, good or bad."""
        await self.until(lambda: self.streams[stream].over)
        return self.streams[stream]

    async def ask(self, path: str = "/", **more: str) -> Stream:
        """A GET and its answer."""
        return await self.answer(await self.request(path, headers=tuple(more.items())))


class Http2Peer(Connection):
    """A connection that the gateway has made to an instance."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super().__init__(reader, writer, client=False)
        self._seen: set[int] = set()

    async def next_request(self) -> int:
        """Wait for the head of a request that was not given out yet; gives its stream."""
        await self.until(lambda: bool(self.streams.keys() - self._seen))
        fresh = sorted(self.streams.keys() - self._seen)
        if not fresh:
            raise ConnectionError("the gateway has closed the connection")
        self._seen.add(fresh[0])
        return fresh[0]

    async def body(self, stream: int) -> bytes:
        """Wait for the end of a request's body."""
        await self.until(lambda: self.streams[stream].over)
        return self.streams[stream].body

    async def answer(
        self, stream: int, body: bytes = b"ok", *, headers: Headers = (), trailers: Headers | None = None
    ) -> None:
        """Send a whole answer."""
        self.h2.send_headers(stream, [(":status", "200"), *headers])
        await self.send_data(stream, body, end=trailers is None)
        if trailers is not None:
            self.h2.send_headers(stream, trailers, end_stream=True)
        await self.flush()


Http2Script = Callable[[Http2Peer], Awaitable[None]]


@dataclass
class Http2Backend:
    """An instance that speaks HTTP/2 and whose every connection follows a script."""

    script: Http2Script
    peers: list[Http2Peer] = field(default_factory=list)
    port: int = 0
    _server: asyncio.Server | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for peer in self.peers:
            await peer.close()

    @property
    def requests(self) -> list[Stream]:
        """All that came, in order of connections."""
        return [stream for peer in self.peers for stream in peer.streams.values()]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Http2Peer(reader, writer)
        self.peers.append(peer)
        await peer.start()
        task = asyncio.create_task(self._follow(peer))
        self._tasks.add(task)
        await asyncio.wait((task,))
        self._tasks.discard(task)

    async def _follow(self, peer: Http2Peer) -> None:
        with suppress(ConnectionError, ProtocolError):
            await self.script(peer)
