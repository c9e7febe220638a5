"""
Looking transactions up in the store: one by its key, another node's until it is final, many by their status.

Those that are under way here know more of themselves; :mod:`.coordinator` asks them first.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, suppress
from typing import Any

from unisono.store.base import Store
from unisono.transactions import records
from unisono.transactions.errors import Elsewhere, Unknown
from unisono.transactions.records import Record, transaction_key
from unisono.transactions.running import Running
from unisono.transactions.states import FINAL
from unisono.transactions.views import view_of


async def stored(store: Store, key: str) -> Record:
    """
    A transaction as it is written down.

    Raises:
        Unknown: There is none at ``key``, or it has been forgotten.
        StoreError: As the store says.
    """
    entry = await store.get(key)
    if entry is None:
        gid = key.rpartition("/")[2]
        raise Unknown(f"there is no transaction {gid}, or it ended so long ago that it is forgotten")
    return records.decode(key, entry.value)


async def over(store: Store, key: str) -> Record:
    """
    A transaction that is not under way here, and so must be over.

    Raises:
        Elsewhere: It is open, another node's.
        Unknown, StoreError: As :func:`stored`.
    """
    record = await stored(store, key)
    if record.status not in FINAL:
        raise Elsewhere(record.owner)
    return record


async def followed(store: Store, key: str, record: Record, seconds: float) -> Record:
    """
    Another node's transaction once it is final, or as it stands after ``seconds``.

    Raises:
        StoreError: As the store says.
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            found = await store.scan(key)
            changes: AsyncIterator[Any] = store.watch(key, after=found.revision)
            async with aclosing(changes):  # type: ignore[type-var]
                while record.status not in FINAL:
                    entry = await store.get(key)
                    if entry is None:
                        break
                    record = records.decode(key, entry.value)
                    if record.status not in FINAL:
                        await anext(changes)
    return record


async def find(
    store: Store, here: Mapping[str, Running], namespace: str | None, *, status: str, limit: int
) -> list[dict[str, Any]]:
    """
    Transactions without their branches, the newest first, at most ``limit``; without a ``namespace`` of all.

    ``here``: those under way on this node, which know more than the store. ``status``: one of theirs,
    ``open``, ``final``, ``heuristic``, or "" for any.

    Raises:
        StoreError: As the store says.
    """
    prefix = records.ROOT if namespace is None else transaction_key(namespace, "")
    found: list[dict[str, Any]] = []
    for entry in (await store.scan(prefix)).entries:
        opened = records.is_open(entry.value)
        if (status == "open" and not opened) or (status == "final" and opened):
            continue
        running = here.get(entry.key)
        if status == "heuristic" and running is None and b'"heuristic"' not in entry.value:
            continue  # a look at the bytes saves reading thousands of records
        record = running.record if running else records.readable(entry.key, entry.value)
        if record is None:
            continue
        stands = running.machine.status if running else record.status
        doubt = running.machine.heuristic if running else record.heuristic
        if status in ("", "open", "final", stands) or (status == "heuristic" and doubt):
            epoch = running.epoch if running else None
            found.append({**view_of(record, stands, epoch, []), "branches": len(record.specs)})
    found.sort(key=lambda view: view["began_at"], reverse=True)
    return found[:limit]
