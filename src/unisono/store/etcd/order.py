"""
One process's writes to the same key keep the order in which they were made.

etcd takes what is sent at once in any order, for each call is a stream of its own. A caller who puts and then
deletes without waiting in between means the put to come first: so a write waits for those before it that
change one of its keys, and no others. Nothing here knows etcd.
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Set

_NOTHING: frozenset[Hashable] = frozenset()


class Turn:
    """One's place in line. Made by :meth:`Order.enter`; to be given back with :meth:`Order.leave`."""

    __slots__ = ("_done", "_ended", "alone", "before", "shared")

    def __init__(self, alone: Set[Hashable], shared: Set[Hashable], before: set[Turn]) -> None:
        self.alone = alone
        self.shared = shared
        self.before = before  # those that come first
        self._ended = False
        self._done: asyncio.Future[None] | None = None  # made when somebody waits: most often nobody does

    async def come(self) -> None:
        """Wait for one's turn."""
        for turn in self.before:
            await turn._end()

    def end(self) -> None:
        """Let those who wait for it go on."""
        self._ended = True
        if self._done is not None:
            self._done.set_result(None)

    async def _end(self) -> None:
        if self._ended:
            return
        if self._done is None:
            self._done = asyncio.get_running_loop().create_future()
        await asyncio.wait([self._done])


class _Lane:
    """Who has one name: the last who has it alone, and those who share it since."""

    __slots__ = ("alone", "sharing")

    def __init__(self) -> None:
        self.alone: Turn | None = None
        self.sharing: set[Turn] = set()


class Order:
    """Turns for names: ``alone`` after all before, ``shared`` after the last who had it alone."""

    def __init__(self) -> None:
        self._lanes: dict[Hashable, _Lane] = {}
        self._open: set[Turn] = set()
        self._barrier: Turn | None = None

    def enter(
        self, alone: Set[Hashable], shared: Set[Hashable] = _NOTHING, *, everything: bool = False
    ) -> Turn:
        """Take a place in line. With ``everything`` all others are waited for, and all later ones wait."""
        shared = shared - alone if shared else shared
        turn = Turn(alone, shared, set(self._open) if everything else set())
        for name in alone:
            lane = self._lane(name, turn)
            turn.before |= lane.sharing
            lane.alone = turn
        for name in shared:
            self._lane(name, turn).sharing.add(turn)
        if self._barrier is not None:
            turn.before.add(self._barrier)
        if everything:
            self._barrier = turn
        self._open.add(turn)
        return turn

    def leave(self, turn: Turn) -> None:
        """Let the next ones go on."""
        turn.end()
        self._open.discard(turn)
        if self._barrier is turn:
            self._barrier = None
        for names in (turn.alone, turn.shared):
            for name in names:
                lane = self._lanes[name]
                lane.sharing.discard(turn)
                if lane.alone is turn:
                    lane.alone = None
                if lane.alone is None and not lane.sharing:
                    del self._lanes[name]

    def _lane(self, name: Hashable, turn: Turn) -> _Lane:
        lane = self._lanes.get(name)
        if lane is None:
            lane = self._lanes[name] = _Lane()
        elif lane.alone is not None:
            turn.before.add(lane.alone)
        return lane
