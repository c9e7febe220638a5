"""
When leases granted here end, by this machine's clock: never later than etcd thinks. Pure, time is an input.

etcd counts whole seconds, begins when the request reaches it, and grants more time than was asked for when
that is very short. Here a lease's time begins when the request is *sent*: so its loss is noticed here before
its keys can go.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

_KEPT_SECONDS = 3600.0  # by then etcd has ended it too
_MANY = 1000


@dataclass(slots=True)
class _Lease:
    ttl: float
    deadline: float


class Deadlines:
    """
    The leases granted here, by id. Others' are not known here, and etcd is asked.

    All times are seconds of one clock that also runs while the machine sleeps.
    """

    def __init__(self) -> None:
        self._leases: dict[int, _Lease] = {}

    def add(self, id: int, ttl: float, asked: float) -> None:
        """A lease was granted that was asked for at ``asked``."""
        if len(self._leases) >= _MANY:
            self._forget(asked)
        self._leases[id] = _Lease(ttl, asked + ttl)

    def renew(self, id: int, asked: float) -> None:
        """A lease's time was started anew, as was asked for at ``asked``."""
        lease = self._leases.get(id)
        if lease is not None:
            lease.deadline = max(lease.deadline, asked + lease.ttl)

    def ended(self, id: int, now: float) -> bool:
        """Whether its time is up; false for one that is not known here."""
        lease = self._leases.get(id)
        return lease is not None and now >= lease.deadline

    def left(self, id: int, now: float) -> float:
        """Seconds until it may have ended; endless for one that is not known here."""
        lease = self._leases.get(id)
        return math.inf if lease is None else lease.deadline - now

    def end(self, id: int, now: float) -> None:
        """It has ended before its time."""
        lease = self._leases.get(id)
        if lease is not None:
            lease.deadline = min(lease.deadline, now)

    def _forget(self, now: float) -> None:
        self._leases = {
            id: lease for id, lease in self._leases.items() if lease.deadline > now - _KEPT_SECONDS
        }
