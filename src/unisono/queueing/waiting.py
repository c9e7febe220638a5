"""
M1: how busy the instances of a service are, and how long a request waits for one.

The text this project starts from prints ρ = λ/(n·E[S]) and calls it throughput. Dividing by E[S] has
the wrong dimension; what stands here is ρ = λ·E[S]/n, and throughput is min(λ, n/E[S]).

Sources: Kleinrock, *Queueing Systems* I, section 3.5 (Erlang C); Allen, *Probability, Statistics, and
Queueing Theory*, section 5.3 (the approximation for general arrivals and service times).
"""

from __future__ import annotations

import math

from unisono.queueing._checks import above, at_least, probability, whole


def utilisation(arrival_rate: float, service_time: float, servers: int) -> float:
    """
    The share of its capacity that a service is asked for: ρ = λ·E[S]/n.

    Args:
        arrival_rate: λ, requests per second, at least 0.
        service_time: E[S], mean seconds of one request, above 0.
        servers: n, requests served at a time, at least 1.

    Returns:
        0 or more; a steady state exists only below 1.

    Raises:
        ValueError: An argument is out of range.
    """
    at_least("arrival_rate", arrival_rate, 0)
    above("service_time", service_time, 0)
    whole("servers", servers, 1)
    return arrival_rate * service_time / servers


def throughput(arrival_rate: float, service_time: float, servers: int) -> float:
    """Requests per second that leave: X = min(λ, n/E[S]). Arguments as in :func:`utilisation`."""
    utilisation(arrival_rate, service_time, servers)
    return min(arrival_rate, servers / service_time)


def waiting_probability(arrival_rate: float, service_time: float, servers: int) -> float:
    """
    The share of requests that find all servers busy, for M/M/n (Erlang C).

    Computed from Erlang B by its recurrence, which neither overflows nor loses digits for large n.

    Returns:
        0 to 1; 1 once utilisation reaches 1. Arguments as in :func:`utilisation`.
    """
    rho = utilisation(arrival_rate, service_time, servers)
    if rho >= 1:
        return 1.0
    offered = rho * servers
    blocking = 1.0
    for n in range(1, servers + 1):
        blocking = offered * blocking / (n + offered * blocking)
    return blocking / (1 - rho * (1 - blocking))


def waiting_time(
    arrival_rate: float,
    service_time: float,
    servers: int,
    *,
    arrival_cv2: float = 1.0,
    service_cv2: float = 1.0,
) -> float:
    """
    Mean time that a request waits before its service starts.

    Exact for M/M/n, where both squared coefficients of variation are 1; otherwise the approximation
    of Allen and Cunneen for G/G/n: the time of M/M/n times (C²a + C²s)/2.

    Args:
        arrival_rate: λ, requests per second, at least 0.
        service_time: E[S], mean seconds of one request, above 0.
        servers: n, requests served at a time, at least 1.
        arrival_cv2: Variance over squared mean of the times between arrivals, at least 0.
        service_cv2: Variance over squared mean of the service times, at least 0.

    Returns:
        Seconds; ``math.inf`` once utilisation reaches 1, where no steady state exists.

    Raises:
        ValueError: An argument is out of range.
    """
    at_least("arrival_cv2", arrival_cv2, 0)
    at_least("service_cv2", service_cv2, 0)
    rho = utilisation(arrival_rate, service_time, servers)
    if rho >= 1:
        return math.inf
    waits = waiting_probability(arrival_rate, service_time, servers)
    return waits * service_time / (servers * (1 - rho)) * (arrival_cv2 + service_cv2) / 2


def waiting_quantile(arrival_rate: float, service_time: float, servers: int, p: float) -> float:
    """
    The time within which a share ``p`` of requests starts to be served, for M/M/n.

    P(W > t) = C·exp(-n(1 - ρ)t/E[S]) with Erlang C's C (Kleinrock I, section 3.5).

    Args:
        arrival_rate: As in :func:`waiting_time`.
        service_time: As in :func:`waiting_time`.
        servers: As in :func:`waiting_time`.
        p: At least 0 and below 1.

    Returns:
        Seconds; 0 where that share need not wait, ``math.inf`` once utilisation reaches 1.

    Raises:
        ValueError: An argument is out of range.
    """
    probability("p", p)
    if p == 1:
        raise ValueError("p is 1, must be below 1: no time bounds every wait")
    rho = utilisation(arrival_rate, service_time, servers)
    if rho >= 1:
        return math.inf
    waits = waiting_probability(arrival_rate, service_time, servers)
    if waits <= 1 - p:
        return 0.0
    return math.log(waits / (1 - p)) * service_time / (servers * (1 - rho))


def servers_needed(arrival_rate: float, service_time: float, *, p: float, below: float) -> int:
    """
    The fewest servers with which a share ``p`` of requests waits at most ``below`` seconds (M/M/n).

    Raises:
        ValueError: An argument is out of range; ``below`` must be at least 0.
    """
    at_least("below", below, 0)
    servers = max(1, math.floor(utilisation(arrival_rate, service_time, 1)) + 1)
    while waiting_quantile(arrival_rate, service_time, servers, p) > below:
        servers += 1
    return servers
