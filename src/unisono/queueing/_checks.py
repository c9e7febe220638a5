"""Range checks that every model shares: a message names the argument and its value."""

from __future__ import annotations

import math


def at_least(name: str, value: float, bound: float) -> None:
    """Raise ValueError unless ``value`` is a finite number of at least ``bound``."""
    if not (math.isfinite(value) and value >= bound):
        raise ValueError(f"{name} is {value}, must be a finite number of at least {bound:g}")


def above(name: str, value: float, bound: float) -> None:
    """Raise ValueError unless ``value`` is a finite number above ``bound``."""
    if not (math.isfinite(value) and value > bound):
        raise ValueError(f"{name} is {value}, must be a finite number above {bound:g}")


def whole(name: str, value: int, bound: int) -> None:
    """Raise ValueError unless ``value`` is a whole number of at least ``bound``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < bound:
        raise ValueError(f"{name} is {value!r}, must be a whole number of at least {bound}")


def probability(name: str, value: float) -> None:
    """Raise ValueError unless ``value`` lies between 0 and 1."""
    if not 0 <= value <= 1:
        raise ValueError(f"{name} is {value}, must lie between 0 and 1")
