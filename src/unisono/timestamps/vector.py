"""
Vector timestamps: they tell "before" from "concurrent", at the price of one counter per process.

A timestamp is a plain mapping from a process's name to a positive count; an absent name counts 0, so
that equal timestamps have equal mappings. Values are immutable: each step makes a new one.

Sources: Fidge, "Timestamps in Message-Passing Systems That Preserve the Partial Ordering", 1988;
Mattern, "Virtual Time and Global States of Distributed Systems", 1989.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType


class Order(Enum):
    """How two vector timestamps stand to each other."""

    BEFORE = "before"
    AFTER = "after"
    EQUAL = "equal"
    CONCURRENT = "concurrent"


class VectorTimestamp:
    """
    What a process knew of all others when something happened.

    Raises:
        ValueError: A count is negative.

    >>> a = VectorTimestamp().tick("a")
    >>> b = VectorTimestamp().tick("b")
    >>> a.compare(b), a.compare(b.merge(a))
    (<Order.CONCURRENT: 'concurrent'>, <Order.BEFORE: 'before'>)
    """

    __slots__ = ("_counts",)

    def __init__(self, counts: Mapping[str, int] | None = None) -> None:
        counts = counts or {}
        for process, count in counts.items():
            if count < 0:
                raise ValueError(f"count of {process!r} is {count}, must be at least 0")
        self._counts = {process: count for process, count in counts.items() if count > 0}

    @property
    def counts(self) -> Mapping[str, int]:
        """Positive counts by process, read only."""
        return MappingProxyType(self._counts)

    def tick(self, process: str) -> VectorTimestamp:
        """The timestamp of the next event at ``process``."""
        return VectorTimestamp({**self._counts, process: self._counts.get(process, 0) + 1})

    def merge(self, other: VectorTimestamp) -> VectorTimestamp:
        """All that either knew: the maximum for each process. The receiver ticks it afterwards."""
        merged = dict(self._counts)
        for process, count in other._counts.items():
            merged[process] = max(merged.get(process, 0), count)
        return VectorTimestamp(merged)

    def compare(self, other: VectorTimestamp) -> Order:
        """Whether this happened before, after, at, or concurrently with ``other``."""
        knows_more = any(count > other._counts.get(p, 0) for p, count in self._counts.items())
        knows_less = any(count > self._counts.get(p, 0) for p, count in other._counts.items())
        match knows_more, knows_less:
            case True, True:
                return Order.CONCURRENT
            case True, False:
                return Order.AFTER
            case False, True:
                return Order.BEFORE
            case _:
                return Order.EQUAL

    def __eq__(self, other: object) -> bool:
        return isinstance(other, VectorTimestamp) and self._counts == other._counts

    def __hash__(self) -> int:
        return hash(frozenset(self._counts.items()))

    def __repr__(self) -> str:
        return f"VectorTimestamp({dict(sorted(self._counts.items()))!r})"
