"""A gateway process for each module, and for each test a service of its own behind a listener of its own."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from pathlib import Path
from ssl import SSLContext
from typing import Any, Literal

import pytest
import pytest_asyncio

from tests.gateway.backend import Backend as Scripted
from tests.gateway.backend import Script
from tests.gateway.http2 import Http2Client
from tests.ports import free_port
from unisono.gateway.link import GatewayLink
from unisono.gateway.table import AccessLog, Backend, Listener, Rule, Table, Target, Tls

SERVICE = "shop/web"


async def eventually(is_so: Callable[[], Awaitable[bool]]) -> None:
    """Wait until something is so that nobody tells."""
    async with asyncio.timeout(20):
        while not await is_so():  # noqa: ASYNC110 - the other side is another process
            await asyncio.sleep(0.005)


def mortal() -> tuple[subprocess.Popen[bytes], int]:
    """A process that waits to be killed, and its start time."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    stat = Path(f"/proc/{process.pid}/stat").read_text()
    return process, int(stat.rsplit(")", 1)[1].split()[19])


class Running:
    """A gateway process with its folder."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.options = options
        self.socket = folder / "g.sock"
        self.table = folder / "table.json"
        self.process: subprocess.Popen[bytes] | None = None
        self.version = 0

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "unisono.gateway", *self.options, str(self.socket), str(self.table)]
        )
        while not GatewayLink(self.socket).alive():
            assert self.process.poll() is None, "the gateway ended"

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose path is short enough for a Unix socket."""
    with tempfile.TemporaryDirectory(prefix="uni-") as path:
        yield Path(path)


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    """One gateway for all tests of a module."""
    with tempfile.TemporaryDirectory(prefix="uni-") as path:
        gateway = Running(Path(path))
        gateway.start()
        try:
            yield gateway
        finally:
            gateway.stop()


class Stage:
    """A service behind the gateway: where it answers, what stands behind it, how it is changed."""

    def __init__(self, running: Running, stack: AsyncExitStack) -> None:
        self.running = running
        self.link = GatewayLink(running.socket)
        self.port = free_port()
        self.backend = Backend(wait_ms=2000, timeout_ms=10_000)
        self.rules: tuple[Rule, ...] = (Rule(service=SERVICE),)
        self.mode: Literal["http", "tcp"] = "http"
        self.tls: Tls | None = None
        self.access_log: AccessLog | None = None
        self._stack = stack

    async def serve(self, *scripts: Script) -> list[Scripted]:
        """Start a backend for each script, and have the gateway send requests there."""
        backends = [Scripted(script) for script in scripts]
        for backend in backends:
            await backend.start()
            self._stack.push_async_callback(backend.stop)
        await self.push(targets=tuple(target(i, backend.port) for i, backend in enumerate(backends)))
        return backends

    async def push(self, **changes: Any) -> None:
        """Change the service and have the gateway follow."""
        self.backend = replace(self.backend, **changes)
        self.running.version += 1
        listener = Listener(address=f"127.0.0.1:{self.port}", rules=self.rules, mode=self.mode, tls=self.tls)
        await self.link.put_table(
            Table(
                version=self.running.version,
                listeners=(listener,),
                services={SERVICE: self.backend},
                access_log=self.access_log,
            )
        )

    async def connect(self) -> Client:
        """A raw connection to the gateway."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 20)
        self._stack.callback(writer.transport.abort)
        return Client(reader, writer)

    async def connect_http2(self, ssl: SSLContext | None = None, name: str | None = None) -> Http2Client:
        """A connection to the gateway on which HTTP/2 is spoken."""
        client = await Http2Client.open(self.port, ssl, name)
        self._stack.push_async_callback(client.close)
        return client

    async def ask(self, request: bytes) -> Answer:
        """One request on a connection of its own, and its answer."""
        client = await self.connect()
        await client.say(request)
        return await client.answer(head_only=request.startswith(b"HEAD "))

    async def figures(self) -> dict[str, Any]:
        """The gateway's figures of the service."""
        service: dict[str, Any] = (await self.link.measurements())["services"][SERVICE]
        return service

    async def until(self, name: str, value: int) -> None:
        """Wait until a figure of the service has a value."""

        async def has_it() -> bool:
            return bool((await self.figures())[name] == value)

        await eventually(has_it)


class Answer:
    """An answer as it came."""

    def __init__(self, head: bytes, body: bytes) -> None:
        self.head = head
        self.status = int(head.split(b" ", 2)[1])
        lines = head.decode("latin-1").split("\r\n")[1:-2]
        self.headers = {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
        }
        self.body = body

    @property
    def reason(self) -> str | None:
        """Why the gateway answered itself."""
        return self.headers.get("unisono-reason")


class Client:
    """A client that speaks HTTP by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def say(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def head(self) -> bytes:
        return await self.reader.readuntil(b"\r\n\r\n")

    async def answer(self, *, head_only: bool = False) -> Answer:
        """The next answer with its body, trailers included as they came; an interim one has none."""
        async with asyncio.timeout(30):
            head = await self.head()
            answer = Answer(head, b"")
            if head_only or answer.status < 200 or answer.status in (204, 304):
                return answer
            if "chunked" in answer.headers.get("transfer-encoding", ""):
                answer.body = await self.reader.readuntil(b"0\r\n")
                while (line := await self.reader.readline()) not in (b"\r\n", b""):
                    answer.body += line
            elif "content-length" in answer.headers:
                answer.body = await self.reader.readexactly(int(answer.headers["content-length"]))
            else:
                answer.body = await self.reader.read()
            return answer

    async def is_closed(self) -> bool:
        """Wait for the gateway to close; whether nothing came before."""
        async with asyncio.timeout(30):
            with suppress(ConnectionError):
                return await self.reader.read() == b""
            return True


def target(number: int, port: int, **more: Any) -> Target:
    """An instance at a port."""
    return Target(id=f"web-{number}", generation=1, address=f"127.0.0.1:{port}", **more)


@pytest_asyncio.fixture
async def stage(running: Running) -> AsyncIterator[Stage]:
    """A service of this test alone."""
    async with AsyncExitStack() as stack:
        yield Stage(running, stack)
