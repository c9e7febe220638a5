"""
M3: what sending a request again gains, and what it costs.

The text this project starts from prints 1 - (1 - p)ᵏ with p the failure rate; that is right only
where p is the *success* rate. Here p is the probability that an attempt fails.
"""

from __future__ import annotations

from unisono.queueing._checks import probability, whole


def success_probability(failure: float, attempts: int) -> float:
    """
    The probability that one of k attempts succeeds: P = 1 - pᵏ, attempts failing independently.

    Args:
        failure: p, probability that one attempt fails, 0 to 1.
        attempts: k, at least 1.

    Raises:
        ValueError: An argument is out of range.
    """
    probability("failure", failure)
    whole("attempts", attempts, 1)
    return 1 - float(failure**attempts)


def expected_attempts(failure: float, attempts: int) -> float:
    """
    Mean number of attempts made: (1 - pᵏ)/(1 - p), the factor by which retries multiply the load.

    Arguments and errors as in :func:`success_probability`; with p = 1 all k attempts are made.
    """
    succeeds = success_probability(failure, attempts)
    return float(attempts) if failure == 1 else succeeds / (1 - failure)
