"""
What is asked of a node, what it answers, and where it is; how the bytes travel is in :mod:`.asking`.

Where the node is comes from the environment of an instance: ``UNISONO_API`` and ``UNISONO_TOKEN``, or else
the socket in ``UNISONO_STATE`` and the application's name. No input or output here: what takes several
questions is a generator of them (:data:`Steps`), so that it is written once for asyncio and for threads.
"""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import urlencode, urlsplit

from unisono.client.errors import NotRunning

T = TypeVar("T")

_EVENT_MAX = 64 << 20  # an event holds all changes of one revision


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

    @classmethod
    def of(cls, status: int, content: bytes, headers: Mapping[str, str]) -> Told:
        """
        The answer whose body these bytes are.

        Raises:
            ValueError: They are said to be JSON and are none.
        """
        is_json = headers.get("content-type", "").partition(";")[0].endswith(("/json", "+json"))
        found: Any = content
        if is_json:
            found = json.loads(content) if content else None
        return cls(status=status, content=found, headers=headers)


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


def node_of(api: str | None, namespace: str | None) -> Node:
    """The node that is named, or the one whose instance this is."""
    return Node.of_environment() if api is None else Node.at(api, namespace=namespace)


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
