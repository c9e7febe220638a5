"""``unisono events``: what happened, and what happens."""

from __future__ import annotations

import json as encoder
from datetime import datetime
from typing import Annotated

import typer

from unisono.cli.options import JsonOption, ProjectOption, StateOption, Target
from unisono.client.views import EventView


def events(
    ctx: typer.Context,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what happens from now on.")
    ] = False,
    after: Annotated[
        int, typer.Option("--after", metavar="ID", min=0, help="Only what came after the event of this id.")
    ] = 0,
    json: JsonOption = False,
    project: ProjectOption = None,
    state: StateOption = None,
) -> None:
    """Print what happened on the node, or with -p to one application, a line each, oldest first."""
    target = Target.of(ctx, project=project, state=state)
    for event in target.client().events(after=after, follow=follow, application=target.project):
        print(encoder.dumps(event) if json else line(event), flush=True)


def line(event: EventView) -> str:
    """One event for people: local time, kind, whom it concerns, and what."""
    at = datetime.fromtimestamp(event["at"]).astimezone().strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    whom = "/".join(part for part in (event["application"], event["instance"] or event["service"]) if part)
    return "  ".join(part for part in (at, f"{event['kind']:<22}", whom, event["message"]) if part).rstrip()
