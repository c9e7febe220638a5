"""``unisono logs``: what instances wrote."""

from __future__ import annotations

import json as encoder
import re
import sys
import time
import zlib
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from unisono.cli.exits import Code, CommandFailed
from unisono.cli.options import (
    JsonOption,
    LongFileOption,
    ProjectOption,
    ServicesArgument,
    StateOption,
    Target,
)
from unisono.cli.output import SERVICE_COLOURS, console
from unisono.client.views import LogLine

if TYPE_CHECKING:
    from rich.console import Console

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def logs(
    ctx: typer.Context,
    services: ServicesArgument = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what is written from now on.")
    ] = False,
    tail: Annotated[
        int | None,
        typer.Option(
            "--tail",
            "-n",
            metavar="LINES",
            min=0,
            max=100_000,
            help="Only the last lines: of each service named, else of all together.",
        ),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            "--since", metavar="TIME", help="A time such as 2026-05-04T12:00:00, or a span such as 10m."
        ),
    ] = None,
    instance: Annotated[
        str | None, typer.Option("--instance", metavar="ID", help="This instance only.")
    ] = None,
    timestamps: Annotated[bool, typer.Option("--timestamps", "-t", help="Say when each line came.")] = False,
    json: JsonOption = False,
    file: LongFileOption = None,
    project: ProjectOption = None,
    state: StateOption = None,
) -> None:
    """Print what instances wrote, each line behind its instance's name."""
    target = Target.of(ctx, file=file, project=project, state=state)
    start = None if since is None else parse_since(since, time.time())
    client = target.client()
    name = target.application(client)
    printer = LogPrinter(timestamps=timestamps)
    for line in client.logs(
        name, services=services or (), instance=instance, tail=tail, since=start, follow=follow
    ):
        if json:
            print(encoder.dumps(line), flush=follow)
        else:
            printer.print(line)


class LogPrinter:
    """
    Prints lines of several instances so that a reader can tell them apart.

    ``console`` may be set to print above a live picture.
    """

    def __init__(self, *, timestamps: bool = False) -> None:
        self.console: Console | None = None
        self._timestamps = timestamps
        self._pretty = sys.stdout.isatty()
        self._own: Console | None = console(sys.stdout) if self._pretty else None
        self._width = 0

    def print(self, line: LogLine) -> None:
        """Print one line, at once."""
        # Names come as their instances first speak; the column grows and never shrinks.
        self._width = max(self._width, len(line["instance"]))
        head = f"{line['instance']:<{self._width}} | "
        if self._timestamps:
            head = f"{_local(line['at'])} {head}"
        if self._own is None:
            print(head + line["text"], flush=True)
            return
        from rich.text import Text  # noqa: PLC0415 - only when someone looks

        text = Text.from_ansi(line["text"])
        colour = SERVICE_COLOURS[zlib.crc32(line["service"].encode()) % len(SERVICE_COLOURS)]
        (self.console or self._own).print(Text.assemble((head, colour), text), soft_wrap=True)


def _local(at: str) -> str:
    return datetime.fromisoformat(at).astimezone().isoformat(timespec="milliseconds")


def parse_since(text: str, now: float) -> float:
    """
    Seconds since the epoch for an ISO 8601 time (local unless it says otherwise) or a span before ``now``.

    Raises:
        CommandFailed: It is neither.
    """
    if re.fullmatch(r"(\d+(\.\d+)?[smhd])+", text):
        spans = re.findall(r"(\d+(?:\.\d+)?)([smhd])", text)
        return now - sum(float(number) * _UNITS[unit] for number, unit in spans)
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise CommandFailed(
            f"--since {text!r} is neither a time such as 2026-05-04T12:00:00 nor a span such as 10m or 1h30m",
            code=Code.USAGE,
        ) from None
