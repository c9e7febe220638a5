"""All measurements of dispatch, one after the other: ``python -m bench.dispatch [--quick] [NAME...]``."""

from __future__ import annotations

import subprocess
import sys

MEASUREMENTS = (
    "throughput",
    "added_latency",
    "equal",
    "unequal",
    "bimodal",
    "pauses",
    "faults",
    "fast_errors",
    "overload",
    "churn",
    "auto",
    "workers",
    "idle_connections",
)

options = [argument for argument in sys.argv[1:] if argument.startswith("-")]
names = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
unknown = [name for name in names if name not in MEASUREMENTS]
if unknown:
    sys.exit(f"{', '.join(unknown)}: not among {', '.join(MEASUREMENTS)}")
missed = []
for name in names or MEASUREMENTS:
    print(f"\n==> python -m bench.dispatch.{name}", flush=True)
    if subprocess.run([sys.executable, "-m", f"bench.dispatch.{name}", *options], check=False).returncode:
        missed.append(name)
print(f"\nmissed: {', '.join(missed)}" if missed else "\nall goals met")
sys.exit(1 if missed else 0)
