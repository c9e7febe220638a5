"""
The link to the gateway: its control API as calls, over the Unix socket at which it answers.

Every call is a connection of its own, which costs the kernel some microseconds and leaves nothing to keep
or to mend. It speaks HTTP/1.0, where an answer ends with its connection, so that reading it takes no HTTP
library; the events come as they happen in the same way. What goes wrong is told by
:mod:`unisono.gateway.errors`. Keeping the gateway alive is :mod:`unisono.gateway.process`'s.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlencode

from unisono.gateway import presence
from unisono.gateway.errors import Outdated, Refused, Unbound, Unreachable
from unisono.gateway.table import Table

_HEAD_END = b"\r\n\r\n"
_LINE_BYTES_MAX = 1 << 20
_GLANCE_SECONDS = 0.05  # a gateway that is well answers within a millisecond


@dataclass(frozen=True, kw_only=True)
class GatewayEvent:
    """
    Something that the gateway saw.

    ``target-exited``: an instance's process is gone and gets no more requests. ``target-suspect``: no
    connection to an instance can be made; it is set aside for a while. ``target-ejected``: it fails requests
    so often that it gets none for a while; ``target-returned``: it gets them again. ``no-target``: a request
    waits for a service without a ready instance; ``instance`` and ``generation`` are ``None`` then.
    """

    kind: Literal["target-exited", "target-suspect", "target-ejected", "target-returned", "no-target"]
    service: str
    instance: str | None
    generation: int | None
    reason: str


@dataclass(frozen=True)
class _Answer:
    status: int
    document: Any

    @property
    def detail(self) -> str:
        """What the gateway says is wrong."""
        if isinstance(self.document, dict):
            return str(self.document.get("detail", f"status {self.status}"))
        return f"status {self.status}"


class GatewayLink:
    """
    The gateway behind one control socket, whichever process that is at the time.

    No call has a limit of its own on time: a caller that needs one wraps it in :func:`asyncio.timeout`.
    A cancelled call may have reached the gateway.
    """

    def __init__(self, control_socket: Path) -> None:
        self._socket = control_socket

    def alive(self) -> bool:
        """Whether a gateway takes connections at the socket now."""
        return presence.answers(self._socket)

    async def put_table(self, table: Table) -> None:
        """
        Have the gateway follow this table; on return every request from now on does.

        Raises:
            Unreachable: No answer.
            Outdated: The table in force is newer.
            Unbound: Listeners could not be bound; the table in force is the old one.
            Refused: The table is malformed.
        """
        answer = await self._call("PUT", "/v1/table", table.to_json())
        match answer.status:
            case 200:
                return
            case 409:
                raise Outdated(int(answer.document["version"]))
            case 503:
                raise Unbound({one["address"]: one["reason"] for one in answer.document["unbound"]})
            case _:
                raise Refused(answer.detail)

    async def table(self) -> dict[str, Any]:
        """
        The table in force, as :meth:`Table.to_json` writes it; version 0 before the first one.

        Raises:
            Unreachable: No answer.
        """
        return await self._get("/v1/table")

    async def drained(self, instance: str, generation: int, timeout: float) -> int:  # noqa: ASYNC109
        """
        Wait until an instance has no request left, at most ``timeout`` seconds; how many it has.

        Raises:
            Unreachable: No answer.
        """
        query = urlencode(
            {"instance": instance, "generation": generation, "timeout_ms": max(0, round(timeout * 1000))}
        )
        return int((await self._get(f"/v1/drained?{query}"))["in_flight"])

    async def measurements(self) -> dict[str, Any]:
        """
        The gateway's figures, as ``docs/reference/gateway.md`` lists them.

        Raises:
            Unreachable: No answer.
        """
        return await self._get("/v1/measurements")

    async def metrics(self) -> str:
        """
        The gateway's figures in Prometheus's text format.

        Raises:
            Unreachable: No answer.
        """
        async with self._opened("GET", "/v1/metrics", b"") as (reader, _):
            status = _read_status(await self._until_head_end(reader))
            if status != 200:
                raise Refused(f"status {status}")
            return (await reader.read()).decode()

    def in_flight(self) -> Mapping[str, int]:
        """
        Requests in flight by instance id, asked and answered within this call; empty when no gateway answers
        within 50 ms. Of two generations of an instance, the one in the table counts.
        """
        return {
            instance: target["in_flight"]
            for service in self.measured().get("services", {}).values()
            for instance, target in service["targets"].items()
        }

    def measured(self) -> dict[str, Any]:
        """The same as :meth:`measurements`, as :meth:`in_flight` asks for it; empty when nobody answers."""
        try:
            answer = self._call_now("/v1/measurements")
        except (OSError, Unreachable):
            return {}
        return answer.document if isinstance(answer.document, dict) else {}

    async def events(self) -> AsyncGenerator[GatewayEvent, None]:
        """
        What the gateway sees, from what nobody has heard yet (1024 at most) on, without end.

        Raises:
            Unreachable: The gateway is gone, or this listener was too slow; call again and read the figures.
        """
        async with self._opened("GET", "/v1/events", b"") as (reader, _):
            _read_status(await self._until_head_end(reader))
            while True:
                try:
                    line = await reader.readuntil(b"\n")
                except (asyncio.IncompleteReadError, OSError) as error:
                    raise Unreachable("the gateway ended the stream of events") from error
                told = json.loads(line)
                # A newer gateway may say more of an event than we know of.
                yield GatewayEvent(**{name: told.get(name) for name in GatewayEvent.__dataclass_fields__})

    async def _get(self, path: str) -> dict[str, Any]:
        answer = await self._call("GET", path)
        if answer.status != 200 or not isinstance(answer.document, dict):
            raise Refused(answer.detail)
        return answer.document

    async def _call(self, method: str, path: str, document: object = None) -> _Answer:
        body = b"" if document is None else json.dumps(document, separators=(",", ":")).encode()
        async with self._opened(method, path, body) as (reader, _):
            head = await self._until_head_end(reader)
            try:
                return _parse(head, await reader.read())
            except (OSError, ValueError) as error:
                raise Unreachable(f"the gateway broke off its answer: {error}") from error

    @asynccontextmanager
    async def _opened(
        self, method: str, path: str, body: bytes
    ) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        try:
            reader, writer = await asyncio.open_unix_connection(self._socket, limit=_LINE_BYTES_MAX)
        except OSError as error:
            message = f"no gateway answers at {self._socket}: {error.strerror or error}"
            raise Unreachable(message, may_have_happened=False) from error
        try:
            try:
                writer.write(_request(method, path, body))
                await writer.drain()
            except OSError as error:
                raise Unreachable(f"the gateway broke the connection: {error}") from error
            yield reader, writer
        finally:
            # Nothing is left to be sent, so there is nothing to wait for.
            writer.transport.abort()

    async def _until_head_end(self, reader: asyncio.StreamReader) -> bytes:
        try:
            return await reader.readuntil(_HEAD_END)
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError) as error:
            raise Unreachable(f"the gateway did not answer: {error}") from error

    def _call_now(self, path: str) -> _Answer:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(_GLANCE_SECONDS)
            connection.connect(str(self._socket))
            connection.sendall(_request("GET", path, b""))
            with connection.makefile("rb") as answer:
                head, _, body = answer.read().partition(_HEAD_END)
        try:
            return _parse(head, body)
        except ValueError as error:
            raise Unreachable(f"the gateway broke off its answer: {error}") from error


def _request(method: str, path: str, body: bytes) -> bytes:
    head = f"{method} {path} HTTP/1.0\r\nHost: gateway\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _parse(head: bytes, body: bytes) -> _Answer:
    return _Answer(_read_status(head), json.loads(body))


def _read_status(head: bytes) -> int:
    return int(head.split(b" ", 2)[1])
