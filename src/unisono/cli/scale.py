"""``unisono scale`` and ``unisono restart``: more or fewer instances, or new ones in place of the old."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from unisono.cli import watching
from unisono.cli.apply import await_settled
from unisono.cli.exits import Code, CommandFailed
from unisono.cli.options import (
    ServicesArgument,
    Target,
    WaitOption,
    complete_service,
    on_application,
)


def complete_assignment(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of services, each with the sign that the number follows."""
    return [f"{name}=" for name in complete_service(ctx, incomplete)]


@on_application
def scale(
    target: Target,
    numbers: Annotated[
        list[str],
        typer.Argument(
            metavar="SERVICE=N...",
            autocompletion=complete_assignment,
            help="How many instances each should have.",
        ),
    ],
    wait_timeout: WaitOption = 600.0,
) -> None:
    """
    Change how many instances services have; returns once it is so.

    Instances that start or are idle go before busy ones, and those finish their requests.
    """
    wanted = [parse_assignment(text) for text in numbers]
    client = target.client()
    name = target.application(client)
    view = client.application(name)
    known = [service["name"] for service in view["services"]]
    for service, _ in wanted:  # all are looked at before the first is changed
        if service not in known:
            raise CommandFailed(
                f"{name} has no service {service}; it has {', '.join(known)}", code=Code.REFUSED
            )
    for service, replicas in wanted:
        client.scale(name, service, replicas)
    await_settled(client, name, watching.rollouts(view), wait_timeout, [service for service, _ in wanted])


@on_application
def restart(
    target: Target,
    services: ServicesArgument = None,
    wait_timeout: WaitOption = 600.0,
) -> None:
    """Replace all instances by new ones of the same kind, as an update would: no request fails."""
    client = target.client()
    name = target.application(client)
    before = watching.rollouts(client.application(name))
    client.restart(name, services or ())
    await_settled(client, name, before, wait_timeout, services or ())


def parse_assignment(text: str) -> tuple[str, int]:
    """
    "orders=3" as a service and a number.

    Raises:
        CommandFailed: It is none.
    """
    service, sign, number = text.partition("=")
    if not service or not sign or not re.fullmatch("[0-9]{1,9}", number):
        raise CommandFailed(f"{text!r} is no SERVICE=N, such as orders=3", code=Code.USAGE)
    return service, int(number)
