"""
M4: how likely a transaction over several services commits, and how long a phase takes.

Each participant's phase succeeds with Tᵢ; with retries Tᵢ = 1 - pᵢᵏ (M3). Participants fail
independently of each other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from unisono.queueing._checks import at_least, probability, whole
from unisono.queueing.retry import success_probability


def commit_probability(successes: Sequence[float], *, phases: int = 1) -> float:
    """
    The probability that all participants get through all phases: ∏ Tᵢᵗ.

    Args:
        successes: Tᵢ, probability that participant i gets through one phase, each 0 to 1.
        phases: t, at least 1.

    Raises:
        ValueError: An argument is out of range.
    """
    whole("phases", phases, 1)
    for number, success in enumerate(successes):
        probability(f"successes[{number}]", success)
    return math.prod(successes) ** phases


def commit_probability_with_retry(failures: Sequence[float], *, attempts: int, phases: int = 1) -> float:
    """:func:`commit_probability` with Tᵢ = 1 - pᵢᵏ: ``failures`` holds pᵢ, ``attempts`` is k."""
    return commit_probability([success_probability(p, attempts) for p in failures], phases=phases)


def phase_latency(branches: Sequence[float], *, parallel: bool) -> float:
    """
    Seconds that a phase takes: the maximum of its branches in parallel, else their sum; 0 if none.

    Raises:
        ValueError: A branch's time is negative or not finite.
    """
    for number, seconds in enumerate(branches):
        at_least(f"branches[{number}]", seconds, 0)
    return max(branches, default=0.0) if parallel else math.fsum(branches)
