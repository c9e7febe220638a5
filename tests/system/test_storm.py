"""
Kills and stops of node, clients and holders while they use shared state: every promise is kept.

A short run here; many are ``python -m tests.system.storm``. That the judges see what they should is shown on
nodes that are broken on purpose.
"""

from __future__ import annotations

import subprocess
import sys
import time

import psutil
import pytest

from tests.store.etcd_server import running
from tests.system.storm.run import LIMIT, run

pytestmark = pytest.mark.system


def test_a_storm_breaks_no_promise_on_sqlite() -> None:
    """Histories linearizable, tokens and timestamps rising, locks and quotas kept, watches gapless."""
    judged = run(1, shots=4, operations=300)

    assert judged.violations == {}
    assert judged.operations > 200


def test_a_storm_breaks_no_promise_on_etcd() -> None:
    """The same promises, the other store."""
    with running() as etcd:
        judged = run(2, store=etcd.url("storm"), shots=4, operations=300)

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
        ("stale-plane", {"linearizable"}),
        ("lost-in-batch", {"linearizable"}),
        ("torn-read", {"linearizable"}),
    ],
)
def test_a_node_that_is_broken_on_purpose_is_found(faults: str, promises: set[str]) -> None:
    """Each fault, in a real node's code and judged over HTTP, breaks the promise that it should."""
    judged = run(1, fault=faults, shots=0, operations=1000)

    assert promises <= {promise for promise, verdict in judged.verdicts.items() if verdict.violated}


def test_a_run_that_is_killed_leaves_nothing_running() -> None:
    """Not even when it could clean up nothing itself: a node and its gateway would go on for good."""
    script = (
        "import subprocess, time; from tests.system.storm.run import _folder, environment\n"
        "with _folder() as folder:\n"
        "    print(subprocess.Popen(['sleep', '600'], env=environment(folder)).pid, flush=True)\n"
        "    time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as run_to_kill:
        assert run_to_kill.stdout is not None
        left = psutil.Process(int(run_to_kill.stdout.readline()))
        run_to_kill.kill()

    deadline = time.monotonic() + LIMIT
    while left.is_running() and left.status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
        time.sleep(0.05)

    assert not left.is_running() or left.status() == psutil.STATUS_ZOMBIE
