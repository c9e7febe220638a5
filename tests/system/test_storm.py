"""
Kills and stops of node, clients and holders while they use shared state: every promise is kept.

A short run here; many are ``python -m tests.system.storm``. That the judges see what they should is shown on
nodes that are broken on purpose.
"""

from __future__ import annotations

import pytest

from tests.store.etcd_server import running
from tests.system.storm.run import run

pytestmark = pytest.mark.system


def test_a_storm_breaks_no_promise_on_sqlite() -> None:
    """Histories linearizable, tokens and timestamps rising, locks and quotas kept, watches gapless."""
    judged = run(1, shots=4)

    assert judged.violations == {}
    assert judged.operations > 200


def test_a_storm_breaks_no_promise_on_etcd() -> None:
    """The same promises, the other store."""
    with running() as etcd:
        judged = run(2, store=etcd.url("storm"), shots=4)

    assert judged.violations == {}
    assert judged.operations > 200


@pytest.mark.parametrize(
    ("faults", "promises"),
    [
        (
            "stale-read,repeated-timestamp,quota-overrun,skipped-event",
            {"linearizable", "timestamps rise", "the quota is kept", "watch"},
        ),
        ("lost-update", {"linearizable"}),
        ("torn-read", {"linearizable"}),
    ],
)
def test_a_node_that_is_broken_on_purpose_is_found(faults: str, promises: set[str]) -> None:
    """Each fault, in a real node's code and judged over HTTP, breaks the promise that it should."""
    judged = run(1, fault=faults, shots=0)

    assert promises <= {promise for promise, verdict in judged.verdicts.items() if verdict.violated}
