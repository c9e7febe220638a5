"""The engine's hybrid logical clock is the one that is defined in Python, and serves many threads."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unisono._engine import Clock
from unisono.timestamps.hybrid import DriftError, HybridClock

MILLIS = st.integers(0, 1 << 40)
STAMPS = st.integers(0, (1 << 56) - 1)


@given(st.lists(st.tuples(MILLIS, st.none() | STAMPS), max_size=50), STAMPS)
def test_step_by_step_it_says_what_the_definition_says(
    steps: list[tuple[int, int | None]], start: int
) -> None:
    """Whatever the physical clock and those who send do; also what is refused, and how often."""
    physical = 0
    defined = HybridClock(lambda: physical, start=start)
    clock = Clock(start=start)

    for physical, received in steps:
        try:
            wanted = defined.now() if received is None else defined.observe(received)
        except DriftError as refusal:
            with pytest.raises(ValueError, match=str(refusal)):
                clock.at(physical, received)
        else:
            assert clock.at(physical, received) == wanted

    assert (clock.last, clock.refused) == (defined.last, defined.refused)


def test_threads_never_get_the_same_stamp() -> None:
    """Each one's own only rise."""
    clock = Clock()
    found: list[list[int]] = [[] for _ in range(4)]

    def stamp(own: list[int]) -> None:
        own.extend(clock.now() for _ in range(10_000))

    threads = [threading.Thread(target=stamp, args=(own,)) for own in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert all(own == sorted(own) for own in found)
    assert len({stamp for own in found for stamp in own}) == 40_000


def test_a_clock_an_hour_ahead_is_refused() -> None:
    """With what would be right."""
    clock = Clock()

    with pytest.raises(ValueError, match="the limit is 500 ms"):
        clock.observe(clock.now() + (3_600_000 << 16))
    assert clock.refused == 1
