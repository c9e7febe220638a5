"""M1 against closed forms, against a simulation, and at its edges."""

from __future__ import annotations

import heapq
import math
import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unisono.queueing import waiting


def simulated_waits(rate: float, service_time: float, servers: int, seed: int, requests: int) -> list[float]:
    """Waits of an M/M/n queue, first come first served; the first tenth is warm-up."""
    chance = random.Random(seed)
    free_at = [0.0] * servers
    now = 0.0
    waits = []
    for _ in range(requests):
        now += chance.expovariate(rate)
        start = max(now, heapq.heappop(free_at))
        waits.append(start - now)
        heapq.heappush(free_at, start + chance.expovariate(1 / service_time))
    return waits[requests // 10 :]


def test_one_server_waits_as_the_textbook_says() -> None:
    """M/M/1: W = ρ/(1 - ρ)·E[S]."""
    assert waiting.waiting_time(8, 0.1, 1) == pytest.approx(0.8 / 0.2 * 0.1)


def test_a_constant_service_time_halves_the_wait() -> None:
    """M/D/1 waits half of M/M/1 (Pollaczek and Khinchine), where Allen–Cunneen is exact."""
    assert waiting.waiting_time(8, 0.1, 1, service_cv2=0) == pytest.approx(0.2)


@pytest.mark.parametrize("servers", [1, 2, 8])
def test_mean_and_quantile_agree_with_a_simulation(servers: int) -> None:
    """400,000 simulated requests at ρ = 0.8, seed 1."""
    rate = 0.8 * servers / 0.1
    waits = simulated_waits(rate, 0.1, servers, seed=1, requests=400_000)

    assert waiting.waiting_time(rate, 0.1, servers) == pytest.approx(statistics.fmean(waits), rel=0.1)
    assert waiting.waiting_quantile(rate, 0.1, servers, 0.99) == pytest.approx(
        statistics.quantiles(waits, n=100)[98], rel=0.1
    )


@given(rho=st.floats(0, 0.999), servers=st.integers(1, 500))
def test_more_servers_at_the_same_load_never_wait_longer(rho: float, servers: int) -> None:
    """Pooling helps: at one utilisation, the wait falls with n."""
    few = waiting.waiting_time(rho * servers, 1.0, servers)
    more = waiting.waiting_time(rho * (servers + 1), 1.0, servers + 1)

    assert more <= few + 1e-12


@given(rate=st.floats(0, 500), time=st.floats(0.001, 1), p=st.floats(0, 0.999), below=st.floats(0, 10))
def test_the_servers_needed_are_the_fewest_that_do(rate: float, time: float, p: float, below: float) -> None:
    """They hold the bound, and one fewer would not."""
    servers = waiting.servers_needed(rate, time, p=p, below=below)

    assert waiting.waiting_quantile(rate, time, servers, p) <= below
    assert servers == 1 or waiting.waiting_quantile(rate, time, servers - 1, p) > below


def test_throughput_is_bounded_by_capacity() -> None:
    """X = min(λ, n/E[S])."""
    assert [50.0, 80.0] == [waiting.throughput(rate, 0.1, 8) for rate in (50, 200)]


def test_an_overloaded_service_has_no_steady_state() -> None:
    """At ρ = 1 every request waits, for ever."""
    assert waiting.waiting_probability(80, 0.1, 8) == 1
    assert waiting.waiting_time(80, 0.1, 8) == math.inf
    assert waiting.waiting_quantile(80, 0.1, 8, 0.5) == math.inf


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1, 0.1, 1), "arrival_rate is -1"),
        ((math.nan, 0.1, 1), "arrival_rate is nan"),
        ((1, 0, 1), "service_time is 0"),
        ((1, math.inf, 1), "service_time is inf"),
        ((1, 0.1, 0), "servers is 0"),
        ((1, 0.1, 1.5), "servers is 1.5"),
    ],
)
def test_an_argument_out_of_range_is_named_with_its_value(
    arguments: tuple[float, float, int], message: str
) -> None:
    """The message says what was found."""
    with pytest.raises(ValueError, match=message):
        waiting.utilisation(*arguments)
