"""What is held at a time: never more than there is. One lock is a quota of 1. In O(n log n)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from unisono.evaluate.checkers.verdict import KEPT, Verdict, violated


@dataclass(frozen=True, kw_only=True)
class Holding:
    """
    Something that was surely held from ``since`` to ``until``, in nanoseconds, both included.

    ``since`` is when the grant was answered. ``until`` is the last moment before anything that could end it:
    the call of a release, a signal to the holder, the end of the lease by the holder's clock.
    """

    name: str
    holder: str
    amount: int
    since: int
    until: int

    def __post_init__(self) -> None:
        if self.amount < 1:
            raise ValueError(f"{self}: an amount is at least 1")

    def __str__(self) -> str:
        return f"{self.holder}: {self.amount} of {self.name} [{self.since} .. {self.until}]"


def within(size: int, holdings: Iterable[Holding]) -> Verdict:
    """Judge that of each name at most ``size`` is held at any moment."""
    names: dict[str, list[Holding]] = defaultdict(list)
    for holding in holdings:
        if holding.until >= holding.since:
            names[holding.name].append(holding)
    for name, found in sorted(names.items()):
        # At one moment, what ends goes before what begins: the two need not have met.
        moments = [(one.since, 1, n) for n, one in enumerate(found)]
        moments += [(one.until, 0, n) for n, one in enumerate(found) if one.until > one.since]
        held: set[int] = set()
        for _, begins, n in sorted(moments):
            if not begins:
                held.discard(n)
                continue
            together = [found[other] for other in (*held, n)]
            total = sum(one.amount for one in together)
            if total > size:
                return violated(f"{total} of {name!r} held at a time, and there are {size}", *together)
            if found[n].until > found[n].since:
                held.add(n)
    return KEPT
