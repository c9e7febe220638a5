"""
A participant that does nothing: ``participant.py PORT``.

``/do/…`` says yes at once, ``/slow/MS/…`` after so many milliseconds, ``/refuse/PERMILLE/…`` no to so many of
a thousand forward calls. ``GET /calls`` tells how many calls there were, and when the first one came.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from typing import Any, cast

import httptools
import uvloop

_YES = b"HTTP/1.1 204 No Content\r\n\r\n"
_NO = b"HTTP/1.1 409 Conflict\r\ncontent-length: 0\r\n\r\n"
_calls: dict[str, Any] = {"count": 0, "first": None}


class _Connection(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self._path = url.decode().split("/")

    def on_message_complete(self) -> None:
        kind = self._path[1]
        if kind == "calls":
            body = json.dumps(_calls).encode()
            self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
            return
        _calls["count"] += 1
        _calls["first"] = _calls["first"] or time.time()
        if kind == "slow":
            asyncio.get_running_loop().call_later(int(self._path[2]) / 1000, self._transport.write, _YES)
        elif kind == "refuse" and self._path[-1] == "action" and random.random() * 1000 < int(self._path[2]):
            self._transport.write(_NO)
        else:
            self._transport.write(_YES)


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(_Connection, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))
