"""``unisono txn``: which transactions there are, what became of each, a hand for those in doubt."""

from __future__ import annotations

import getpass
import time
from datetime import datetime
from typing import Annotated, Any, Literal

import typer

from unisono.cli import output
from unisono.cli.options import JsonOption, Target, on_application
from unisono.cli.txnverify import verify

app = typer.Typer(name="txn", help="Look after transactions over services.", no_args_is_help=True)

HEADERS = ("GID", "MODE", "STATUS", "BRANCHES", "BEGAN", "TOOK", "REASON")
GidArgument = Annotated[str, typer.Argument(metavar="GID", help="Which transaction.")]


@app.callback()
def txn() -> None:
    """Look after transactions over services."""


app.command(
    epilog="Example:  unisono txn verify http://localhost:8080/pay --mode tcc --payload '{\"amount\": 1}'"
)(verify)


@app.command(epilog="Examples:  unisono txn ls   ·   unisono txn ls --status heuristic")
@on_application
def ls(
    target: Target,
    status: Annotated[
        str,
        typer.Option(
            "--status",
            metavar="STATUS",
            help="open, final, heuristic, or a status such as aborting. Default: all.",
        ),
    ] = "",
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="At most so many.")] = 100,
    all_applications: Annotated[bool, typer.Option("--all", "-a", help="Those of all applications.")] = False,
    json: JsonOption = False,
) -> None:
    """List transactions, the newest first."""
    client = target.client()
    name = None if all_applications else target.application(client)
    found = client.transactions(name, status=status, limit=limit)
    if json:
        output.data({"transactions": found})
        return
    now = time.time()
    output.table(HEADERS, [_row(one, now) for one in found])


@app.command(epilog="Example:  unisono txn show order-17")
@on_application
def show(
    target: Target,
    gid: GidArgument,
    json: JsonOption = False,
) -> None:
    """Show a transaction: its branches, and its timeline of who was called when and what it answered."""
    client = target.client()
    found = client.transaction(target.application(client), gid)
    if json:
        output.data(found)
        return
    print("\n".join(lines(found)))


@app.command(epilog="Example:  unisono txn retry order-17")
@on_application
def retry(
    target: Target,
    gid: GidArgument,
) -> None:
    """Call at once what waits for its next try."""
    client = target.client()
    called = client.retry_transaction(target.application(client), gid)
    print(f"{called} calls are made at once" if called else "nothing was waiting for its next try")


@app.command(
    epilog="Example:  unisono txn resolve order-17 --branch pay --outcome finished --reason 'booked by hand'"
)
@on_application
def resolve(
    target: Target,
    gid: GidArgument,
    branches: Annotated[
        list[str], typer.Option("--branch", metavar="BRANCH", help="Which branch; may be repeated.")
    ],
    outcome: Annotated[
        Literal["finished", "undone"], typer.Option("--outcome", help="What was done by hand.")
    ],
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="How it was done; it is kept.")],
) -> None:
    """Note that branches in doubt were brought to the transaction's end by hand, so that it can end."""
    client = target.client()
    found = client.resolve_transaction(
        target.application(client),
        gid,
        {"branches": branches, "outcome": outcome, "reason": reason, "operator": getpass.getuser()},
    )
    print("\n".join(lines(found)))


def lines(found: dict[str, Any]) -> list[str]:
    """A transaction for people: how it stands, its branches, its timeline."""
    began = found["began_at"]
    head = f"{found['gid']}  {found['mode']}  {found['status']}  coordinated by {found['node']}"
    told = [head, f"began {_clock(began)}, to be decided by {_clock(found['deadline'])}"]
    if found["ended_at"] is not None:
        told.append(f"ended {_clock(found['ended_at'])}, after {output.duration(found['ended_at'] - began)}")
    if found["reason"]:
        told.append(f"reason: {found['reason']}")
    heuristic = found["heuristic"]
    if heuristic is not None:
        told.append(f"in doubt ({heuristic['kind']}): {heuristic['reason']}")
        told += [
            f"  {', '.join(word['branches'])} {word['outcome']} by {word['operator']}: {word['reason']}"
            for word in heuristic["resolved"]
        ]
    told += ["", "branches:"]
    for branch in found["branches"]:
        after = f", after {', '.join(branch['after'])}" if branch["after"] else ""
        told.append(f"  {branch['id']:<16} {branch['state'] or '-':<10} {branch['url']}{after}")
    told += ["", "timeline:"]
    for call in found["timeline"]:
        status = call["status"] or "-"
        when = f"{(call['at'] - began) * 1000:>+10.1f} ms"
        what = f"{call['branch']:<16} {call['op']:<11} {status:>3} {call['answer']:<8}"
        told.append(f"  {when}  {what}{call['ms']:>9.1f} ms  {call['note']}".rstrip())
    return told


def _row(one: dict[str, Any], now: float) -> tuple[str, ...]:
    ended = one["ended_at"]
    status = one["status"] + (" (in doubt)" if one["heuristic"] is not None else "")
    return (
        one["gid"],
        one["mode"],
        status,
        str(one["branches"]),
        f"{output.duration(now - one['began_at'])} ago",
        "-" if ended is None else f"{(ended - one['began_at']) * 1000:.1f} ms",
        one["reason"],
    )


def _clock(at: float) -> str:
    return datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
