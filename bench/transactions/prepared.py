"""
A participant of XA that does nothing but be prepared: ``prepared.py PORT URL``.

``/xa/prepare`` prepares an empty transaction of PostgreSQL under the branch's name, ``/xa/commit`` and
``/xa/rollback`` end it. What a participant needs besides, against calls that come twice or late, is the SDK's
(:mod:`bench.transactions.bank`).
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import asyncpg
import httptools
import uvloop

_CONNECTIONS = 24
_YES = b"HTTP/1.1 204 No Content\r\n\r\n"
_FAULT = b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n"
_STATEMENTS = {
    "prepare": "BEGIN; PREPARE TRANSACTION '{name}'",
    "commit": "COMMIT PREPARED '{name}'",
    "rollback": "ROLLBACK PREPARED '{name}'",
}

_Idle = asyncio.LifoQueue[asyncpg.Connection]


class _Connection(asyncio.Protocol):
    def __init__(self, idle: _Idle) -> None:
        self._idle = idle
        self._parser = httptools.HttpRequestParser(self)
        self._tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._headers: dict[bytes, bytes] = {}

    def on_url(self, url: bytes) -> None:
        self._op = url.decode().rpartition("/")[2]

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.lower()] = value

    def on_message_complete(self) -> None:
        name = f"{self._headers[b'transaction-id'].decode()}:{self._headers[b'transaction-branch'].decode()}"
        task = asyncio.create_task(self._answer(_STATEMENTS[self._op].format(name=name)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, sql: str) -> None:
        database = await self._idle.get()
        try:
            await database.execute(sql)
        except asyncpg.PostgresError as error:
            print(f"{sql}: {error}", file=sys.stderr)
            self._transport.write(_FAULT)
        else:
            self._transport.write(_YES)
        finally:
            self._idle.put_nowait(database)


async def _serve(port: int, url: str) -> None:
    idle: _Idle = asyncio.LifoQueue()
    for _ in range(_CONNECTIONS):
        idle.put_nowait(await asyncpg.connect(url))
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(idle), "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1]), sys.argv[2]))
