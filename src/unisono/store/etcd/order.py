"""
One process's writes to the same key keep the order in which they were made.

etcd takes what is sent at once in any order, for each call is a stream of its own. A caller who puts and then
deletes without waiting in between means the put to come first: so a write waits for those before it that
change one of its keys, and no others. Nothing here knows etcd.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Hashable, Iterable
from contextlib import asynccontextmanager


class _Lane:
    """Who has one name: the last who has it alone, and those who share it since."""

    def __init__(self) -> None:
        self.alone: asyncio.Future[None] | None = None
        self.sharing: set[asyncio.Future[None]] = set()


class Order:
    """Turns for names: ``alone`` after all before, ``shared`` after the last who had it alone."""

    def __init__(self) -> None:
        self._lanes: dict[Hashable, _Lane] = {}
        self._open: set[asyncio.Future[None]] = set()
        self._barrier: asyncio.Future[None] | None = None

    @asynccontextmanager
    async def turn(
        self, alone: Iterable[Hashable], shared: Iterable[Hashable] = (), *, everything: bool = False
    ) -> AsyncIterator[None]:
        """
        Wait for one's turn; the place in line is taken before the first wait.

        With ``everything`` all others are waited for, and all later ones wait.
        """
        alone, shared = set(alone), set(shared)
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        before = set(self._open) if everything else self._before(alone, shared)
        self._enter(mine, alone, shared, everything)
        try:
            if before:
                await asyncio.wait(before)
            yield
        finally:
            self._leave(mine, alone, shared)

    def _before(self, alone: set[Hashable], shared: set[Hashable]) -> set[asyncio.Future[None]]:
        before = set()
        for name in alone | shared:
            lane = self._lanes.get(name)
            if lane is None:
                continue
            if lane.alone is not None:
                before.add(lane.alone)
            if name in alone:
                before |= lane.sharing
        if self._barrier is not None:
            before.add(self._barrier)
        return before

    def _enter(
        self, mine: asyncio.Future[None], alone: set[Hashable], shared: set[Hashable], everything: bool
    ) -> None:
        self._open.add(mine)
        if everything:
            self._barrier = mine
        for name in alone:
            self._lanes.setdefault(name, _Lane()).alone = mine
        for name in shared - alone:
            self._lanes.setdefault(name, _Lane()).sharing.add(mine)

    def _leave(self, mine: asyncio.Future[None], alone: set[Hashable], shared: set[Hashable]) -> None:
        mine.set_result(None)
        self._open.discard(mine)
        if self._barrier is mine:
            self._barrier = None
        for name in alone | shared:
            lane = self._lanes[name]
            lane.sharing.discard(mine)
            if lane.alone is mine:
                lane.alone = None
            if lane.alone is None and not lane.sharing:
                del self._lanes[name]
