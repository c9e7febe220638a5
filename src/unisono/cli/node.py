"""``unisono node``: run a node in the foreground, look at it, end it."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from unisono.cli import output
from unisono.cli.exits import CommandFailed
from unisono.cli.nodeprogram import replace_this_process
from unisono.cli.nodestart import wait_for_exit
from unisono.cli.options import Globals, JsonOption, StateOption, Target

app = typer.Typer(
    help="Run a node in the foreground, or look at and end the one that runs.",
    invoke_without_command=True,
)

STOP_TIMEOUT = 30.0

ListenOption = Annotated[
    str | None,
    typer.Option(
        "--listen",
        metavar="HOST:PORT",
        envvar="UNISONO_LISTEN",
        help="Where the gateway answers requests. Default: 127.0.0.1:8080.",
    ),
]

StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="ADDRESS",
        envvar="UNISONO_STORE",
        help="Where the truth is kept: sqlite:PATH, or etcd://USER@HOST:2379,HOST2:2379/PREFIX?ca=FILE. "
        "Default: the one used last, else a file in the state folder.",
    ),
]

StorePasswordOption = Annotated[
    Path | None,
    typer.Option(
        "--store-password-file",
        metavar="FILE",
        help="Holds the store's password, readable by its owner alone. Else $UNISONO_STORE_PASSWORD.",
    ),
]


@app.callback(
    epilog="Examples:  unisono node --listen 0.0.0.0:80   ·   unisono node status   ·   unisono node stop"
)
def node(
    ctx: typer.Context,
    listen: ListenOption = None,
    api: Annotated[
        str | None,
        typer.Option(
            "--api", metavar="HOST:PORT", help="Also answer the API on TCP, to who knows the token."
        ),
    ] = None,
    api_token_file: Annotated[
        Path | None,
        typer.Option(
            "--api-token-file",
            metavar="FILE",
            help="Holds the token, readable by its owner alone. Else $UNISONO_API_TOKEN, else one is made.",
        ),
    ] = None,
    store: StoreOption = None,
    store_password_file: StorePasswordOption = None,
    access_log: Annotated[
        str | None,
        typer.Option(
            "--access-log",
            metavar="json|combined",
            envvar="UNISONO_ACCESS_LOG",
            help="Write a line for each request into access.log in the state folder.",
        ),
    ] = None,
    shared_memory: Annotated[
        str | None,
        typer.Option(
            "--shared-memory",
            metavar="SIZE",
            envvar="UNISONO_SHARED_MEMORY",
            help="For the tables of all applications together, such as 1g. Default: 256m.",
        ),
    ] = None,
    state: StateOption = None,
) -> None:
    """
    Run a node in the foreground. SIGTERM and Ctrl-C end it; gateway and instances run on.
    """
    if ctx.invoked_subcommand is not None:
        before = ctx.find_object(Globals) or Globals()
        ctx.obj = replace(before, state=state or before.state)
        return
    arguments: list[str] = []
    given = {"--listen": listen, "--api": api, "--api-token-file": api_token_file}
    given |= {"--store": store, "--store-password-file": store_password_file, "--access-log": access_log}
    given |= {"--shared-memory": shared_memory}
    for option, value in given.items():
        if value is not None:
            arguments += [option, str(value)]
    replace_this_process(Target.of(ctx, state=state).folder, arguments)


@app.command(epilog="Example:  unisono node status --json")
def status(ctx: typer.Context, state: StateOption = None, json: JsonOption = False) -> None:
    """Show the node: where it answers, its gateway, what it runs."""
    view = Target.of(ctx, state=state).client().node()
    if json:
        output.data(view)
        return
    gateway = view["gateway"]
    rows = [
        ("node", f"{view['id']} on {view['host']}, unisono {view['version']}"),
        ("pid", f"{view['pid']}, for {output.duration(time.time() - view['started_at'])}"),
        ("state", view["state_folder"]),
        ("requests", f"http://{view['listen']}"),
        ("api", view["api"] or "on its Unix socket only"),
        ("gateway", f"pid {gateway['pid']}" if gateway["pid"] else "not running"),
        *([("problem", gateway["problem"])] if gateway["problem"] else []),
        *(("unbound", f"{address}: {why}") for address, why in sorted(gateway["unbound"].items())),
        ("leader", "yes" if view["leader"] else "no"),
        ("runs", f"{_count(view['applications'], 'application')}, {_count(view['instances'], 'instance')}"),
        ("ends", "once nothing runs" if view["ends_when_empty"] else "when told to"),
    ]
    for name, value in rows:
        print(f"{name:<9} {value}")


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


@app.command(epilog="Example:  unisono node stop")
def stop(ctx: typer.Context, state: StateOption = None) -> None:
    """End the node. Gateway and instances run on, and the next node adopts them."""
    client = Target.of(ctx, state=state).client()
    view = client.node()
    client.stop_node()
    if not wait_for_exit(view["pid"], STOP_TIMEOUT):
        raise CommandFailed(f"the node (pid {view['pid']}) still runs after {STOP_TIMEOUT:g} seconds")
    left = view["instances"]
    print(
        f"node stopped; {left} instances and the gateway run on" if left else "node stopped", file=sys.stderr
    )
