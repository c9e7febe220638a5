"""M5: a region of size S shared by n instances with quotas Sᵢ, where Σ Sᵢ = S is never exceeded."""

from __future__ import annotations

from collections.abc import Mapping

from unisono.queueing._checks import at_least, whole


def divide(size: int, weights: Mapping[str, float]) -> dict[str, int]:
    """
    Quotas in proportion to weights that sum to the size exactly, by largest remainders.

    Args:
        size: S, bytes or any other unit, a whole number of at least 0.
        weights: By instance, each at least 0, at least one of them above 0.

    Returns:
        Sᵢ by instance, each within 1 of its exact share; equal remainders go by name.

    Raises:
        ValueError: An argument is out of range, or no weight is above 0.
    """
    whole("size", size, 0)
    for name, weight in weights.items():
        at_least(f"weights[{name!r}]", weight, 0)
    total = sum(weights.values())
    if total <= 0:
        raise ValueError(f"weights sum to {total:g}, at least one must be above 0")
    exact = {name: size * weight / total for name, weight in weights.items()}
    quotas = {name: int(share) for name, share in exact.items()}
    by_remainder = sorted(exact, key=lambda name: (quotas[name] - exact[name], name))
    for name in by_remainder[: size - sum(quotas.values())]:
        quotas[name] += 1
    return quotas


def fits(size: int, quotas: Mapping[str, int]) -> bool:
    """Whether Σ Sᵢ ≤ S; quotas and size are whole numbers of at least 0, else ValueError."""
    whole("size", size, 0)
    for name, quota in quotas.items():
        whole(f"quotas[{name!r}]", quota, 0)
    return sum(quotas.values()) <= size
