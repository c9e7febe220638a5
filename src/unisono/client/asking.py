"""
Asks the node whose instance this is: JSON requests and answers, with asyncio and without.

Where the node is comes from the environment of an instance: ``UNISONO_API`` and ``UNISONO_TOKEN``, or else
the socket in ``UNISONO_STATE`` and the application's name. Nothing is tried again here.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

from unisono.client.errors import MaybeDone, NotRunning

_SPARE = 10.0  # seconds that an answer may take beyond what the node was asked to wait
_IDLE_MAX = 64  # connections that are kept
_HEAD_MAX = 64 << 10


@dataclass(frozen=True, kw_only=True)
class Node:
    """Where a node answers: a Unix socket, or host and port; and who asks."""

    socket_path: str | None = None
    host: str = ""
    port: int = 0
    token: str | None = None
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

    def headers(self, body: bytes | None) -> dict[str, str]:
        """The request's headers."""
        found = {"Host": "localhost", "Accept": "application/json"}
        if self.token:
            found["Authorization"] = f"Bearer {self.token}"
        if body is not None:
            found["Content-Type"] = "application/json"
            found["Content-Length"] = str(len(body))
        return found


@dataclass(frozen=True, kw_only=True)
class Ask:
    """One request; ``wait`` is for how many seconds the node was asked to wait before it answers."""

    method: str
    path: str
    body: Mapping[str, Any] | None = None
    query: tuple[tuple[str, str], ...] = ()
    wait: float = 0.0

    def content(self) -> bytes | None:
        """The body as JSON; POST always has one."""
        if self.body is None:
            return b"{}" if self.method == "POST" else None
        return json.dumps(self.body, separators=(",", ":"), allow_nan=False).encode()


@dataclass(frozen=True, kw_only=True)
class Told:
    """One answer."""

    status: int
    content: Any


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
        reader, writer = self._idle.pop() if self._idle else await self._connect()
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

    def close(self) -> None:
        """Close the connections that are kept."""
        while self._idle:
            self._idle.pop()[1].close()

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
    """Asks without asyncio, over a connection for each request; may be shared by threads."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def ask(self, ask: Ask) -> Told:
        """As :meth:`Asking.ask`."""
        node, body = self._node, ask.content()
        connection = http.client.HTTPConnection(
            node.host or "localhost", node.port, timeout=ask.wait + _SPARE
        )
        try:
            if node.socket_path is not None:
                connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                connection.sock.settimeout(ask.wait + _SPARE)
                connection.sock.connect(node.socket_path)
            else:
                connection.connect()
        except OSError as error:
            raise NotRunning(f"no node answers at {node}: {error}") from error
        try:
            headers = {**node.headers(body), "Connection": "close"}
            connection.request(ask.method, node.target(ask.path, dict(ask.query)), body, headers)
            response = connection.getresponse()
            return _told(response.status, response.read())
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise MaybeDone(f"the node did not answer: {error or type(error).__name__}") from error
        finally:
            connection.close()


def _request(node: Node, ask: Ask) -> bytes:
    body = ask.content()
    lines = [f"{ask.method} {node.target(ask.path, dict(ask.query))} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in node.headers(body).items()]
    return "\r\n".join([*lines, "", ""]).encode() + (body or b"")


async def _read(reader: asyncio.StreamReader) -> tuple[Told, bool]:
    """An answer, and whether its connection may be kept. The node says the length of all that is JSON."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    status = int(head[0].split(" ", 2)[1])
    headers = {
        name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])
    }
    if "content-length" not in headers:
        return _told(status, await reader.read()), False
    content = await reader.readexactly(int(headers["content-length"]))
    return _told(status, content), headers.get("connection", "").lower() != "close"


def _told(status: int, content: bytes) -> Told:
    return Told(status=status, content=json.loads(content) if content else None)
