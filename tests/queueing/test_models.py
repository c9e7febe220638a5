"""M2 to M5 against enumeration and by their invariants."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unisono.queueing import commit, load, retry, sharing

PROBABILITIES = st.floats(0, 1)


def test_load_is_the_sum_over_instances() -> None:
    """L = Σ Lᵢ."""
    assert load.system_load([1, 2.5, 0]) == 3.5


def test_load_follows_from_rate_and_time() -> None:
    """Little: 200 requests per second of 50 ms are 10 at a time."""
    assert load.expected_load(200, 0.05) == pytest.approx(10)


@given(p=PROBABILITIES, k=st.integers(1, 6))
def test_retry_agrees_with_counting_every_outcome(p: float, k: int) -> None:
    """All 2ᵏ outcomes of k attempts, each stopped at its first success."""
    succeeds = 0.0
    made = 0.0
    for outcome in itertools.product([True, False], repeat=k):
        weight = math.prod(1 - p if ok else p for ok in outcome)
        succeeds += weight * any(outcome)
        made += weight * (outcome.index(True) + 1 if any(outcome) else k)

    assert retry.success_probability(p, k) == pytest.approx(succeeds, abs=1e-9)
    assert retry.expected_attempts(p, k) == pytest.approx(made, abs=1e-6)


def test_an_attempt_that_always_fails_is_made_as_often_as_allowed() -> None:
    """p = 1: the quotient would be 0/0."""
    assert retry.expected_attempts(1, 5) == 5


def test_all_participants_must_get_through_every_phase() -> None:
    """∏ Tᵢᵗ with 0.9 and 0.8 over two phases."""
    assert commit.commit_probability([0.9, 0.8], phases=2) == pytest.approx(0.72**2)


def test_retries_make_a_commit_likelier() -> None:
    """Tᵢ = 1 - pᵢᵏ."""
    assert commit.commit_probability_with_retry([0.1, 0.2], attempts=2) == pytest.approx(0.99 * 0.96)


@given(branches=st.lists(st.floats(0, 10), max_size=8))
def test_a_parallel_phase_takes_its_slowest_branch(branches: list[float]) -> None:
    """Never longer than one after the other."""
    parallel = commit.phase_latency(branches, parallel=True)

    assert parallel == max(branches, default=0)
    assert parallel <= commit.phase_latency(branches, parallel=False) + 1e-9


@given(
    size=st.integers(0, 10**9),
    weights=st.dictionaries(st.text(max_size=3), st.floats(0.001, 1000), min_size=1, max_size=20),
)
def test_quotas_sum_to_the_size_and_stay_near_their_share(size: int, weights: dict[str, float]) -> None:
    """Σ Sᵢ = S, and no one is more than 1 away from the exact share."""
    quotas = sharing.divide(size, weights)

    assert sum(quotas.values()) == size
    assert sharing.fits(size, quotas)
    total = sum(weights.values())
    assert all(abs(quotas[name] - size * weight / total) <= 1 for name, weight in weights.items())


def test_quotas_beyond_the_size_do_not_fit() -> None:
    """Σ Sᵢ ≤ S is the invariant."""
    assert not sharing.fits(10, {"a": 6, "b": 5})


@pytest.mark.parametrize(
    "call",
    [
        lambda: retry.success_probability(1.5, 1),
        lambda: retry.success_probability(0.5, 0),
        lambda: commit.commit_probability([0.5, -0.1]),
        lambda: commit.phase_latency([math.nan], parallel=True),
        lambda: load.system_load([-1]),
        lambda: sharing.divide(10, {}),
        lambda: sharing.divide(-1, {"a": 1}),
    ],
)
def test_an_argument_out_of_range_is_refused(call: object) -> None:
    """A ValueError, never a silent figure."""
    with pytest.raises(ValueError, match="must"):
        call()  # type: ignore[operator]
