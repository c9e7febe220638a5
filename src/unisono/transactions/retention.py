"""
For how long transactions that are over are remembered, and how they are forgotten.

What is forgotten could be begun again by a late call. So before a transaction is removed it is made durable
up to when gids may have been forgotten, the *floor* of its node: a gid that tells when it was made
(:func:`unisono.transactions.submission.made_at`) is refused if that was before the floor of any node.
Transactions whose outcome is, or was, in doubt are kept for good; they never come here.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable

from unisono.store.base import StoreError
from unisono.transactions import records
from unisono.transactions.errors import Expired
from unisono.transactions.log import Log
from unisono.transactions.submission import made_at

MAX_FINAL = 50_000  # final ones that a node remembers
RETENTION = 3600.0  # seconds for which it does
_AT_ONCE = 2  # removed when one ends: more than that one, so that a backlog melts
_SWEEP = 500  # removed at a time when the backlog is large
_SWEEP_SECONDS, _SWEEP_SECONDS_MIN = 60.0, 0.1
_AHEAD_SECONDS, _BEHIND_SECONDS = 10.0, 5.0  # how far a floor is put: see _raise_floor


class Retention:
    """
    What one node remembers of transactions that are over, the oldest first, and the floors of all nodes.

    ``now``: seconds since the epoch.
    """

    def __init__(self, node: str, now: Callable[[], float]) -> None:
        self._now = now
        self._own = f"{records.FLOOR}/{node}"
        self._floors: dict[str, float] = {}  # by key
        self._final: deque[tuple[float, str]] = deque()  # when they ended, their keys

    def __len__(self) -> int:
        """How many are remembered."""
        return len(self._final)

    def clear(self) -> None:
        """A term begins: what is there will be found again. Floors stay, as they never fall."""
        self._final.clear()

    def found(self, final: Iterable[tuple[float, str]]) -> None:
        """These were over before the term began: when each ended, and its key."""
        self._final.extendleft(sorted(final, reverse=True))

    def learn(self, key: str, value: bytes) -> None:
        """A floor, as a node has written it."""
        self._floors[key] = float(value)

    def check(self, gid: str) -> None:
        """
        Refuse to begin what may have been forgotten.

        Raises:
            Expired: The gid was made before some node's floor.
        """
        made = made_at(gid)
        if made is not None and made < max(self._floors.values(), default=0.0):
            raise Expired(f"the gid {gid} is older than what is still remembered: take a new one")

    def ended(self, at: float, key: str, log: Log) -> None:
        """One more is over; it may take older ones along."""
        self._final.append((at, key))
        self.forget(log)

    def forget(self, log: Log, most: int = _AT_ONCE) -> bool:
        """Have up to ``most`` removed that are too old or too many; whether some may be left."""
        oldest = self._now() - RETENTION
        while self._final and most > 0:
            ended, key = self._final[0]
            if len(self._final) <= MAX_FINAL and ended > oldest:
                return False
            self._final.popleft()
            made = made_at(key.rpartition("/")[2])
            # One that says it was made in the future, by a clock that is ahead, tells nothing: a floor there
            # would refuse all that is begun until then.
            if made is not None and self._floors.get(self._own, 0.0) <= made <= self._now():
                self._raise_floor(made, log)
            log.append(key, None, _ignore)
            most -= 1
        return bool(most == 0 and self._final)

    async def sweep(self, log: Log) -> None:
        """Forget what is too old until cancelled: a net for nodes on which nothing ends any more."""
        pause = _SWEEP_SECONDS
        while True:
            await asyncio.sleep(pause)
            pause = _SWEEP_SECONDS_MIN if self.forget(log, _SWEEP) else _SWEEP_SECONDS

    def _raise_floor(self, made: float, log: Log) -> None:
        """
        Above ``made``, and a while ahead so that it is seldom written, but not up to now: a gid that has just
        been made is not refused.
        """
        floor = max(made + 0.001, min(made + _AHEAD_SECONDS, self._now() - _BEHIND_SECONDS))
        self._floors[self._own] = floor
        log.append(self._own, repr(floor).encode(), _ignore)


def _ignore(_: StoreError | None) -> None:
    """What was to be removed is found again when the next term begins."""
