"""How long restarts wait."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unisono.node.backoff import FIRST_SECONDS, LONGEST_SECONDS, restart_delay


def test_the_first_restart_comes_at_once() -> None:
    """Most crashes are singular."""
    assert restart_delay(1, Random(0)) == 0.0


@given(failures=st.integers(2, 10_000), seed=st.integers())
def test_later_ones_double_within_jitter_and_never_exceed_the_longest(failures: int, seed: int) -> None:
    """The n-th wait is 100 ms * 2^(n-2) give or take a quarter, and at most 30 s."""
    middle = min(FIRST_SECONDS * 2.0 ** (failures - 2) if failures < 30 else 1e9, LONGEST_SECONDS)

    delay = restart_delay(failures, Random(seed))

    assert 0.75 * middle <= delay <= min(1.25 * middle, LONGEST_SECONDS)


def test_no_failure_is_no_reason_to_wait() -> None:
    """A number below 1 is a fault of the caller."""
    with pytest.raises(ValueError, match="at least 1, not 0"):
        restart_delay(0, Random(0))
