"""
This process's hybrid logical clock, and how stamps get into it and out of it along requests.

A stamp travels in the header ``unisono-clock``, 16 lowercase hexadecimal digits, on requests and on answers;
the gateway sets and follows it by itself (docs/reference/timestamps.md). There is one clock for the process,
so whatever is sent after a request came in bears a stamp above that request's, whichever task sends it.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from contextlib import suppress
from typing import Any

from unisono.client.engine import load
from unisono.timestamps.hybrid import COUNTER_BITS, DriftError, wall_clock_ms

HEADER = "unisono-clock"

_RAW = HEADER.encode()
_ENVIRON = "HTTP_UNISONO_CLOCK"
_STAMP = re.compile("[0-9a-f]{16}")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApplication = Callable[[Any, Any, Any], Awaitable[None]]
StartResponse = Callable[..., Any]
WsgiApplication = Callable[[Any, Any], Iterable[bytes]]

# Where ASGI lets an application say headers.
_HEADS = frozenset({"http.response.start", "websocket.accept", "websocket.http.response.start"})


class Clock:
    """
    This process's hybrid logical clock; threads may share it.

    It is the engine's. :class:`unisono.timestamps.hybrid.HybridClock` defines what it does.
    """

    __slots__ = ("_engine", "now")

    now: Callable[[], int]
    """The stamp of a local event or of a message to be sent; above all before it, in any thread."""

    def __init__(self) -> None:
        self._engine = load().Clock()
        self.now = self._engine.now  # itself, as a call in between would take longer than the stamp

    def observe(self, received: int) -> int:
        """
        The stamp of receiving a message that bears ``received``; above it and above all before.

        Raises:
            DriftError: It is more than ``max_drift_ms`` ahead; the clock stays as it was and counts it.
            ValueError: It is negative, or has more than 64 bits.
        """
        if not 0 <= received < 1 << 64:
            raise ValueError(f"received timestamp is {received}, must be from 0 to 2**64 - 1")
        try:
            return int(self._engine.observe(received))
        except ValueError:
            ahead_ms = (received >> COUNTER_BITS) - wall_clock_ms()
            raise DriftError(ahead_ms, self.max_drift_ms) from None

    @property
    def last(self) -> int:
        """The greatest stamp given out or seen."""
        return int(self._engine.last)

    @property
    def refused(self) -> int:
        """Stamps that were too far ahead."""
        return int(self._engine.refused)

    @property
    def max_drift_ms(self) -> int:
        """How far ahead of this machine's clock a received stamp may be."""
        return int(self._engine.max_drift_ms)

    def headers(self) -> dict[str, str]:
        """What a request or an answer of one's own is to bear: a new stamp, in its header."""
        return {HEADER: f"{self.now():016x}"}

    def follow(self, headers: Mapping[str, str]) -> bool:
        """
        Go on above the stamp of a request or an answer that came.

        Args:
            headers: Those of a library, which finds names in any case, or with names in lower case.

        Returns:
            Whether there was a stamp to follow. One too far ahead is counted in ``refused`` and changes
            nothing else; one that is not of the form changes nothing.
        """
        return self._follow(headers.get(HEADER))

    def asgi(self, application: AsgiApplication) -> AsgiApplication:
        """
        An ASGI application that follows the stamps of requests, WebSockets' too, and stamps its answers.

        What is no request, such as ``lifespan``, goes through untouched.
        """

        async def stamped(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] not in ("http", "websocket"):
                await application(scope, receive, send)
                return
            for name, value in scope["headers"]:
                if name == _RAW:
                    self._follow(value.decode("latin-1"))

            async def send_stamped(message: Message) -> None:
                if message["type"] in _HEADS:
                    others = [pair for pair in message.get("headers") or () if pair[0].lower() != _RAW]
                    stamp = (_RAW, f"{self.now():016x}".encode())
                    message = {**message, "headers": [*others, stamp]}
                await send(message)

            await application(scope, receive, send_stamped)

        return stamped

    def wsgi(self, application: WsgiApplication) -> WsgiApplication:
        """A WSGI application that follows the stamps of requests and stamps its answers."""

        def stamped(environ: Mapping[str, Any], start_response: StartResponse) -> Iterable[bytes]:
            self._follow(environ.get(_ENVIRON))

            def start_stamped(status: str, headers: list[tuple[str, str]], *error: Any) -> Any:
                others = [pair for pair in headers if pair[0].lower() != HEADER]
                return start_response(status, [*others, *self.headers().items()], *error)

            return application(environ, start_stamped)

        return stamped

    def _follow(self, text: str | None) -> bool:
        if text is None or _STAMP.fullmatch(text) is None:
            return False
        with suppress(DriftError):
            self.observe(int(text, 16))
            return True
        return False
