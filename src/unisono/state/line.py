"""
Waiting in order: the one mechanism under locks, semaphores, elections and barriers.

Each member of a line is a key under its lease. The store's revision at which the key was made is its place:
revisions only rise, so it is also a fencing token that never comes again, even when all of the line's keys
are long gone. Whoever dies leaves the line when the lease ends; nobody removes another's key.

Who counts as admitted, and what for, is the business of :mod:`.locks`, :mod:`.elections`, :mod:`.barriers`.

Source: the lock recipe of etcd, client/v3/concurrency; with the check of one's own key after waiting that
it lacked until etcd pull request 11408.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from unisono.state.errors import Lost, fenced
from unisono.state.names import END, check_name
from unisono.store.base import (
    Batch,
    Compacted,
    Compare,
    Delete,
    Entry,
    Field,
    MaybeDone,
    NotDone,
    Put,
    Store,
)

MAX_MEMBER_BYTES = 64 * 1024  # of what a member says with its place

_ATTEMPTS = 3  # at an outcome that is unknown, before the caller is told


@dataclass(frozen=True, kw_only=True)
class Place:
    """One member's place in a line; ``token`` rises with each that enters."""

    key: str
    token: int
    lease: int

    @property
    def fence(self) -> Compare:
        """Holds as long as this place exists."""
        return Compare(key=self.key, field=Field.CREATED, target=self.token)


@dataclass(frozen=True, kw_only=True)
class Members:
    """Who stands in line as of ``revision``, the first in front."""

    revision: int
    entries: tuple[Entry, ...]

    def ahead_of(self, place: Place) -> Sequence[Entry]:
        """
        Those in front of ``place``.

        Raises:
            Lost: The place is gone.
        """
        for rank, entry in enumerate(self.entries):
            if entry.key == place.key and entry.created == place.token:
                return self.entries[:rank]
        raise Lost(f"place {place.token} in line is gone: lease {place.lease} has ended")

    def find(self, place: Place) -> Entry:
        """The place's own entry; raises Lost if it is gone."""
        return self.entries[len(self.ahead_of(place))]


class Line:
    """
    One line of a namespace. ``home`` is the namespace's prefix, ``kind`` what the line is for.

    Raises:
        ValueError: ``name`` is no name.
    """

    def __init__(self, store: Store, home: str, kind: str, name: str) -> None:
        self._store = store
        self.label = f"{kind} {name!r}"
        self.prefix = f"{home}{kind}/{check_name(name)}{END}"

    async def enter(self, lease: int, value: bytes = b"") -> Place:
        """
        The place of ``lease`` in this line: at the end, or where it stands already.

        Raises:
            NotDone: It has none; one reason is that the lease has ended.
            Lost: It had one until a moment ago, and the lease has ended.
            MaybeDone: It may have one; it goes with the lease.
            ValueError: ``value`` is too long.
        """
        if len(value) > MAX_MEMBER_BYTES:
            raise ValueError(f"a member says {len(value)} bytes; at most {MAX_MEMBER_BYTES} are allowed")
        key = f"{self.prefix}{lease:020d}"
        new = Compare(key=key, field=Field.CREATED, target=0)
        unknown: MaybeDone | None = None
        for _ in range(_ATTEMPTS):
            try:
                outcome = await self._store.transact(
                    compares=[new], success=[Put(key=key, value=value, lease=lease)]
                )
            except MaybeDone as error:
                unknown = error  # doing it again finds out
                continue
            except NotDone:
                if unknown is None:
                    raise
                break  # not done this time, but the time before it may have been
            if outcome.succeeded:
                return Place(key=key, token=outcome.revision, lease=lease)
            entry = await self._store.get(key)
            if entry is None:
                raise Lost(f"lease {lease} ended while it stood in line")
            return Place(key=key, token=entry.created, lease=lease)
        raise unknown or MaybeDone(f"lease {lease} may stand in line")

    async def members(self) -> Members:
        """Who stands in line now."""
        snapshot = await self._store.scan(self.prefix)
        entries = sorted(snapshot.entries, key=lambda entry: entry.created)
        return Members(revision=snapshot.revision, entries=tuple(entries))

    async def admitted(self, place: Place, places: int = 1) -> None:
        """
        Wait until fewer than ``places`` stand in front.

        Raises:
            Lost: The place is gone. That is looked at after each wait: whoever waited long may have
                been dropped meanwhile, with nobody in front any more either.
        """
        while True:
            members = await self.members()
            ahead = members.ahead_of(place)
            if len(ahead) < places:
                return
            # With one place only the next in front matters: when somebody leaves, one wakes, not all.
            await self.left(ahead[-1].key if places == 1 else self.prefix, after=members.revision)

    async def left(self, prefix: str, *, after: int) -> None:
        """Wait until a key under ``prefix`` was removed after revision ``after``, or may have been."""
        async with _watching(self._store, prefix, after) as watch:
            async for batch in watch:
                if any(event.entry is None for event in batch.events):
                    return

    async def changed(self, *, after: int) -> None:
        """Wait until the line has changed after revision ``after``, or may have."""
        async with _watching(self._store, self.prefix, after) as watch:
            async for _ in watch:
                return

    async def say(self, place: Place, value: bytes) -> int:
        """
        Change what a member says with its place; returns the revision.

        Raises:
            Fenced: The place is gone.
            StoreError: As the store's transact; repeating it is harmless.
        """
        if len(value) > MAX_MEMBER_BYTES:
            raise ValueError(f"a member says {len(value)} bytes; at most {MAX_MEMBER_BYTES} are allowed")
        outcome = await self._store.transact(
            compares=[place.fence], success=[Put(key=place.key, value=value, lease=place.lease)]
        )
        if not outcome.succeeded:
            raise fenced(place.fence)
        return outcome.revision

    async def leave(self, place: Place) -> None:
        """
        Give the place up, and only this one; giving up what is gone is no error.

        Raises:
            StoreError: As the store's transact; repeating it is harmless.
        """
        await self._store.transact(compares=[place.fence], success=[Delete(key=place.key)])


@asynccontextmanager
async def _watching(store: Store, prefix: str, after: int) -> AsyncIterator[AsyncIterator[Batch]]:
    """A watch that is let go of at once; behind a compaction it just ends, and the line is looked at anew."""
    watch = store.watch(prefix, after=after)
    try:
        yield watch
    except Compacted:
        return
    finally:
        aclose = getattr(watch, "aclose", None)
        if aclose is not None:
            await aclose()
