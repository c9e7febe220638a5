"""``unisono apply``: show what a file would change, ask, change it, and wait until it is so."""

from __future__ import annotations

import sys
import time
from collections.abc import Collection
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from unisono.cli import files, output, watching
from unisono.cli.exits import Code, CommandFailed
from unisono.cli.options import (
    EnvFileOption,
    FileOption,
    JsonOption,
    ProfileOption,
    ProjectOption,
    StateOption,
    Target,
    WaitOption,
)
from unisono.client.views import ChangeView, PlanView

if TYPE_CHECKING:
    from unisono.client import NodeClient

SHOWN_MAX = 60  # characters of a value in a difference


def apply(
    ctx: typer.Context,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the difference and change nothing.")
    ] = False,
    wait_timeout: WaitOption = 600.0,
    json: JsonOption = False,
    file: FileOption = None,
    project: ProjectOption = None,
    profile: ProfileOption = None,
    env_file: EnvFileOption = None,
    state: StateOption = None,
) -> None:
    """
    Make the node run what the file says: shows the difference, asks, then rolls it out.

    Fails if a new revision is rolled back. Ctrl-C stops the waiting, not the rollout.
    """
    target = Target.of(ctx, file=file, project=project, profile=profile, env_file=env_file, state=state)
    loaded = files.load(target)
    name, body = loaded.application.name, files.body(loaded.application)
    client = target.client()
    plan = client.plan(name, body)
    if json and dry_run:
        output.data(plan)
        return
    _show(plan)
    if dry_run or not _is_change(plan):
        if json:
            output.data(plan)
        return
    if not yes:
        _ask()
    before = watching.rollouts(watching.look(client, name))
    applied = client.apply(name, body)
    if json:
        output.data(applied)
    changed = [change["service"] for change in plan["changes"] if change["kind"] != "unchanged"]
    await_settled(client, name, before, wait_timeout, changed)


def await_settled(
    client: NodeClient,
    name: str,
    before: watching.Ended,
    timeout: float,
    services: Collection[str] = (),
) -> None:
    """
    Show the application, or these services of it, until nothing is under way there.

    Raises:
        CommandFailed: Something failed since ``before``, or is still under way after ``timeout`` seconds.
    """
    began = time.monotonic()
    watch = watching.Watch(client, name, services)
    with watching.Progress() as progress, suppress(TimeoutError):  # judged below, like every other end
        watching.wait(watch, progress, watching.settled, before=before, timeout=timeout)
    watching.judge(name, watch.latest, before, timeout)
    if watch.latest is not None and (trouble := watching.unserved(client, watch.latest)):
        raise CommandFailed(trouble, hint="it is tried on; `unisono node status` shows how the gateway does")
    output.say(f"{_named(services) or name + ' is'} ready ({watching.took(began)})")


def _named(services: Collection[str]) -> str:
    return ", ".join(services) + (" is" if len(services) == 1 else " are") if services else ""


def _is_change(plan: PlanView) -> bool:
    return plan["created"] or any(change["kind"] != "unchanged" for change in plan["changes"])


def _ask() -> None:
    if not sys.stdin.isatty():
        raise CommandFailed(
            "there is no one to ask: the input is no terminal",
            code=Code.USAGE,
            hint="--yes applies without asking",
        )
    if not typer.confirm("Apply?", err=True):
        raise typer.Exit(Code.OK)


def _show(plan: PlanView) -> None:
    output.say(plan["application"])
    for change in plan["changes"]:
        if change["kind"] == "unchanged":
            continue
        output.mark(*_headline(change))
        for difference in change["differences"]:
            output.say(
                f"      {difference['field']}: {_short(difference['before'])} → {_short(difference['after'])}"
            )
    if not _is_change(plan):
        output.say("  nothing changes")


def _headline(change: ChangeView) -> tuple[str, str]:
    service = change["service"]
    number = change["replicas"]
    instances = f"{number} instance" + ("" if number == 1 else "s")
    match change["kind"]:
        case "create":
            return "+", f"{service}  new, {instances}"
        case "remove":
            return "-", f"{service}  goes"
        case "roll":
            return "~", f"{service}  rolls to revision {change['revision']}, {instances}"
        case _:
            return "~", f"{service}  changes on the running instances"


def _short(value: object) -> str:
    text = repr(value) if isinstance(value, str) else "none" if value is None else str(value)
    return text if len(text) <= SHOWN_MAX else text[: SHOWN_MAX - 1] + "…"
