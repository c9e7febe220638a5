"""``unisono ps``: every instance, what it does, and if it is down, why and when it is tried next."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from unisono.cli import output
from unisono.cli.exits import Code, CommandFailed
from unisono.cli.options import (
    JsonOption,
    ServicesArgument,
    Target,
    on_application,
)
from unisono.cli.output import duration
from unisono.client import Refused
from unisono.client.views import ApplicationView, InstanceView, RolloutView, ServiceView

if TYPE_CHECKING:
    from unisono.client import NodeClient

HEADERS = ("NAME", "STATE", "AGE", "REV", "PID", "PORT", "RESTARTS", "IN FLIGHT", "DETAILS")


@on_application
def ps(
    target: Target,
    services: ServicesArgument = None,
    everything: Annotated[bool, typer.Option("--all", "-a", help="All applications of the node.")] = False,
    json: JsonOption = False,
) -> None:
    """Show services and instances: state, age, revision, port, restarts, requests, and why one is down."""
    client = target.client()
    views = [_only(view, services or []) for view in _views(client, target, everything)]
    if json:
        output.data({"applications": views})
        return
    if not views:
        output.say("no application is running")
    now = time.time()
    for index, view in enumerate(views):
        if index:
            print()
        sys.stdout.flush()
        output.say(f"{view['name']} is {view['state']}" + (f"  ({view['source']})" if view["source"] else ""))
        output.table(HEADERS, [row for service in view["services"] for row in rows(service, now)])


def _views(client: NodeClient, target: Target, everything: bool) -> list[ApplicationView]:
    if not everything:
        try:
            return [client.application(target.application(client))]
        except CommandFailed:
            if target.files:
                raise
    found = []
    for one in client.applications():
        try:
            found.append(client.application(one["name"]))
        except Refused:
            continue  # removed meanwhile
    return found


def _only(view: ApplicationView, services: list[str]) -> ApplicationView:
    names = [service["name"] for service in view["services"]]
    for service in services:
        if service not in names:
            raise CommandFailed(
                f"{view['name']} has no service {service}; it has {', '.join(names)}", code=Code.REFUSED
            )
    if not services:
        return view
    return {**view, "services": [service for service in view["services"] if service["name"] in services]}


def rows(service: ServiceView, now: float) -> list[tuple[str, ...]]:
    """The lines of a service: its own, then one for each instance; ``now`` in seconds since the epoch."""
    head = (
        service["name"],
        f"{service['state']} {service['ready']}/{service['replicas']}",
        "",
        str(service["revision"]),
        "",
        "",
        "",
        _number(service["in_flight"]),
        _service_details(service, now),
    )
    return [head, *(_instance_row(instance, now) for instance in service["instances"])]


def _instance_row(instance: InstanceView, now: float) -> tuple[str, ...]:
    return (
        f"  {instance['id']}",
        instance["phase"],
        duration(now - instance["since"]),
        str(instance["revision"]),
        _number(instance["pid"]),
        _number(instance["port"]),
        str(instance["restarts"]),
        _number(instance["in_flight"]),
        _instance_details(instance, now),
    )


def _service_details(service: ServiceView, now: float) -> str:
    parts = list(service["urls"])
    if not parts and service["internal_url"]:
        parts.append(service["internal_url"])
    if service["waiting"]:
        parts.append(f"{service['waiting']} requests wait")
    rollout = service["rollout"]
    if rollout and _is_worth_telling(rollout):
        parts.append(_rollout_words(rollout, now))
    if not service["instances"] and service["reason"]:
        parts.append(service["reason"])
    return "; ".join(parts)


def _is_worth_telling(rollout: RolloutView) -> bool:
    """A rollout that went well, and a first deployment, are no news."""
    return rollout["phase"] != "done" and (rollout["source"] != 0 or rollout["phase"] == "paused")


def _rollout_words(rollout: RolloutView, now: float) -> str:
    words = f"revision {rollout['target']} {rollout['phase']}"
    if rollout["phase"] in ("canary", "rolling", "rolling-back"):
        words += f" {rollout['updated']}/{rollout['replicas']} for {duration(now - rollout['started_at'])}"
    return words + (f": {rollout['reason']}" if rollout["reason"] else "")


def _instance_details(instance: InstanceView, now: float) -> str:
    parts = []
    if instance["job"]:
        parts.append("release command")
    if instance["goal"] != "run" and instance["phase"] not in ("draining", "stopping", "stopped"):
        parts.append("is to stop")
    if instance["reason"]:
        parts.append(instance["reason"])
    if instance["retry_at"] is not None and instance["phase"] == "backoff":
        left = instance["retry_at"] - now
        parts.append("tried again now" if left <= 0 else f"tried again in {duration(left)}")
    return "; ".join(parts)


def _number(value: int | None) -> str:
    return "-" if value is None else str(value)
