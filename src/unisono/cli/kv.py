"""``unisono kv``: reads, writes and watches the keys that the instances of an application share."""

from __future__ import annotations

import base64
import json as encoder
import sys
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from unisono.cli import output
from unisono.cli.exits import Code, CommandFailed
from unisono.cli.options import JsonOption, Target, on_application

if TYPE_CHECKING:
    from unisono.client import Change, Value

app = typer.Typer(
    name="kv", help="Look at the keys an application shares, and change them.", no_args_is_help=True
)

KeyArgument = Annotated[str, typer.Argument(metavar="KEY", help="Which key.")]
PrefixArgument = Annotated[str, typer.Argument(metavar="[PREFIX]", help="Only keys that begin so.")]
ExpectedOption = Annotated[
    int | None,
    typer.Option(
        "--if-revision",
        metavar="N",
        min=0,
        help="Only if the key was last changed at this revision; 0: only if it does not exist.",
    ),
]


@app.callback()
def kv() -> None:
    """Look at the keys an application shares, and change them."""


@app.command(epilog="Examples:  unisono kv get prices/book   ·   unisono kv get prices/book --json")
@on_application
def get(
    target: Target,
    key: KeyArgument,
    consistency: Annotated[
        Literal["linearizable", "eventual"], typer.Option("--consistency", help="How fresh it must be.")
    ] = "linearizable",
    revision: Annotated[
        int | None, typer.Option("--revision", metavar="N", min=1, help="As of this revision.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Print the value of a key, byte for byte. Ends with 4 if there is no such key."""
    shared = target.shared()
    found = shared.kv.get(key, consistency=consistency, revision=revision)
    if found is None:
        raise CommandFailed(f"there is no key {key!r}", code=Code.REFUSED)
    if json:
        output.data(view(found))
        return
    sys.stdout.buffer.write(found.value)
    if sys.stdout.isatty() and not found.value.endswith(b"\n"):
        sys.stdout.buffer.write(b"\n")
    sys.stdout.buffer.flush()


@app.command(
    epilog="Examples:  unisono kv put prices/book 41   ·   unisono kv put logo < logo.png   ·   "
    "unisono kv put prices/book 42 --if-revision 17"
)
@on_application
def put(
    target: Target,
    key: KeyArgument,
    value: Annotated[
        str | None, typer.Argument(metavar="[VALUE]", help="Default: what comes in on stdin.")
    ] = None,
    expected: ExpectedOption = None,
    ttl: Annotated[
        float | None, typer.Option("--ttl", metavar="SECONDS", min=0.001, help="The key goes after that.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Set a key, and print the revision at which it was set."""
    if value is None and sys.stdin.isatty():
        raise CommandFailed("no value was given", code=Code.USAGE, hint="after the key, or on stdin")
    from unisono.store.base import MAX_VALUE_BYTES  # noqa: PLC0415 - for this alone

    # One byte more than a value may have: the node refuses what is too long, and endless input ends here.
    content = sys.stdin.buffer.read(MAX_VALUE_BYTES + 1) if value is None else value.encode()
    shared = target.shared()
    _say(shared.kv.put(key, content, expected=expected, ttl=ttl), json=json)


@app.command("del", epilog="Example:  unisono kv del prices/book")
@on_application
def delete(
    target: Target,
    key: KeyArgument,
    expected: ExpectedOption = None,
    json: JsonOption = False,
) -> None:
    """Remove a key, and print the revision; removing what is not there is no error."""
    shared = target.shared()
    _say(shared.kv.delete(key, expected=expected), json=json)


@app.command(epilog="Examples:  unisono kv scan   ·   unisono kv scan prices/ --json")
@on_application
def scan(
    target: Target,
    prefix: PrefixArgument = "",
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, help="At most so many.")] = 10_000,
    json: JsonOption = False,
) -> None:
    """List keys and values, in the order of the keys, all as of one revision."""
    shared = target.shared()
    found: list[Value] = []
    revision = None
    more = True
    while more and len(found) < limit:
        after = found[-1].key if found else ""
        page = shared.kv.scan(prefix, after=after, limit=min(1000, limit - len(found)), revision=revision)
        found += page.entries
        more, revision = page.more, page.revision
    if json:
        output.data({"entries": [view(one) for one in found], "revision": revision, "more": more})
        return
    output.table(
        ("KEY", "VALUE", "REVISION"), [(one.key, text(one.value), str(one.revision)) for one in found]
    )
    if more:
        output.complain("hint", f"there are more; --limit {10 * limit} shows them")


@app.command(epilog="Examples:  unisono kv watch   ·   unisono kv watch prices/ --after 17 --json")
@on_application
def watch(
    target: Target,
    prefix: PrefixArgument = "",
    after: Annotated[
        int | None, typer.Option("--after", metavar="N", min=0, help="Only what came after this revision.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Print what there is, and from then on each change, a line each, without gap or repeat, until Ctrl-C."""
    shared = target.shared()
    for changes in shared.kv.watch(prefix, after=after):
        for change in changes.changes:
            print(encoder.dumps(change_view(change)) if json else line(change), flush=True)


def line(change: Change) -> str:
    """One change for people."""
    if change.value is None:
        return f"{change.revision}  del  {change.key}"
    return f"{change.revision}  put  {change.key}  {text(change.value)}"


def text(value: bytes) -> str:
    """A value on one line; bytes that are no text in Python's notation."""
    try:
        decoded = value.decode()
    except UnicodeDecodeError:
        return repr(value)[2:-1]
    return decoded if decoded.isprintable() else repr(decoded)[1:-1]


def view(found: Value) -> dict[str, Any]:
    """A key for programs; see :func:`value_view`."""
    more = {"revision": found.revision, "created": found.created}
    return {"key": found.key, **value_view(found.value), **more}


def change_view(change: Change) -> dict[str, Any]:
    """A change for programs; see :func:`value_view`."""
    head = {"kind": "delete" if change.value is None else "put", "key": change.key}
    return {**head, **({} if change.value is None else value_view(change.value)), "revision": change.revision}


def value_view(value: bytes) -> dict[str, str]:
    """``value`` is the text, or base64 where the bytes are no text: ``encoding`` says which."""
    try:
        return {"value": value.decode(), "encoding": "utf-8"}
    except UnicodeDecodeError:
        return {"value": base64.b64encode(value).decode(), "encoding": "base64"}


def _say(revision: int, *, json: bool) -> None:
    if json:
        output.data({"revision": revision})
    else:
        print(revision)
