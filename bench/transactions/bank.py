"""
One bank on a database of PostgreSQL, as a user would write it: ``bank.py PORT URL``.

``/xa/prepare``, ``/xa/commit`` and ``/xa/rollback`` are the SDK's; ``/plain`` makes the same change with a
transaction that is simply committed.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import psycopg
import uvicorn
from psycopg_pool import AsyncConnectionPool

from unisono.client import participant

ACCOUNTS = 10_000
_CONNECTIONS = 24
_CHANGE = "UPDATE account SET balance = balance + %s WHERE id = %s"
_TABLES = f"""
CREATE TABLE account (id integer PRIMARY KEY, balance bigint NOT NULL);
INSERT INTO account SELECT n, 0 FROM generate_series(1, {ACCOUNTS}) AS n;
"""


def _application(pool: AsyncConnectionPool) -> Any:
    @participant.xa(pool, prefix="bench")
    async def xa(tx: psycopg.AsyncConnection[Any], entry: dict[str, int]) -> None:
        await tx.execute(_CHANGE, (entry["amount"], entry["account"]))

    async def plain(entry: dict[str, int]) -> None:
        async with pool.connection() as connection:
            await connection.execute(_CHANGE, (entry["amount"], entry["account"]))

    async def application(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] != "/plain":
            await xa(scope, receive, send)
            return
        await plain(json.loads((await receive())["body"]))
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    return application


async def _serve(port: int, url: str) -> None:
    async with AsyncConnectionPool(url, min_size=_CONNECTIONS, max_size=_CONNECTIONS) as pool:
        async with pool.connection() as connection:
            await connection.execute(_TABLES)
        await participant.create_fence_async(pool)
        config = uvicorn.Config(
            _application(pool), port=port, lifespan="off", log_config=None, access_log=False
        )
        await uvicorn.Server(config).serve()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), sys.argv[2]))
