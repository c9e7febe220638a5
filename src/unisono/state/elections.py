"""
Elections: of many that offer themselves, one leads, with a value that all can read.

A lock whose holder says something. Leadership is a token, not a yes or no: for a moment two may believe in
theirs, and what the older one writes with its fence is refused.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from unisono.state.leases import Clock, KeptLease, monotonic
from unisono.state.line import Line, Place
from unisono.state.locks import Held, hold
from unisono.state.names import namespace_prefix
from unisono.store.base import Store


@dataclass(frozen=True, kw_only=True)
class Leader:
    """Who leads: what it says, and its fencing token."""

    value: bytes
    token: int


class Leading(Held):
    """Leadership, from the moment it is won to the end of its ``async with`` block."""

    def __init__(self, place: Place, lease: KeptLease, line: Line) -> None:
        super().__init__(place, lease)
        self._line = line

    async def proclaim(self, value: bytes) -> None:
        """
        Say something else from now on.

        Raises:
            Fenced: Another leads; nothing was said.
            MaybeDone: It may have been said; repeating it is harmless.
            ValueError: It is longer than MAX_MEMBER_BYTES.
        """
        await self._line.say(self._place, value)


class Elections:
    """One namespace's elections; ``ttl``, ``wait`` and errors as of :class:`.locks.Locks`."""

    def __init__(self, store: Store, namespace: str, *, clock: Clock = monotonic) -> None:
        self._store = store
        self._home = namespace_prefix(namespace)
        self._clock = clock

    @asynccontextmanager
    async def campaign(
        self, name: str, value: bytes = b"", *, ttl: float = 10.0, wait: float | None = None
    ) -> AsyncIterator[Leading]:
        """Lead ``name`` once all who offered themselves earlier have resigned or died."""
        line = self._line(name)
        async with hold(self._store, line, ttl=ttl, wait=wait, clock=self._clock, value=value) as (
            place,
            lease,
        ):
            yield Leading(place, lease, line)

    async def leader(self, name: str) -> Leader | None:
        """Who leads now; ``None`` if nobody does."""
        return await self.observe(name).__anext__()

    def observe(self, name: str) -> LeaderWatch:
        """An endless iterator: who leads now, then each time another leads or says something else."""
        return LeaderWatch(self._line(name))

    def _line(self, name: str) -> Line:
        return Line(self._store, self._home, "election", name)


class LeaderWatch:
    """
    The leaders of one election, the latest each time: those in between may be left out.

    Cancelling one step loses nothing.
    """

    def __init__(self, line: Line) -> None:
        self._line = line
        self._told: Leader | None = None
        self._began = False

    def __aiter__(self) -> LeaderWatch:
        return self

    async def __anext__(self) -> Leader | None:
        while True:
            members = await self._line.members()
            first = next(iter(members.entries), None)
            leader = None if first is None else Leader(value=first.value, token=first.created)
            if not self._began or leader != self._told:
                self._began, self._told = True, leader
                return leader
            await self._line.changed(after=members.revision)
