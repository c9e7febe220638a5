"""Dispatch in virtual time beside queueing theory, where theory has the answer."""

from __future__ import annotations

import math
import statistics
from dataclasses import replace

import pytest

from unisono.gateway.simulation import Exponential, Instances, Lognormal, Pauses, Scenario, simulate
from unisono.queueing.waiting import waiting_probability, waiting_time

SEEDS = range(1, 13)
STANDARD_ERRORS = 4.0
"""With correct code one seed set in some thousands is further away; the seeds here are fixed."""


def scenario(count: int, utilisation: float, seed: int) -> Scenario:
    return Scenario(
        requests=150_000,
        warm_up=15_000,
        utilisation=utilisation,
        service=Exponential(),
        instances=(Instances(count=count),),
        concurrency=1,
        queue_max=1_000_000,
        seed=seed,
    )


def mean_and_error(samples: list[float]) -> tuple[float, float]:
    return statistics.fmean(samples), statistics.stdev(samples) / math.sqrt(len(samples))


@pytest.mark.parametrize(("count", "utilisation"), [(1, 0.5), (8, 0.7), (8, 0.9), (64, 0.95)])
def test_one_queue_waits_as_erlang_says(count: int, utilisation: float) -> None:
    """Share and mean of the waits are Erlang's within the sampling error, and that is small."""
    rate = utilisation * count / 0.01
    expected = (waiting_probability(rate, 0.01, count), 1000 * waiting_time(rate, 0.01, count))

    reports = [simulate(scenario(count, utilisation, seed)) for seed in SEEDS]

    found = (
        mean_and_error([report.waited for report in reports]),
        mean_and_error([report.wait_ms.mean for report in reports]),
    )
    for (mean, error), theory in zip(found, expected, strict=True):
        assert abs(mean - theory) < STANDARD_ERRORS * error
        assert error < 0.06 * theory


@pytest.mark.parametrize("places", [1, 2, 4, 8])
@pytest.mark.parametrize("utilisation", [0.5, 0.75, 0.9])
def test_a_learned_limit_is_about_as_good_as_the_right_one(places: int, utilisation: float) -> None:
    """Nobody says how many requests an instance can work on; p99 is within 15 % of when somebody does."""
    known = Scenario(
        requests=200_000,
        warm_up=20_000,
        utilisation=utilisation,
        service=Lognormal(cv=1.0),
        instances=(Instances(count=4, places=places),),
        concurrency=places,
    )

    declared, learned = simulate(known), simulate(replace(known, concurrency="auto"))

    assert learned.latency_ms.p99 < 1.15 * declared.latency_ms.p99


def test_expected_completion_beats_counting_where_instances_are_unequal() -> None:
    """With half of them three times slower fewest requests is worse, and holding requests better still."""
    fastest = Scenario(
        requests=200_000,
        warm_up=20_000,
        utilisation=0.5,
        service=Lognormal(cv=1.0),
        instances=(Instances(count=4), Instances(count=4, speed=1 / 3)),
        concurrency=1,
    )

    by_time, by_count, held = (
        simulate(scenario).latency_ms.p99
        for scenario in (fastest, replace(fastest, balance="least_requests"), replace(fastest, hold=True))
    )

    assert held < 0.85 * by_time < 0.85 * 0.85 * by_count


@pytest.mark.parametrize("service", [Exponential(), Lognormal(cv=1.0)])
@pytest.mark.parametrize(("load", "least"), [(1.2, 0.95), (1.5, 0.95), (3.0, 0.9)])
def test_overload_leaves_goodput_at_the_capacity(
    service: Exponential | Lognormal, load: float, least: float
) -> None:
    """What can be served in its 100 mean times is; the others hear of it before theirs are over."""
    overload = Scenario(
        requests=100_000,
        warm_up=10_000,
        utilisation=load,
        service=service,
        instances=(Instances(count=8),),
        concurrency=1,
        deadline_ms=1000,
    )

    report = simulate(overload)

    assert report.goodput >= least
    assert report.latency_ms.p50 <= 20
    assert report.late <= 0.001 * report.requests


def test_a_hedge_rescues_what_an_instance_that_pauses_would_delay() -> None:
    """With pauses of 200 ms, p99.9 is at most 0.6 times what it is without, for 2 % more requests at most."""
    pausing = Instances(count=8, places=4, pauses=Pauses(every_ms=5000, for_ms=200))
    bare = Scenario(
        requests=200_000,
        warm_up=20_000,
        utilisation=0.5,
        service=Lognormal(cv=1.0),
        instances=(pausing,),
        concurrency=4,
    )

    alone, hedged = simulate(bare), simulate(replace(bare, hedge=0.02))

    assert hedged.latency_ms.p99_9 <= 0.6 * alone.latency_ms.p99_9
    assert hedged.hedges <= 0.02 * bare.requests


def test_two_thousand_instances_keep_one_queue() -> None:
    """So many idle places are found without a wait, also at a utilisation of 0.9."""
    many = Scenario(
        requests=100_000,
        warm_up=20_000,
        utilisation=0.9,
        service=Lognormal(cv=1.0),
        instances=(Instances(count=2000),),
        concurrency=1,
    )

    report = simulate(many)

    assert (report.good, report.waited) == (80_000, pytest.approx(0.0, abs=0.001))


def test_a_scenario_out_of_range_is_refused() -> None:
    """The error names the field, what was found and what would be right."""
    wrong = replace(scenario(8, 0.7, 1), utilisation=0.0)

    with pytest.raises(ValueError, match=r"utilisation is 0; 0\.000001 to 100 would be right"):
        simulate(wrong)
