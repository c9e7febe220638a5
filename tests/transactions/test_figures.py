"""The coordinator's figures as Prometheus reads them."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from tests.transactions.conftest import Bench
from unisono.transactions import figures


async def test_each_family_has_its_help_and_type(bench: Bench) -> None:
    """Prometheus's own parser reads them, and who looks at one is told what it is."""
    await bench.run("saga", "a")

    families = list(text_string_to_metric_families(figures.text(bench.coordinator)))

    assert len(families) == 7
    assert all(one.documentation and one.type in {"counter", "gauge"} for one in families)
