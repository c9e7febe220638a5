"""From the gateway's figures to the controller's."""

from __future__ import annotations

from unisono.control.records import Figures
from unisono.node.measuring import measured


def test_figures_are_told_apart_by_revision() -> None:
    """Microseconds become seconds."""
    counts = {"requests": 5, "failures": 2, "latency_us": [[1000, 2], [2000, 1]]}
    document = {"services": {"shop/web": {"revisions": {"2": counts, "": counts}}}}

    assert measured(document) == {
        ("shop", "web", 2): Figures(requests=5, failures=2, latency=((0.001, 2), (0.002, 1)))
    }


def test_no_gateway_has_counted_nothing() -> None:
    """Nor has one that knows no revisions."""
    assert measured({}) == measured({"services": {"shop/web": {}}}) == {}
