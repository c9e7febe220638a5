"""
Quotas: named amounts that instances share, of which never more is granted than there is.

A grant is a key under its holder's lease, so it ends with the holder. The amount is a key of its own that
every grant writes again: two grants, or a grant and a change of the amount, can't both rest on the same
sum. Between looking and granting, grants can only end; so what was enough still is. No sum is stored, so
none can drift.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from weakref import WeakValueDictionary

from unisono.state.errors import Insufficient, RequestReused
from unisono.state.leases import Clock, KeptLease, LeasePool, monotonic
from unisono.state.line import Place
from unisono.state.locks import Held
from unisono.state.names import END, check_name, check_request_id, namespace_prefix
from unisono.state.requests import REQUEST_TTL
from unisono.store.base import Compare, Delete, Entry, Field, MaybeDone, NotDone, Put, Snapshot, Store

MAX_SIZE = 2**53  # exact in every JSON reader

_ATTEMPTS = 100
_UNKNOWN_ATTEMPTS = 3


@dataclass(frozen=True, kw_only=True)
class Grant:
    """So much of a quota, until it is released or its lease ends."""

    name: str
    request_id: str
    amount: int
    place: Place

    @property
    def token(self) -> int:
        """Higher than that of every grant before."""
        return self.place.token


@dataclass(frozen=True, kw_only=True)
class Quota:
    """How much there is, and what is granted of it, by request id, as of ``revision``."""

    name: str
    size: int
    grants: dict[str, int]
    revision: int
    turn: int  # the revision of the last grant or resize

    @property
    def granted(self) -> int:
        """The sum of the grants; never above ``size``."""
        return sum(self.grants.values())

    @property
    def available(self) -> int:
        """What is left."""
        return self.size - self.granted


class Quotas:
    """
    One namespace's quotas.

    Every call raises:
        NotDone: It did not happen; one reason is that the lease has ended.
        MaybeDone: It may have happened; repeating it with the same request id is safe.
        ValueError: An argument is out of range or malformed.
    """

    def __init__(self, store: Store, namespace: str, *, clock: Clock = monotonic) -> None:
        home = namespace_prefix(namespace)
        self._store = store
        self._clock = clock
        self._quotas = f"{home}quota/"
        self._released = f"{home}quota-released/"
        self._leases = LeasePool(store, clock=clock)
        # Here they take turns, so that many at once need not try again and again.
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def get(self, name: str) -> Quota | None:
        """The quota as it is; ``None`` if there is none of this name."""
        prefix = self._prefix(name)
        return _quota(name, prefix, await self._store.scan(prefix))

    async def resize(self, name: str, size: int) -> Quota:
        """
        Make a quota, or change its size.

        Raises:
            Insufficient: More than ``size`` is granted; the size stays as it was.
        """
        if not 0 <= size <= MAX_SIZE:
            raise ValueError(f"size is {size}, must lie between 0 and {MAX_SIZE}")
        prefix = self._prefix(name)
        async with self._turn(name):
            for _ in range(_ATTEMPTS):
                quota = await self.get(name)
                if quota is not None and quota.granted > size:
                    raise Insufficient(name, quota.granted - size, 0, quota.size)
                turn = 0 if quota is None else quota.turn
                outcome = await self._store.transact(
                    compares=[_unchanged(prefix, turn)], success=[_sized(prefix, size)]
                )
                if outcome.succeeded:
                    grants = {} if quota is None else quota.grants
                    return Quota(
                        name=name, size=size, grants=grants, revision=outcome.revision, turn=outcome.revision
                    )
        raise _contended(name)

    async def acquire(self, name: str, amount: int, *, lease: int, request_id: str | None = None) -> Grant:
        """
        Take ``amount`` under ``lease``, or nothing; never waits for others to release.

        With a ``request_id`` a repeat gives the same grant. One that comes after the grant was released
        is refused, for :data:`.requests.REQUEST_TTL`, instead of taking the amount again.

        Raises:
            Insufficient: Less is left.
            RequestReused: The id was used for another amount, or its grant was released.
            NotDone: There is no such quota, or the lease has ended.
        """
        if not 1 <= amount <= MAX_SIZE:
            raise ValueError(f"amount is {amount}, must lie between 1 and {MAX_SIZE}")
        id = secrets.token_hex(16) if request_id is None else check_request_id(request_id)
        unknown: MaybeDone | None = None
        async with self._turn(name):
            for _ in range(_UNKNOWN_ATTEMPTS):
                try:
                    return await self._acquire(name, amount, lease, id)
                except MaybeDone as error:
                    # Trying again finds out: it sees the grant, or takes the turn that the first one,
                    # still on its way, would need.
                    unknown = error
                except (Insufficient, RequestReused):
                    raise  # certain: the attempt before would need the turn that this was decided in
                except NotDone:
                    if unknown is None:
                        raise
                    break
        raise unknown or _contended(name)

    async def find(self, name: str, request_id: str) -> Grant | None:
        """The grant of a request; ``None`` if it has none now."""
        entry = await self._store.get(f"{self._prefix(name)}grant/{check_request_id(request_id)}")
        return None if entry is None else _same(name, request_id, _amount(entry), entry)

    async def release(self, grant: Grant, *, remember: bool = True) -> None:
        """
        Give a grant back; giving back what has ended is no error.

        ``remember`` it, so that a late repeat of the request is known as one; needless where the request
        id was never told to anyone.
        """
        success: list[Put | Delete] = [Delete(key=grant.place.key)]
        if remember:
            lease = await self._leases.lease(REQUEST_TTL)
            key = self._released_key(grant.name, grant.request_id)
            success.append(Put(key=key, value=b"%d" % grant.amount, lease=lease))
        await self._store.transact(compares=[grant.place.fence], success=success)

    @asynccontextmanager
    async def hold(self, name: str, amount: int, *, ttl: float = 10.0) -> AsyncIterator[Held]:
        """
        Hold ``amount`` for the block; errors as of :meth:`acquire`.

        When its lease can't be renewed, the block is cancelled and raises Lost, as with a lock.
        """
        async with KeptLease(self._store, ttl, clock=self._clock) as lease:
            grant = await self.acquire(name, amount, lease=lease.id)
            yield Held(grant.place, lease)

    async def _acquire(self, name: str, amount: int, lease: int, id: str) -> Grant:
        prefix = self._prefix(name)
        key = f"{prefix}grant/{id}"
        released = self._released_key(name, id)
        for _ in range(_ATTEMPTS):
            snapshot = await self._store.scan(prefix)
            quota = _quota(name, prefix, snapshot)
            if quota is None:
                raise NotDone(f"there is no quota {name!r}; give it a size first")
            existing = next((entry for entry in snapshot.entries if entry.key == key), None)
            if existing is not None:
                return _same(name, id, amount, existing)
            if await self._store.get(released) is not None:
                raise RequestReused(f"request id {id!r}: its grant was released; use a new id")
            if amount > quota.available:
                raise Insufficient(name, amount, quota.available, quota.size)
            outcome = await self._store.transact(
                compares=[
                    _unchanged(prefix, quota.turn),
                    Compare(key=key, field=Field.CREATED, target=0),
                    Compare(key=released, field=Field.CREATED, target=0),
                ],
                success=[
                    _sized(prefix, quota.size),
                    Put(key=key, value=b"%d" % amount, lease=lease),
                ],
            )
            if outcome.succeeded:
                place = Place(key=key, token=outcome.revision, lease=lease)
                return Grant(name=name, request_id=id, amount=amount, place=place)
        raise _contended(name)

    def _prefix(self, name: str) -> str:
        return f"{self._quotas}{check_name(name)}{END}"

    def _released_key(self, name: str, request_id: str) -> str:
        return f"{self._released}{check_name(name)}{END}{request_id}"

    def _turn(self, name: str) -> asyncio.Lock:
        turn = self._turns.get(name)
        if turn is None:
            turn = self._turns[name] = asyncio.Lock()
        return turn


def _quota(name: str, prefix: str, snapshot: Snapshot) -> Quota | None:
    size = turn = None
    grants: dict[str, int] = {}
    home = f"{prefix}grant/"
    for entry in snapshot.entries:
        if entry.key == f"{prefix}size":
            size, turn = int(entry.value), entry.modified
        else:
            grants[entry.key.removeprefix(home)] = _amount(entry)
    if size is None or turn is None:
        return None
    return Quota(name=name, size=size, grants=grants, revision=snapshot.revision, turn=turn)


def _same(name: str, id: str, amount: int, entry: Entry) -> Grant:
    if _amount(entry) != amount or entry.lease is None:
        raise RequestReused(f"request id {id!r} came with amount {_amount(entry)} before, now with {amount}")
    place = Place(key=entry.key, token=entry.created, lease=entry.lease)
    return Grant(name=name, request_id=id, amount=amount, place=place)


def _amount(entry: Entry) -> int:
    return int(entry.value)


def _unchanged(prefix: str, turn: int) -> Compare:
    return Compare(key=f"{prefix}size", field=Field.MODIFIED, target=turn)


def _sized(prefix: str, size: int) -> Put:
    return Put(key=f"{prefix}size", value=b"%d" % size)


def _contended(name: str) -> NotDone:
    return NotDone(f"others changed quota {name!r} {_ATTEMPTS} times: try again")
