"""
Many runs: ``python -m tests.system.storm [--runs 50] [--seed 1] [--store sqlite|etcd]``.

Ends with 1 if a promise was broken or could not be judged, and says which, with the run's seed.
"""

from __future__ import annotations

import argparse
import signal
import sys
from contextlib import ExitStack

from tests.store.etcd_server import running
from tests.system.storm.run import Judged, run


def main() -> int:
    """Run and judge; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.system.storm", description=__doc__)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1, help="of the first run; the others follow")
    parser.add_argument("--store", choices=("sqlite", "etcd"), default="sqlite")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that nothing is left running then either
    violated = 0
    total: dict[str, int] = {}
    with ExitStack() as stack:
        etcd = stack.enter_context(running()) if given.store == "etcd" else None
        for seed in range(given.seed, given.seed + given.runs):
            judged = run(seed, store=etcd.url(f"storm-{seed}") if etcd else None)
            violated += bool(judged.violations)
            _tell(seed, judged)
            for name, count in {**judged.shots, "operations": judged.operations}.items():
                total[name] = total.get(name, 0) + count
    print(f"{given.runs} runs on {given.store}, {violated} with violations; {_counts(total)}")
    return int(violated > 0)


def _tell(seed: int, judged: Judged) -> None:
    print(
        f"seed {seed}: {judged.operations} operations, {judged.unknown} of unknown outcome, "
        f"{judged.events} events; {_counts(judged.shots)}",
        flush=True,
    )
    for promise, verdict in judged.violations.items():
        print(f"  {promise}: {verdict}", flush=True)


def _counts(found: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(found.items()))


if __name__ == "__main__":
    sys.exit(main())
