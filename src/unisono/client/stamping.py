"""
This process's hybrid logical clock, and how stamps get into it and out of it along requests.

A stamp travels in the header ``unisono-clock``, 16 lowercase hexadecimal digits, on requests and on answers;
the gateway sets and follows it by itself (docs/reference/timestamps.md). There is one clock for the process,
so whatever is sent after a request came in bears a stamp above that request's, whichever task sends it.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from contextlib import suppress
from typing import Any

from unisono.timestamps.hybrid import DriftError, HybridClock

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


class Clock(HybridClock):
    """This process's hybrid logical clock; threads may share it."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()

    def now(self) -> int:
        """As of :class:`HybridClock`."""
        with self._lock:
            return super().now()

    def observe(self, received: int) -> int:
        """As of :class:`HybridClock`."""
        with self._lock:
            return super().observe(received)

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
