"""The whole control plane under faults and commands by chance; see tests/control/simulation.py."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.control.simulation import simulate


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 2**32 - 1))
def test_converges_from_anywhere(seed: int) -> None:
    """Whatever went wrong, every decision keeps its promises, and once nothing does, all is as wanted."""
    simulate(seed)


def test_same_seed_same_world() -> None:
    """A seed that failed can be played again: it leads to the same records."""
    first, second = simulate(7, steps=120), simulate(7, steps=120)

    assert first.snapshot.services == second.snapshot.services
