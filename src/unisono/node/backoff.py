"""
How long an instance waits before it is started again.

Pure arithmetic with chance given; who counts the failures is :mod:`unisono.node.lifecycle`.
"""

from __future__ import annotations

from random import Random

FIRST_SECONDS = 0.1
LONGEST_SECONDS = 30.0
HEALTHY_SECONDS = 10.0  # a run that was healthy this long begins a new streak
LAST_HOPE_SECONDS = 0.1  # the longest wait of the only instance that could serve requests


def restart_delay(failures: int, rng: Random) -> float:
    """
    Seconds to wait after the ``failures``-th end in a row.

    The first restart comes at once, because most crashes are singular; from then on the wait doubles
    from 100 ms to 30 s. A quarter of jitter either way keeps instances that died together from coming
    back together.

    Raises:
        ValueError: ``failures`` is below 1.
    """
    if failures < 1:
        raise ValueError(f"failures must be at least 1, not {failures}")
    if failures == 1:
        return 0.0
    # Doubling ends long before the exponent could overflow a float.
    doubled = FIRST_SECONDS * 2.0 ** min(failures - 2, 16)
    return min(min(doubled, LONGEST_SECONDS) * rng.uniform(0.75, 1.25), LONGEST_SECONDS)
