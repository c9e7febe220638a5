"""``unisono rollout``: how the change to a new revision stands, and the way back."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from unisono.cli import output, watching
from unisono.cli.apply import await_settled
from unisono.cli.options import (
    JsonOption,
    ServicesArgument,
    Target,
    WaitOption,
    complete_service,
    on_application,
)
from unisono.client.views import RolloutHistory

app = typer.Typer(help="How a rollout stands, and the way back.", no_args_is_help=True)

HEADERS = ("SERVICE", "REVISION", "STABLE", "PHASE", "UPDATED", "STARTED", "KEPT", "REASON")


@app.command(epilog="Examples:  unisono rollout status   ·   unisono rollout status orders --json")
@on_application
def status(
    target: Target,
    services: ServicesArgument = None,
    json: JsonOption = False,
) -> None:
    """Show the rollout in force or the last one of each service, and the revisions kept."""
    client = target.client()
    name = target.application(client)
    names = services or [service["name"] for service in client.application(name)["services"]]
    found = [client.rollout(name, service) for service in names]
    if json:
        output.data({"rollouts": found})
        return
    now = time.time()
    output.table(HEADERS, [_row(history, now) for history in found])


@app.command(epilog="Example:  unisono rollout undo orders")
@on_application
def undo(
    target: Target,
    service: Annotated[
        str, typer.Argument(metavar="SERVICE", autocompletion=complete_service, help="What to take back.")
    ],
    wait_timeout: WaitOption = 600.0,
) -> None:
    """Return a service to the revision before, by a rollout like any other; undo again to come back."""
    client = target.client()
    name = target.application(client)
    before = watching.rollouts(client.application(name))
    client.undo(name, service)
    await_settled(client, name, before, wait_timeout, (service,))


def _row(history: RolloutHistory, now: float) -> tuple[str, ...]:
    rollout = history["rollout"]
    kept = ", ".join(str(revision["number"]) for revision in history["revisions"])
    stable = "-" if history["stable"] is None else str(history["stable"])
    if rollout is None:
        return (history["service"], str(history["revision"]), stable, "-", "-", "-", kept, "")
    return (
        history["service"],
        str(history["revision"]),
        stable,
        rollout["phase"],
        f"{rollout['updated']}/{rollout['replicas']}",
        f"{output.duration(now - rollout['started_at'])} ago",
        kept,
        rollout["reason"],
    )
