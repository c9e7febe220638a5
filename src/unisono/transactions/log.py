"""
Group commit: however many transactions have something to write, one store transaction at a time writes
all.

Each batch carries the coordinator's *term* as a compare: the revision at which this node's key under
``coordinator/`` was written, a fencing token. Once another coordinator has taken over, or the lease was
lost, nothing of this one is written any more, however late it arrives. So a transaction needs no compare
of its own after its begin.

What a write means is for who appends it to know; here is only that it happens once, or is said not to have.
How a term begins, and how long it is held, is :mod:`.term`'s.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from unisono.store.base import Broken, Compare, Delete, Field, MaybeDone, NotDone, Put, Store, StoreError

BATCH_WRITES = 60  # with their compares they fit the 128 operations that etcd allows in a transaction
BATCH_BYTES = 1024 * 1024  # of their values; etcd allows 1.5 MiB in a transaction unless told otherwise
_RETRY_SECONDS = (0.02, 1.0)  # first and longest pause while the store refuses

_log = logging.getLogger("unisono.transactions")


class Deposed(StoreError):
    """This coordinator's term is over: another may coordinate what it did."""


class Taken(NotDone):
    """The key of a begin exists already, with another value; nothing was written."""


@dataclass(slots=True, eq=False)
class Entry:
    """
    One write: ``value`` ``None`` removes the key.

    ``fresh``: the key must not exist; ``patient``: if the store refuses, it is tried again for ever.
    """

    key: str
    value: bytes | None
    fresh: bool
    patient: bool
    done: Callable[[StoreError | None], None]
    maybe: bool = False  # an earlier try may have written it
    told: bool = False

    def operation(self) -> Put | Delete:
        """What of the store does it."""
        return Delete(key=self.key) if self.value is None else Put(key=self.key, value=self.value)

    def tell(self, error: StoreError | None) -> None:
        """Say once what became of it."""
        if self.told:
            return
        self.told = True
        if isinstance(error, Deposed):
            error = (
                MaybeDone("another coordinator may have it: ask again")
                if self.maybe
                else NotDone("this node's term as a coordinator ended before it was written: try again")
            )
        self.done(error)


class Log:
    """
    Writes for one term, from :meth:`run` until that is cancelled or raises.

    ``append`` never waits; ``done`` is called on the loop, with ``None`` once the write is durable.
    ``batches`` and ``writes`` count what became so; ``lease`` is the term's.
    """

    def __init__(self, store: Store, term: Compare, lease: int) -> None:
        self._store = store
        self.term = term
        self.lease = lease
        self._takes: list[tuple[Sequence[Compare], Sequence[Put], asyncio.Future[int | None]]] = []
        self._waiting: deque[Entry] = deque()
        self._filled = asyncio.Event()
        self.batches = 0
        self.writes = 0

    @property
    def epoch(self) -> int:
        """The term as calls bear it: participants refuse what is below the highest that they have seen."""
        epoch = self.term.target
        assert isinstance(epoch, int)  # noqa: S101 - a revision
        return epoch

    def append(
        self,
        key: str,
        value: bytes | None,
        done: Callable[[StoreError | None], None],
        *,
        fresh: bool = False,
        patient: bool = True,
    ) -> None:
        """
        Have a key written, or removed if ``value`` is ``None``; of one key in the order of calls.

        ``fresh``: if the key exists already, ``done`` is told :class:`Taken` and nothing is written. Without
        ``patient`` it is told NotDone if the store refuses, instead of waiting until the store does not.
        """
        self._waiting.append(Entry(key, value, fresh, patient, done))
        self._filled.set()

    async def take(self, compares: Sequence[Compare], puts: Sequence[Put]) -> int | None:
        """
        Write ``puts`` if ``compares`` hold, and in the same step raise the term above all revisions so far.

        Returns:
            The new term; ``None`` if the compares did not hold: nothing was written.

        Raises:
            StoreError: As for an append; the term is over.

        To be cancelled takes nothing back: it may be written later, while the term lasts.
        """
        future: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        self._takes.append((compares, puts, future))
        self._filled.set()
        return await future

    async def run(self) -> None:
        """
        Write what is appended, until cancelled.

        Raises:
            Deposed: The term is over; what waits has been told so.
            Broken: The store can't go on; likewise.
        """
        try:
            while True:
                await self._filled.wait()
                if self._takes:
                    await self._take_one()
                batch = self._gather()
                if batch:
                    await self._write(batch)
                if not self._waiting and not self._takes:
                    self._filled.clear()
        except StoreError as error:
            self._fail_all(error)
            raise

    async def _take_one(self) -> None:
        """Between two batches, so that none bears a term that has just been left."""
        compares, puts, future = self._takes[0]
        own = Put(key=self.term.key, value=b"{}", lease=self.lease)
        pause, longest = _RETRY_SECONDS
        while True:
            try:
                outcome = await self._store.transact(compares=[self.term, *compares], success=[own, *puts])
            except MaybeDone as error:
                # Whether it was done can be found out, but hardly ever has to be: begin a new term.
                raise Deposed("this node's term as a coordinator may have changed") from error
            except NotDone:
                await asyncio.sleep(pause)
                pause = min(2 * pause, longest)
                continue
            break
        if outcome.succeeded:
            self.term = Compare(key=own.key, field=Field.MODIFIED, target=outcome.revision)
        else:
            await self._check_term()
        del self._takes[0]
        if not future.done():
            future.set_result(outcome.revision if outcome.succeeded else None)

    def _fail_all(self, error: StoreError) -> None:
        for _, _, future in self._takes:
            if not future.done():
                future.set_exception(error)
                future.exception()  # nobody may be waiting
        self._takes.clear()
        while self._waiting:
            self._waiting.popleft().tell(error)

    def _gather(self) -> list[Entry]:
        """The oldest that wait, as many as one store transaction takes, each key once."""
        batch: list[Entry] = []
        keys: set[str] = set()
        size = 0
        while self._waiting and len(batch) < BATCH_WRITES:
            entry = self._waiting[0]
            size += len(entry.value or b"")
            if entry.key in keys or (batch and size > BATCH_BYTES):
                break
            self._waiting.popleft()
            keys.add(entry.key)
            batch.append(entry)
        return batch

    async def _write(self, batch: list[Entry]) -> None:
        """Write a batch as one; what one key's compare spoils is then written piece by piece."""
        try:
            if await self._try(batch):
                return
            if len(batch) > 1:
                for entry in batch:
                    if not await self._try([entry]):
                        await self._settle_taken(entry)
            else:
                await self._settle_taken(batch[0])
        except StoreError as error:
            for entry in batch:
                entry.tell(error)
            raise

    async def _try(self, batch: list[Entry]) -> bool:
        """
        Whether the compares held; then all of it is durable and has been said to be.

        Raises:
            Deposed, Broken: As for :meth:`run`.
        """
        pause, longest = _RETRY_SECONDS
        while batch:
            fresh = [Compare(key=e.key, field=Field.CREATED, target=0) for e in batch if e.fresh]
            try:
                outcome = await self._store.transact(
                    compares=[self.term, *fresh], success=[e.operation() for e in batch]
                )
            except Broken:
                raise
            except MaybeDone:
                for entry in batch:
                    entry.maybe = True
            except ValueError as error:
                # This store takes less at once than others do: what fits is written piece by piece.
                if len(batch) > 1:
                    return False
                _log.error("the store does not take %s, which is tried again: %s", batch[0].key, error)
                _refuse(batch, NotDone(str(error)))
            except NotDone as error:
                _refuse(batch, error)
            else:
                if outcome.succeeded:
                    self._wrote(batch)
                    return True
                await self._check_term()
                return False
            await asyncio.sleep(pause)
            pause = min(2 * pause, longest)
        return True

    def _wrote(self, batch: list[Entry]) -> None:
        self.batches += 1
        self.writes += len(batch)
        for entry in batch:
            entry.tell(None)
        batch.clear()

    async def _check_term(self) -> None:
        entry = await self._read(self.term.key)
        if entry is None or entry[1] != self.term.target:
            raise Deposed("this node's term as a coordinator is over")

    async def _settle_taken(self, entry: Entry) -> None:
        """The key of a begin is there: ours, if an earlier try wrote it unseen; else another's."""
        found = await self._read(entry.key)
        if found is not None and found[0] == entry.value:
            entry.tell(None)
        else:
            entry.tell(Taken(f"{entry.key} exists already"))

    async def _read(self, key: str) -> tuple[bytes, int] | None:
        pause, longest = _RETRY_SECONDS
        while True:
            try:
                entry = await self._store.get(key)
            except Broken:
                raise
            except StoreError:
                await asyncio.sleep(pause)
                pause = min(2 * pause, longest)
                continue
            return None if entry is None else (entry.value, entry.modified)


def _refuse(batch: list[Entry], error: NotDone) -> None:
    """Who can still be told that nothing happened is told so, instead of being kept waiting."""
    refused = [e for e in batch if not e.patient and not e.maybe]
    batch[:] = [e for e in batch if e.patient or e.maybe]
    for entry in refused:
        entry.tell(error)
