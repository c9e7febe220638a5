"""
Which leases live and when each ends: plain bookkeeping, with time as an input.

Which keys a lease holds :mod:`.entries` knows; removing them, and setting the timer, is the store's.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(slots=True)
class _Lease:
    ttl: float
    deadline: float


class Leases:
    """
    Leases by id; all times are seconds of one monotonic clock.

    A lease at or past its deadline has ended, even while its keys are still being removed: whoever is
    late by a moment is told so, instead of holding on to something that is on its way to another.
    """

    def __init__(self, ttls: Mapping[int, float], now: float) -> None:
        self._leases: dict[int, _Lease] = {}
        # One entry per lease, possibly with an old deadline: renewing then costs nothing here.
        self._heap: list[tuple[float, int]] = []
        for id, ttl in ttls.items():
            self.add(id, ttl, now)

    def add(self, id: int, ttl: float, now: float) -> None:
        """Start a lease of ``ttl`` seconds."""
        lease = _Lease(ttl, now + ttl)
        self._leases[id] = lease
        heapq.heappush(self._heap, (lease.deadline, id))

    def renew(self, id: int, now: float) -> bool:
        """Start its time anew; False if it has ended."""
        if not self.alive(id, now):
            return False
        lease = self._leases[id]
        lease.deadline = now + lease.ttl
        return True

    def alive(self, id: int, now: float) -> bool:
        """Whether it exists and has not ended."""
        lease = self._leases.get(id)
        return lease is not None and now < lease.deadline

    def known(self, id: int) -> bool:
        """Whether it exists, ended or not."""
        return id in self._leases

    def remove(self, id: int) -> None:
        """Forget a lease."""
        self._leases.pop(id, None)

    def due(self, now: float) -> list[int]:
        """Leases that have ended and were not returned before, the earliest first."""
        ended = []
        while self._heap and self._heap[0][0] <= now:
            _, id = heapq.heappop(self._heap)
            lease = self._leases.get(id)
            if lease is None:
                continue
            if lease.deadline > now:
                heapq.heappush(self._heap, (lease.deadline, id))
            else:
                ended.append(id)
        return ended

    def postpone(self, id: int, until: float) -> None:
        """Let :meth:`due` return an ended lease once more, at ``until``: it could not be removed now."""
        heapq.heappush(self._heap, (until, id))

    def next_deadline(self) -> float | None:
        """When :meth:`due` is to be asked next; it may then find none, for one was renewed."""
        return self._heap[0][0] if self._heap else None
