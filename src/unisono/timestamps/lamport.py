"""
Lamport's logical clock: the smallest clock that respects causality.

If a happened before b then the timestamp of a is smaller; the converse does not hold. Where the
converse matters, :mod:`unisono.timestamps.vector` tells concurrent events apart; where the timestamp
should also be near to real time, :mod:`unisono.timestamps.hybrid`.

Source: Lamport, "Time, Clocks, and the Ordering of Events in a Distributed System", CACM 21(7), 1978.
"""

from __future__ import annotations


class LamportClock:
    """
    A counter that each event of one process moves on. Not safe for use by several threads.

    Args:
        start: The last timestamp given out before a restart, at least 0; the next one is above it.

    Raises:
        ValueError: ``start`` is negative.
    """

    __slots__ = ("_last",)

    def __init__(self, start: int = 0) -> None:
        if start < 0:
            raise ValueError(f"start is {start}, must be at least 0")
        self._last = start

    @property
    def last(self) -> int:
        """The timestamp given out last, or the start."""
        return self._last

    def tick(self) -> int:
        """The timestamp of a local event, or of a message about to be sent."""
        self._last += 1
        return self._last

    def observe(self, received: int) -> int:
        """
        The timestamp of receiving a message that bears ``received``: the maximum, then moved on.

        Raises:
            ValueError: ``received`` is negative; the clock stays as it was.
        """
        if received < 0:
            raise ValueError(f"received timestamp is {received}, must be at least 0")
        self._last = max(self._last, received) + 1
        return self._last
