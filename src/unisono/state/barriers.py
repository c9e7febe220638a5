"""
Barriers: so many wait for each other, then all go on.

A line again. When enough stand in it, the last of them opens the barrier for exactly these, in one
transaction, on condition that none has left or died; so all of them pass, or none. Whoever comes later
waits for the next round.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from unisono.state.errors import Lost, NotAcquired
from unisono.state.leases import Clock, KeptLease, monotonic
from unisono.state.line import Line, Members, Place
from unisono.state.locks import check_wait
from unisono.state.names import namespace_prefix
from unisono.store.base import Compare, Delete, Entry, Field, MaybeDone, NotDone, Put, Store

MAX_PARTIES = 128

_RETRY_SECONDS = 0.1


@dataclass(frozen=True, kw_only=True)
class Passed:
    """One party's passage: its place among the parties, from 0, and the revision that let them pass."""

    index: int
    revision: int


class Barriers:
    """One namespace's barriers; ``ttl`` and ``wait`` as of :class:`.locks.Locks`."""

    def __init__(self, store: Store, namespace: str, *, clock: Clock = monotonic) -> None:
        self._store = store
        self._home = namespace_prefix(namespace)
        self._clock = clock

    async def wait(self, name: str, *, parties: int, ttl: float = 10.0, wait: float | None = None) -> Passed:
        """
        Wait until ``parties`` wait here, this one among them.

        Raises:
            NotAcquired: ``wait`` seconds were over before enough had come; it was not counted.
            Lost: The lease was lost while waiting. Was it at that moment counted, the others have passed.
            MaybeDone, NotDone: The store failed.
            ValueError: An argument is out of range, or those who wait go by another number of parties.
        """
        if not 1 <= parties <= MAX_PARTIES:
            raise ValueError(f"parties is {parties}, must lie between 1 and {MAX_PARTIES}")
        check_wait(wait)
        line = Line(self._store, self._home, "barrier", name)
        async with KeptLease(self._store, ttl, clock=self._clock) as lease:
            place = await line.enter(lease.id, _waiting(parties))
            try:
                async with asyncio.timeout(wait):
                    return await self._pass(line, place, parties)
            except TimeoutError:
                return await self._give_up(line, place)

    async def _pass(self, line: Line, place: Place, parties: int) -> Passed:
        while True:
            members = await line.members()
            own = members.find(place)
            passed = _passed(own)
            if passed is not None:
                return passed
            waiting = [entry for entry in members.entries if _passed(entry) is None]
            if waiting[0].value != own.value:
                raise ValueError(
                    f"parties is {parties}, but others go by {waiting[0].value.decode()}: "
                    "all who wait at a barrier must name the same number"
                )
            if len(waiting) >= parties and waiting[parties - 1].key == place.key:
                await self._open(waiting[:parties])
                await self._changed(line, members, limit=_RETRY_SECONDS)
            else:
                await self._changed(line, members, limit=None)

    async def _open(self, parties: list[Entry]) -> None:
        """Let these pass, all or none; whether they did shows in the line."""
        compares = [Compare(key=entry.key, field=Field.MODIFIED, target=entry.modified) for entry in parties]
        puts = [
            Put(key=entry.key, value=b"%d passed" % index, lease=entry.lease)
            for index, entry in enumerate(parties)
        ]
        try:
            await self._store.transact(compares=compares, success=puts)
        except (MaybeDone, NotDone):
            return  # a lease among them has ended and its key is about to go, or the outcome is unknown

    async def _changed(self, line: Line, members: Members, *, limit: float | None) -> None:
        try:
            async with asyncio.timeout(limit):
                await line.changed(after=members.revision)
        except TimeoutError:
            return

    async def _give_up(self, line: Line, place: Place) -> Passed:
        unopened = Compare(key=place.key, field=Field.MODIFIED, target=place.token)
        outcome = await self._store.transact(compares=[unopened], success=[Delete(key=place.key)])
        if outcome.succeeded:
            raise NotAcquired("too few came to the barrier in time")
        passed = _passed((await line.members()).find(place))
        if passed is None:
            raise Lost(f"place {place.token} at the barrier is gone")
        return passed  # it was opened at the last moment


def _waiting(parties: int) -> bytes:
    return b"%d" % parties


def _passed(entry: Entry) -> Passed | None:
    index, _, word = entry.value.partition(b" ")
    return Passed(index=int(index), revision=entry.modified) if word else None
