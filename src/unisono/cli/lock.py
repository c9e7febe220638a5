"""``unisono lock run`` and its options. What happens under the lock, and how it ends: ``underlock``."""

from __future__ import annotations

import shutil
from typing import Annotated

import typer

from unisono.cli.exits import Code, CommandFailed
from unisono.cli.options import Target, on_application

app = typer.Typer(name="lock", help="Do one thing in one place at a time.", no_args_is_help=True)


@app.callback()
def lock() -> None:
    """Do one thing in one place at a time."""


@app.command(
    epilog="Examples:  unisono lock run backup -- pg_dump shop   ·   "
    "unisono lock run --wait 0 nightly -- ./report.sh"
)
@on_application
def run(
    target: Target,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The lock.")],
    command: Annotated[list[str], typer.Argument(metavar="-- COMMAND...", help="What to run.")],
    ttl: Annotated[
        float,
        typer.Option(
            "--ttl", metavar="SECONDS", min=1, help="How long others wait when this machine is cut off."
        ),
    ] = 10.0,
    wait: Annotated[
        float, typer.Option("--wait", metavar="SECONDS", min=0, help="How long to wait for the lock.")
    ] = 60.0,
) -> None:
    """
    Run a command while holding a lock, and end with its exit code.

    The command has the fencing token in UNISONO_FENCING_TOKEN. It is stopped before the lock can be lost,
    and killed when this process is. Ends with 4, without having run it, when the wait is over.
    """
    if shutil.which(command[0]) is None:
        raise CommandFailed(f"there is no command {command[0]!r}", code=Code.USAGE)
    where = target.where()
    from unisono.cli.underlock import hold_and_run  # noqa: PLC0415 - asyncio and the client, for this alone

    raise typer.Exit(hold_and_run(where, name, command, ttl=ttl, wait=wait))
