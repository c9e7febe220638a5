"""
Holding for somebody who is elsewhere: a client of the API, which keeps its lease alive itself.

The blocks of :mod:`.locks` and :mod:`.elections` live in the process that holds. Here a holder is known by a
lease that was made for it, and each call stands alone: whoever repeats one after a lost answer gets the same
place in line, for a lease has one place in each line. A lease belongs to the namespace that asked for it; no
other can use, prolong or end it.

How a lease is bound to the life of a process is not known here.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from unisono.state import leases
from unisono.state.errors import Lost, NotAcquired
from unisono.state.leases import MIN_KEPT_TTL
from unisono.state.line import Line, Place
from unisono.state.locks import MAX_PERMITS, check_wait
from unisono.state.names import namespace_prefix
from unisono.store.base import MAX_TTL, LeaseEnded, MaybeDone, NotDone, Put, Store

RECORDS = "state-lease/"
"""Where leases are recorded, beside the state: all of them are found without looking through that."""

_RENEWALS = 3  # times within a ttl, of a lease whose holder waits in line


@dataclass(frozen=True, kw_only=True)
class Holder:
    """A process of this machine that a lease ends with."""

    pid: int
    start_time: int
    boot_id: str


@dataclass(frozen=True, kw_only=True)
class Lease:
    """A lease of a namespace; ``ttl`` in seconds."""

    id: int
    ttl: float
    holder: Holder | None = None


class Leases:
    """One namespace's leases, each recorded under itself so that it goes when the lease does."""

    def __init__(self, store: Store, namespace: str) -> None:
        self._store = store
        namespace_prefix(namespace)
        self._prefix = f"{RECORDS}{namespace}/"

    async def grant(self, ttl: float, *, holder: Holder | None = None) -> Lease:
        """
        A new lease of ``ttl`` seconds, MIN_KEPT_TTL at least. Cancelled, none is left behind.

        Raises:
            StoreError: None was granted, or it ends by itself.
            ValueError: ``ttl`` is out of range.
        """
        if not MIN_KEPT_TTL <= ttl <= MAX_TTL:
            raise ValueError(f"a ttl of {ttl:g} s; from {MIN_KEPT_TTL:g} s to {MAX_TTL:.0f} s are allowed")
        lease = Lease(id=await leases.grant(self._store, ttl), ttl=ttl, holder=holder)
        try:
            await self._store.transact(
                success=[Put(key=self._key(lease.id), value=_encode(lease), lease=lease.id)]
            )
        except BaseException:
            await leases.finish(leases.revoke(self._store, lease.id))
            raise
        return lease

    async def get(self, id: int) -> Lease:
        """
        A lease of this namespace.

        Raises:
            LeaseEnded: It has ended, or is not of this namespace.
        """
        entry = await self._store.get(self._key(id))
        if entry is None:
            raise LeaseEnded(id)
        return _decode(id, entry.value)

    async def keep_alive(self, id: int) -> Lease:
        """
        Start its time anew.

        Raises:
            LeaseEnded: It has ended, or is not of this namespace.
            MaybeDone: The store could not be reached.
        """
        lease = await self.get(id)
        await self._store.keep_alive(id)
        return lease

    async def revoke(self, id: int) -> None:
        """End it and remove its keys; one that has ended, or is not of this namespace, is left as it is."""
        try:
            await self.get(id)
        except LeaseEnded:
            return
        await self._store.revoke(id)

    def _key(self, id: int) -> str:
        return f"{self._prefix}{id:020d}"


async def every_lease(store: Store) -> list[Lease]:
    """The leases of all namespaces."""
    snapshot = await store.scan(RECORDS)
    return [_decode(int(entry.key.rpartition("/")[2]), entry.value) for entry in snapshot.entries]


class Holdings:
    """What the leases of one namespace hold in lines: locks, permits of semaphores, leadership."""

    def __init__(self, store: Store, namespace: str) -> None:
        self._store = store
        self._home = namespace_prefix(namespace)
        self.leases = Leases(store, namespace)

    async def acquire(
        self, kind: str, name: str, lease: int, *, wait: float | None, permits: int = 1, value: bytes = b""
    ) -> Place:
        """
        The place of ``lease`` in a line, once fewer than ``permits`` stand in front.

        The lease is kept alive while it waits, and has its full time when this returns.

        Args:
            wait: Seconds, ``None`` for ever, 0 not at all.
            value: What the holder says, to be read by all.

        Raises:
            NotAcquired: Others still had it when ``wait`` was over; nothing is held.
            LeaseEnded, Lost: The lease has ended.
            MaybeDone, NotDone: The store failed; what may be left behind ends with the lease.
            ValueError: An argument is out of range, or others go by another number of permits.

        Cancelled, the lease leaves the line.
        """
        check_wait(wait)
        if not 1 <= permits <= MAX_PERMITS:
            raise ValueError(f"permits is {permits}, must lie between 1 and {MAX_PERMITS}")
        line = Line(self._store, self._home, kind, name)
        known = await self.leases.get(lease)
        place = await line.enter(lease, value)
        try:
            ahead = (await line.members()).ahead_of(place)
            if kind == "semaphore" and ahead and ahead[0].value != value:
                raise ValueError(
                    f"permits is {permits}, but others go by {ahead[0].value.decode()}: "
                    "all who use a semaphore at a time must name the same number"
                )
            if len(ahead) >= permits:
                async with asyncio.timeout(wait), _kept(self._store, known):
                    await line.admitted(place, permits)
                await self._store.keep_alive(lease)
        except TimeoutError:
            await leases.finish(line.leave(place))
            raise NotAcquired(f"{line.label} is held by another, after waiting {wait or 0:g} s") from None
        except BaseException:
            await leases.finish(_left(line, place))
            raise
        return place

    async def line(self, kind: str, name: str) -> list[tuple[int, int]]:
        """Who stands in a line, the first in front: leases with their tokens."""
        line = Line(self._store, self._home, kind, name)
        members = (await line.members()).entries
        return [(int(entry.key.removeprefix(line.prefix)), entry.created) for entry in members]

    async def release(self, kind: str, name: str, place: Place) -> None:
        """
        Give a place up, and only this one; giving up what is gone is no error.

        Raises:
            StoreError: As the store's transact; repeating it is harmless.
        """
        await Line(self._store, self._home, kind, name).leave(place)

    def place(self, kind: str, name: str, lease: int, token: int) -> Place:
        """The place that ``lease`` got with ``token``; whether it still is one shows in use."""
        line = Line(self._store, self._home, kind, name)
        return Place(key=f"{line.prefix}{lease:020d}", token=token, lease=lease)

    async def say(self, kind: str, name: str, place: Place, value: bytes) -> None:
        """
        Say something else with a place from now on.

        Raises:
            Fenced: The place is gone.
            StoreError: As the store's transact; repeating it is harmless.
        """
        await Line(self._store, self._home, kind, name).say(place, value)


@asynccontextmanager
async def _kept(store: Store, lease: Lease) -> AsyncIterator[None]:
    """Keep a lease alive for the block: its holder waits and has nothing to lose yet."""

    async def renew() -> None:
        while True:
            await asyncio.sleep(lease.ttl / _RENEWALS)
            try:
                await store.keep_alive(lease.id)
            except LeaseEnded:
                return  # the line shows it
            except (MaybeDone, NotDone):
                continue

    renewal = asyncio.create_task(renew())
    try:
        yield
    finally:
        renewal.cancel()
        await asyncio.wait([renewal])


async def _left(line: Line, place: Place) -> None:
    try:
        await line.leave(place)
    except (MaybeDone, NotDone, Lost):
        return  # it goes with its lease


def _encode(lease: Lease) -> bytes:
    said: dict[str, object] = {"ttl": lease.ttl}
    if lease.holder is not None:
        said["holder"] = [lease.holder.pid, lease.holder.start_time, lease.holder.boot_id]
    return json.dumps(said).encode()


def _decode(id: int, value: bytes) -> Lease:
    said = json.loads(value)
    holder = said.get("holder")
    return Lease(
        id=id,
        ttl=said["ttl"],
        holder=None if holder is None else Holder(pid=holder[0], start_time=holder[1], boot_id=holder[2]),
    )
