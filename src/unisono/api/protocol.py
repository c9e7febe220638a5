"""
HTTP as uvicorn speaks it, with bounds of our own: how long a head may be, and take; how many may connect.

httptools gathers a head until it is complete, however long that is. Bodies are bounded by
:class:`unisono.api.guard.BodyLimit`, which sees what they hold; here is only what no handler ever sees.
"""

from __future__ import annotations

import asyncio
import json
from http import HTTPStatus

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from unisono.api.guard import MAX_BODY_BYTES
from unisono.api.problems import MEDIA_TYPE, Problem, document

MAX_HEAD_BYTES = 64 * 1024
MAX_MESSAGE_BYTES = 8 * MAX_BODY_BYTES  # with what frames it: chunks of a byte each are six times as long
MAX_CONNECTIONS = 10_000  # at one address; who comes beyond is cut off

HEAD_SECONDS = 10.0
"""From the first byte of a head to its last; for the first head from the beginning of the connection."""


class BoundedProtocol(HttpToolsProtocol):
    """One connection."""

    _in_head = True
    _received = 0  # bytes of the message that is coming in
    _head_due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a head, if there is room."""
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            transport.abort()
        else:
            self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing more."""
        self._expect_nothing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what came, unless it is too much."""
        if self.transport.is_closing():
            return
        self._received += len(data)
        super().data_received(data)
        if self._received > (MAX_HEAD_BYTES if self._in_head else MAX_MESSAGE_BYTES):
            self._refuse()
        elif self._in_head and self._received and self._head_due is None:
            self._expect_head()

    def on_headers_complete(self) -> None:
        """Called by the parser: the head is there."""
        self._expect_nothing()
        self._in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Called by the parser: the body is there, the next head may come."""
        self._in_head, self._received = True, 0
        super().on_message_complete()

    def _expect_head(self) -> None:
        self._head_due = self.loop.call_later(HEAD_SECONDS, self.transport.abort)

    def _expect_nothing(self) -> None:
        if self._head_due is not None:
            self._head_due.cancel()
            self._head_due = None

    def _refuse(self) -> None:
        self._expect_nothing()
        if self._in_head:
            status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            detail = f"the head is larger than {MAX_HEAD_BYTES} bytes, the most that is read"
            body = json.dumps(document(Problem(status, detail))).encode()
            head = (
                f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {MEDIA_TYPE}\r\n"
                f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            )
            self.transport.write(head.encode() + body)
        self.transport.close()
