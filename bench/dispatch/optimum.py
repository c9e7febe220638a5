"""
The bound for equal instances: all places behind one queue, first come first served, without any cost.

It replays the very arrivals and service times of a round: the engine's load and bench/instances draw them
from seeds with SplitMix64, and so does this. So the bound needs no long run to be compared with a short one.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator

_MASK = (1 << 64) - 1


def units(seed: int) -> Iterator[float]:
    """Numbers above 0, at most 1 (SplitMix64, Steele et al. 2014), as the Rust programs draw them."""
    state = seed
    while True:
        state = (state + 0x9E3779B97F4A7C15) & _MASK
        mixed = state
        mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK
        mixed ^= mixed >> 31
        yield ((mixed >> 11) + 1) / 2.0**53


def arrivals(rate: float, seconds: float, seed: int) -> Iterator[float]:
    """The moments, in seconds, at which the engine's load sends: a Poisson process."""
    chance = units(seed)
    at = 0.0
    while at < seconds:
        yield at
        at += -math.log(next(chance)) / rate


def lognormal(mean: float, cv: float, seed: int) -> Iterator[float]:
    """Service times as bench/instances draws them, in the unit of ``mean``."""
    chance = units(seed)
    sigma = math.sqrt(math.log(1 + cv * cv))
    while True:
        radius = math.sqrt(-2.0 * math.log(next(chance)))
        normal = radius * math.cos(math.tau * next(chance))
        yield mean * math.exp(sigma * normal - sigma * sigma / 2)


def latencies(places: int, moments: Iterator[float], services: Iterator[float]) -> list[tuple[float, float]]:
    """Arrival and latency, both in seconds, of each request with one queue before so many places."""
    free_at = [0.0] * places
    found = []
    for at, service in zip(moments, services, strict=False):
        end = max(at, heapq.heappop(free_at)) + service
        heapq.heappush(free_at, end)
        found.append((at, end - at))
    return found
