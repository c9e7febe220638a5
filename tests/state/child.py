"""
A process that holds everything state/ has to hold, says what it got, and waits to be killed.

One JSON line per fact, in one write: a line that the test reads was true before the process could be killed.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

from unisono.state.kv import Kv
from unisono.state.locks import Locks
from unisono.state.oracle import Oracle
from unisono.state.quotas import Quotas
from unisono.state.tokens import Tokens
from unisono.store.sqlite import SqliteStore

TTL = 1.5  # seconds; the next life waits so long, and on a busy machine this one must renew in it


async def main(path: Path) -> None:
    store = await SqliteStore.open(path)
    kv = Kv(store, "shop", await Tokens.load(store))
    locks, quotas = Locks(store, "shop"), Quotas(store, "shop")
    await quotas.resize("q", 10)
    async with (
        locks.lock("l", ttl=TTL) as held,
        quotas.hold("q", 10, ttl=TTL) as grant,
        Oracle.serve(store, "shop", ttl=TTL) as oracle,
    ):
        # The leases of the life before began anew when the store was opened, and ended together. What is
        # written after the lock was had comes after the ends of all of them.
        count = (await kv.get("count")).entry
        say({"token": held.token, "grant": grant.token, "count": int(count.value) if count else 0})
        number = int(count.value) if count else 0
        while True:
            number += 1
            await kv.put("count", b"%d" % number, fences=[held.fence], request_id=f"{number}")
            say({"wrote": number, "timestamp": await oracle.take(1000)})


def say(value: object) -> None:
    os.write(1, json.dumps(value).encode() + b"\n")


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
