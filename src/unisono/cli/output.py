"""
How the CLI speaks: data goes to stdout, all else to stderr; colour only where someone looks.

Rich is imported only when something is shown on a terminal, because a command in a script need not
wait for it. What is shown is the commands' affair.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console

_STYLES = {
    "ready": "green",
    "completed": "green",
    "done": "green",
    "starting": "yellow",
    "pending": "yellow",
    "updating": "yellow",
    "draining": "yellow",
    "stopping": "yellow",
    "removing": "yellow",
    "rolling": "yellow",
    "releasing": "yellow",
    "canary": "yellow",
    "monitoring": "yellow",
    "backoff": "red",
    "degraded": "red",
    "unhealthy": "red",
    "failed": "red",
    "rolling-back": "red",
    "rolled-back": "red",
    "paused": "red",
    "stopped": "dim",
}

SERVICE_COLOURS = (
    "cyan",
    "yellow",
    "green",
    "magenta",
    "blue",
    "bright_cyan",
    "bright_green",
    "bright_magenta",
)


def is_pretty(stream: TextIO) -> bool:
    """Whether ``stream`` is a terminal that may be drawn on."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def console(stream: TextIO) -> Console:
    """Rich's console on ``stream``; it honours NO_COLOR and leaves pipes plain by itself."""
    from rich.console import Console  # noqa: PLC0415 - see the head of this file

    return Console(file=stream, highlight=False, soft_wrap=not is_pretty(stream))


def say(message: str) -> None:
    """Talk to whoever is there, on stderr."""
    print(message, file=sys.stderr, flush=True)


def mark(sign: str, text: str) -> None:
    """Say a line of a difference, in the colour of its sign: "+", "-" or "~"."""
    colour = {"+": "\x1b[32m", "-": "\x1b[31m", "~": "\x1b[33m"}[sign]
    say(f"  {colour}{sign} {text}\x1b[0m" if _is_coloured() else f"  {sign} {text}")


def complain(kind: str, message: str) -> None:
    """Say ``message`` after a coloured word such as "error" or "warning"."""
    colour = {"error": "\x1b[1;31m", "warning": "\x1b[1;33m", "hint": "\x1b[1;36m"}[kind]
    say(f"{colour}{kind}:\x1b[0m {message}" if _is_coloured() else f"{kind}: {message}")


def _is_coloured() -> bool:
    return is_pretty(sys.stderr) and not os.environ.get("NO_COLOR")


def data(value: Any) -> None:
    """Print ``value`` as JSON: indented for people, on one line for a pipe."""
    print(json.dumps(value, indent=2 if sys.stdout.isatty() else None), flush=True)


def table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table on stdout. A pipe gets every cell whole, so that nothing is lost to its width."""
    lines = [list(row) for row in rows]
    if is_pretty(sys.stdout):
        _pretty_table(headers, lines)
        return
    widths = [max(len(line[i]) for line in [list(headers), *lines]) for i in range(len(headers))]
    for line in [list(headers), *lines]:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _pretty_table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    from rich.table import Table  # noqa: PLC0415 - see the head of this file
    from rich.text import Text  # noqa: PLC0415

    drawn = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold dim")
    for index, header in enumerate(headers):
        last = index == len(headers) - 1
        drawn.add_column(header, no_wrap=not last, overflow="fold" if last else "ellipsis")
    for row in rows:
        drawn.add_row(*(Text(cell, style=style_of(cell)) for cell in row))
    console(sys.stdout).print(drawn)


def style_of(cell: str) -> str:
    """The colour of a cell: that of the state it begins with, if it does."""
    return _STYLES.get(cell.partition(" ")[0], "")


def duration(seconds: float) -> str:
    """A span of time in words, with the two largest units at most: "3.2s", "4m 10s", "2h 5m", "3d 4h"."""
    if seconds < 0:
        return "0s"
    if seconds < 10:
        return f"{seconds:.1f}s"
    whole = int(seconds)
    for size, unit, smaller_size, smaller in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "m"),
        (60, "m", 1, "s"),
    ):
        if whole >= size:
            rest = whole % size // smaller_size
            return f"{whole // size}{unit}" + (f" {rest}{smaller}" if rest else "")
    return f"{whole}s"
