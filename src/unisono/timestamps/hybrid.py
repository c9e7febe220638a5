"""
The hybrid logical clock: causal like Lamport's, and never far from real time.

A timestamp packs 48 bits of milliseconds since the epoch and a 16 bit counter into one whole number,
so that numeric order is the clock's order. Write it as a *string* into JSON: numbers above 2**53 lose
bits there.

What is not here: where the physical time comes from (an argument), and where the bound that survives a
restart is kept (the caller keeps :attr:`HybridClock.last` and gives it back as ``start``).

Source: Kulkarni, Demirbas, Madappa, Avva, Leone, "Logical Physical Clocks", OPODIS 2014, figure 5. Two
additions, both named there as needed in practice: a received timestamp too far ahead of the physical
clock is refused, since one bad clock would poison all; and a counter that is full moves the logical
milliseconds on by one.
"""

from __future__ import annotations

import time
from collections.abc import Callable

COUNTER_BITS = 16
COUNTER_MAX = (1 << COUNTER_BITS) - 1
MILLIS_MAX = (1 << 48) - 1


class DriftError(ValueError):
    """A received timestamp lies further ahead of the physical clock than is allowed."""

    def __init__(self, ahead_ms: int, limit_ms: int) -> None:
        super().__init__(f"timestamp is {ahead_ms} ms ahead of this clock, the limit is {limit_ms} ms")
        self.ahead_ms = ahead_ms
        self.limit_ms = limit_ms


def pack(millis: int, counter: int) -> int:
    """
    One number from its two parts.

    Raises:
        ValueError: ``millis`` is outside 0 to 2**48 - 1, or ``counter`` outside 0 to 2**16 - 1.
    """
    if not 0 <= millis <= MILLIS_MAX:
        raise ValueError(f"millis is {millis}, must lie between 0 and {MILLIS_MAX}")
    if not 0 <= counter <= COUNTER_MAX:
        raise ValueError(f"counter is {counter}, must lie between 0 and {COUNTER_MAX}")
    return millis << COUNTER_BITS | counter


def unpack(timestamp: int) -> tuple[int, int]:
    """Milliseconds since the epoch, and the counter."""
    return timestamp >> COUNTER_BITS, timestamp & COUNTER_MAX


def wall_clock_ms() -> int:
    """Physical time: milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


class HybridClock:
    """
    One process's clock. Not safe for use by several threads: give each its own, or a lock.

    Args:
        physical: Milliseconds since the epoch; may stand still or jump, the clock never goes back.
        start: A bound that every timestamp must exceed; the value of :attr:`last` kept from before a
            restart.
        max_drift_ms: How far ahead of ``physical`` a received timestamp may be, at least 0.

    Raises:
        ValueError: ``max_drift_ms`` or ``start`` is negative.
    """

    __slots__ = ("_last", "_physical", "max_drift_ms", "refused")

    def __init__(
        self,
        physical: Callable[[], int] = wall_clock_ms,
        *,
        start: int = 0,
        max_drift_ms: int = 500,
    ) -> None:
        if max_drift_ms < 0:
            raise ValueError(f"max_drift_ms is {max_drift_ms}, must be at least 0")
        if start < 0:
            raise ValueError(f"start is {start}, must be at least 0")
        self._physical = physical
        self._last = start
        self.max_drift_ms = max_drift_ms
        self.refused = 0  # received timestamps that were too far ahead

    @property
    def last(self) -> int:
        """The greatest timestamp given out or seen."""
        return self._last

    def now(self) -> int:
        """
        The timestamp of a local event, or of a message about to be sent; above all before it.

        In the packed form the paper's two cases are one: the physical clock with counter 0 where that
        is ahead, else the last timestamp plus one. A full counter carries into the milliseconds.
        """
        self._last = max(self._last + 1, self._physical() << COUNTER_BITS)
        return self._last

    def observe(self, received: int) -> int:
        """
        The timestamp of receiving a message that bears ``received``; above it and above all before.

        The paper's four cases are, packed, the maximum of three: both timestamps plus one, and the
        physical clock with counter 0.

        Raises:
            DriftError: It is more than ``max_drift_ms`` ahead; the clock stays as it was and counts it.
            ValueError: It is negative.
        """
        if received < 0:
            raise ValueError(f"received timestamp is {received}, must be at least 0")
        physical = self._physical()
        ahead_ms = (received >> COUNTER_BITS) - physical
        if ahead_ms > self.max_drift_ms:
            self.refused += 1
            raise DriftError(ahead_ms, self.max_drift_ms)
        self._last = max(self._last + 1, received + 1, physical << COUNTER_BITS)
        return self._last
