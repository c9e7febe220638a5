"""
M2: the load of a service is the sum over its instances, and follows from rate and time.

Source: Little, "A Proof for the Queuing Formula L = λW", Operations Research 9(3), 1961.
"""

from __future__ import annotations

from collections.abc import Iterable

from unisono.queueing._checks import at_least


def system_load(instance_loads: Iterable[float]) -> float:
    """
    Requests in a service: L = Σ Lᵢ, each the requests at one instance, at least 0.

    Raises:
        ValueError: A load is negative or not finite.
    """
    total = 0.0
    for number, load in enumerate(instance_loads):
        at_least(f"instance_loads[{number}]", load, 0)
        total += load
    return total


def expected_load(arrival_rate: float, response_time: float) -> float:
    """
    Mean number of requests in a service, by Little's law: L = λ·E[T].

    Args:
        arrival_rate: λ, requests per second, at least 0.
        response_time: E[T], mean seconds from arrival to answer, waiting included, at least 0.

    Raises:
        ValueError: An argument is out of range.
    """
    at_least("arrival_rate", arrival_rate, 0)
    at_least("response_time", response_time, 0)
    return arrival_rate * response_time
