"""
What the agent writes down: statuses and happenings, many in one transaction.

A write costs a flush of the disk, so there is at most one at a time: what comes up meanwhile goes with
the next one, and of several statuses of one instance only the last is written. Nothing waits for a
write, least of all a restart.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable

from unisono.control.happenings import happening
from unisono.control.records import Instance, Status, encode, event_key, status_key
from unisono.store.base import Delete, Put, Store, StoreError

_log = logging.getLogger(__name__)

_BATCH_MAX = 500
_RETRY_SECONDS = 1.0
_HAPPENINGS_MAX = 10_000  # kept while the store can't write; beyond it the oldest are dropped


class Reports:
    """Collects what is to be written and writes it, in :meth:`run`."""

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        """``clock`` gives seconds since the epoch."""
        self._store = store
        self._clock = clock
        self._statuses: dict[str, Put | Delete] = {}
        self._happenings: dict[str, Put] = {}
        self._due = asyncio.Event()

    def put(self, key: str, record: object) -> None:
        """Write a record, in place of what was to be written there."""
        self._statuses[key] = Put(key=key, value=encode(record))
        self._wake()

    def status(self, instance: Instance, status: Status) -> None:
        """Write the status of an instance."""
        self.put(status_key(instance.application, instance.service, instance.id), status)

    def remove(self, key: str) -> None:
        """Remove a record."""
        self._statuses[key] = Delete(key=key)
        self._wake()

    def tell(self, kind: str, message: str, instance: Instance | None = None) -> None:
        """Write a happening, of an instance or of the whole node."""
        at = self._clock()
        record = happening(
            kind,
            at=at,
            application=instance.application if instance else "",
            service=instance.service if instance else "",
            instance=instance.id if instance else "",
            message=message,
        )
        key = event_key(at, secrets.token_hex(5))
        self._happenings[key] = Put(key=key, value=encode(record))
        while len(self._happenings) > _HAPPENINGS_MAX:
            del self._happenings[next(iter(self._happenings))]
        self._wake()

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await self._due.wait()
            try:
                await self._write()
            except StoreError as error:
                # A full disk must not end the agent: instances run on, and it is written down later.
                _log.error("can't write what the instances do: %s", error)
                await asyncio.sleep(_RETRY_SECONDS)

    async def flush(self) -> None:
        """
        Write everything now; for the end, when run() is over.

        Raises:
            StoreError: It can't be written.
        """
        while self._due.is_set():
            await self._write()

    def _wake(self) -> None:
        self._due.set()

    async def _write(self) -> None:
        statuses = dict(list(self._statuses.items())[:_BATCH_MAX])
        happenings = dict(list(self._happenings.items())[:_BATCH_MAX])
        if statuses or happenings:
            await self._store.transact(success=[*statuses.values(), *happenings.values()])
        # Only now, and only what was not replaced meanwhile: a failed write is repeated.
        for key, operation in statuses.items():
            if self._statuses.get(key) is operation:
                del self._statuses[key]
        for key in happenings:
            self._happenings.pop(key, None)
        if not self._statuses and not self._happenings:
            self._due.clear()
