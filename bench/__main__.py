"""Runs every measurement, one after the other: ``python -m bench``. Ends with 1 if a goal was missed."""

from __future__ import annotations

import subprocess
import sys

MEASUREMENTS = (
    "crash_storm",
    "replace_time",
    "exit_to_silence",
    "rolling_update",
    "node_kill",
    "gateway_kill",
    "up_200",
    "idle",
    "state",
    "lock_handover",
    "shared_memory",
    "timestamps",
    "transactions",
)

missed = []
for name in MEASUREMENTS:
    print(f"\n==> python -m bench.{name}", flush=True)
    # Each in a process of its own, so that none inherits the memory or the threads of another.
    if subprocess.run([sys.executable, "-m", f"bench.{name}"], check=False).returncode:
        missed.append(name)
print("\n==> python -m bench.dispatch --quick", flush=True)
if subprocess.run([sys.executable, "-m", "bench.dispatch", "--quick"], check=False).returncode:
    missed.append("dispatch")
print(f"\nmissed: {', '.join(missed)}" if missed else "\nall goals met")
sys.exit(1 if missed else 0)
