"""``unisono clock``: the node's hybrid logical clock."""

from __future__ import annotations

from datetime import UTC, datetime

import typer

from unisono.cli import output
from unisono.cli.options import JsonOption, StateOption, Target
from unisono.timestamps.hybrid import unpack


def clock(ctx: typer.Context, json: JsonOption = False, state: StateOption = None) -> None:
    """
    Print a stamp of the node's hybrid logical clock, and how the clock does.

    A stamp that is more than the limit ahead is refused when it comes in, and counted here.
    """
    from unisono.client.sync import connect  # noqa: PLC0415 - for this alone

    found = connect(Target.of(ctx, state=state).api()).node_clock()
    millis, counter = unpack(found.stamp)
    if json:
        output.data(
            {
                "hlc": f"{found.stamp:016x}",
                "millis": millis,
                "counter": counter,
                "max_drift_ms": found.max_drift_ms,
                "refused": found.refused,
            }
        )
        return
    time = datetime.fromtimestamp(millis / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]
    output.table(
        ("HLC", "TIME", "COUNTER", "LIMIT", "REFUSED"),
        [(f"{found.stamp:016x}", f"{time}Z", str(counter), f"{found.max_drift_ms} ms", str(found.refused))],
    )
