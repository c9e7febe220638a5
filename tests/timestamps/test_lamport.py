"""Lamport's clock."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unisono.timestamps.lamport import LamportClock


@given(start=st.integers(0, 1000), received=st.integers(0, 1000))
def test_a_message_is_received_after_it_was_sent_and_after_all_before(start: int, received: int) -> None:
    """T = max Tᵢ, then moves on."""
    clock = LamportClock(start)

    assert max(start, received) + 1 == clock.observe(received)


def test_local_events_rise() -> None:
    """Each event has the next number."""
    clock = LamportClock(5)

    assert [6, 7, 8] == [clock.tick() for _ in range(3)]


def test_a_negative_timestamp_is_refused_and_changes_nothing() -> None:
    """Bad input leaves the clock as it was."""
    clock = LamportClock(5)

    with pytest.raises(ValueError, match="-1"):
        clock.observe(-1)

    assert 5 == clock.last
