"""Initiators in this process, each with a connection of its own, and the participant that does nothing."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httptools

from bench.harness import PrivateNode, free_port, listens, wait_until
from unisono.transactions.submission import new_gid

AT_A_TIME = 64
HERE = Path(__file__).resolve().parent

Branches = Callable[[], list[dict[str, Any]]]


class Participant:
    """The participant process, at an address that stays the same when it is started again."""

    def __init__(self, port: int | None = None) -> None:
        self.port = port or free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Participant:
        command = [sys.executable, str(HERE / "participant.py"), str(self.port)]
        self._process = subprocess.Popen(command)
        wait_until(lambda: listens(self.port), "the participant listens")
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def branches(self, count: int, kind: str = "do") -> Branches:
        """Makes the branches of a transaction."""

        def made() -> list[dict[str, Any]]:
            return [
                {"id": f"b{n}", "url": f"http://127.0.0.1:{self.port}/{kind}/{n}", "payload": {"n": n}}
                for n in range(count)
            ]

        return made

    def first_call(self) -> float | None:
        """When it was called first, in seconds since the epoch."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/calls") as answer:
            first: float | None = json.load(answer)["first"]
        return first


class Asker:
    """One connection, with one request at a time on it."""

    def __init__(self, transport: asyncio.BaseTransport, answers: _Answers) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._answers = answers

    @classmethod
    async def at_node(cls, node: PrivateNode) -> Asker:
        """Connected to a node's API."""
        loop = asyncio.get_running_loop()
        return cls(*await loop.create_unix_connection(_Answers, str(node.folder.api_socket)))

    @classmethod
    async def at_port(cls, port: int) -> Asker:
        """Connected to a server on loopback."""
        return cls(*await asyncio.get_running_loop().create_connection(_Answers, "127.0.0.1", port))

    async def post(self, path: str, body: bytes) -> tuple[int, bytes]:
        """Ask, and wait for the answer."""
        answer: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()
        self._answers.next = answer
        head = f"POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
        self._transport.write(head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        return await answer

    async def begin(self, mode: str, branches: Branches, wait_ms: int, timeout_ms: int) -> tuple[int, bytes]:
        """Submit one transaction, and wait for its end."""
        given = {"gid": new_gid(), "mode": mode, "wait_ms": wait_ms, "timeout_ms": timeout_ms}
        body = json.dumps({**given, "branches": branches()}).encode()
        return await self.post("/v1/transactions?namespace=bench", body)

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()


class _Answers(asyncio.Protocol):
    def __init__(self) -> None:
        self.next: asyncio.Future[tuple[int, bytes]] | None = None
        self._parser = httptools.HttpResponseParser(self)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._body = b""

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        assert self.next is not None
        self.next.set_result((self._parser.get_status_code(), self._body))

    def connection_lost(self, exc: Exception | None) -> None:
        if self.next is not None and not self.next.done():
            self.next.set_exception(ConnectionError("the server closed the connection"))


async def load(
    node: PrivateNode,
    mode: str,
    branches: Branches,
    count: int,
    *,
    at_a_time: int = AT_A_TIME,
    wait_ms: int = 30_000,
    timeout_ms: int = 30_000,
) -> tuple[float, list[float], list[dict[str, Any]]]:
    """Transactions per second, the seconds that each took, and what became of each."""
    left = count
    took: list[float] = []
    ends: list[dict[str, Any]] = []

    async def initiator() -> None:
        nonlocal left
        one = await Asker.at_node(node)
        while left > 0:
            left -= 1
            began = time.perf_counter()
            status, body = await one.begin(mode, branches, wait_ms, timeout_ms)
            took.append(time.perf_counter() - began)
            if status != 201:
                raise RuntimeError(f"begin was answered with {status}: {body!r}")
            ends.append(json.loads(body) if at_a_time < AT_A_TIME else {"committed": b'"committed"' in body})
        one.close()

    began = time.perf_counter()
    await asyncio.gather(*[initiator() for _ in range(at_a_time)])
    return count / (time.perf_counter() - began), took, ends
