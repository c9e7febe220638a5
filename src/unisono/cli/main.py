"""
The command ``unisono``: puts the groups of commands together and turns errors into exit codes.

Each command has a module of its own; what is slow to import is imported where it is used, so that
help, completion and small questions answer at once.
"""

from __future__ import annotations

import sys
from typing import Any

import typer

from unisono import __version__
from unisono.cli import (
    apply,
    clock,
    config,
    events,
    kv,
    lock,
    logs,
    node,
    output,
    ps,
    rollout,
    scale,
    txn,
    up,
)
from unisono.cli.exits import Code, CommandFailed, failure_of
from unisono.cli.options import (
    EnvFileOption,
    FileOption,
    Globals,
    JsonOption,
    ProfileOption,
    ProjectOption,
    StateOption,
)
from unisono.client import NodeError

app = typer.Typer(
    name="unisono",
    help="Runs a file of services as instances that answer in real time and agree with each other.",
    epilog="Exit codes: 0 done, 1 failed, 2 wrong usage or file, 3 no node, 4 refused, 130 interrupted.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def common(
    ctx: typer.Context,
    file: FileOption = None,
    project: ProjectOption = None,
    profile: ProfileOption = None,
    env_file: EnvFileOption = None,
    state: StateOption = None,
) -> None:
    """Runs a file of services as instances that answer in real time and agree with each other."""
    ctx.obj = Globals(
        files=tuple(file or ()),
        project=project,
        profiles=tuple(profile or ()),
        env_file=env_file,
        state=state,
    )


@app.command(epilog="Example:  unisono version --json")
def version(json: JsonOption = False) -> None:
    """Print the version."""
    if json:
        output.data({"version": __version__})
    else:
        print(f"unisono {__version__}")


def _example(*lines: str) -> str:
    return ("Example:  " if len(lines) == 1 else "Examples:  ") + "   ·   ".join(lines)


app.command(epilog=_example("unisono up", "unisono up -d -f shop.yaml"))(up.up)
app.command(epilog=_example("unisono down", "unisono down -p shop"))(up.down)
app.command(epilog=_example("unisono apply", "unisono apply --yes -f shop.yaml"))(apply.apply)
app.command(epilog=_example("unisono ps", "unisono ps orders --json"))(ps.ps)
app.command(epilog=_example("unisono logs -f", "unisono logs --tail 20 --since 10m orders"))(logs.logs)
app.command(epilog=_example("unisono scale orders=3 payments=0"))(scale.scale)
app.command(epilog=_example("unisono restart", "unisono restart orders"))(scale.restart)
app.add_typer(rollout.app, name="rollout")
app.command(epilog=_example("unisono events -f", "unisono events --json --after 120"))(events.events)
app.command(epilog=_example("unisono config", "unisono config --services", "unisono config --schema"))(
    config.config
)
app.add_typer(kv.app, name="kv")
app.add_typer(lock.app, name="lock")
app.command(epilog=_example("unisono clock", "unisono clock --json"))(clock.clock)
app.add_typer(node.app, name="node")
app.add_typer(txn.app, name="txn")


@app.command(epilog=_example("unisono demo"))
def demo(json: JsonOption = False) -> None:
    """Start a small shop, load it, kill and replace what it consists of, and print what became of it."""
    from unisono.cli import demo as scenario  # noqa: PLC0415 - needed for this alone

    scenario.demo(json=json)


# What typer raises where a command is used wrongly. It has no public name: it is the base of one that has.
_WrongUsage: type[Exception] = typer.BadParameter.__mro__[1]
_SHOWN = 60  # characters of a wrong value that a message repeats


def main() -> None:
    """Run the command line, and end with one of the documented exit codes."""
    try:
        sys.exit(app(prog_name="unisono", standalone_mode=False))
    except _WrongUsage as error:
        _end_of_wrong_usage(error)
    except typer.Abort:  # Ctrl-C at a question, or nobody there who answers it
        sys.exit(Code.INTERRUPTED)
    except NodeError as error:
        _end(failure_of(error))
    except CommandFailed as error:
        _end(error)
    except KeyboardInterrupt:
        sys.exit(Code.INTERRUPTED)
    except OSError as error:
        _end(CommandFailed(f"{error.filename}: {error.strerror}" if error.filename else str(error)))
    except Exception as error:  # a fault of ours: one line for the user, the rest for who mends it
        _end(CommandFailed(f"a fault in unisono: {type(error).__name__}: {error}", hint=_keep(error)))


def _keep(error: Exception) -> str:
    """Where the traceback was written."""
    import tempfile  # noqa: PLC0415 - for this alone
    import traceback  # noqa: PLC0415

    with tempfile.NamedTemporaryFile("w", prefix="unisono-", suffix=".txt", delete=False) as file:
        traceback.print_exception(error, file=file)
    return f"{file.name} tells where; please report it"


def _end_of_wrong_usage(error: Any) -> None:
    """One line as for all other errors; none where the help was shown because nothing was asked for."""
    words = " ".join(error.format_message().replace("Value error, ", "").split()).rstrip(".")
    if not words:
        sys.exit(Code.USAGE)
    if error.__cause__ is not None:
        words = _with_the_found(words, error.__cause__)
    command = error.ctx.command_path if error.ctx else "unisono"
    message = words[0].lower() + words[1:]
    _end(CommandFailed(message, code=Code.USAGE, hint=f"`{command} -h` shows how"))


def _with_the_found(words: str, cause: BaseException) -> str:
    """What typer says of a value that is no such number says what would be right only."""
    from pydantic import ValidationError  # noqa: PLC0415 - slow, and for this alone

    if not isinstance(cause, ValidationError):
        return words
    found = str(cause.errors(include_url=False)[0]["input"])[:_SHOWN]
    return words.partition(", unable to parse")[0].replace("Input should be", f"found {found!r}, want")


def _end(failure: CommandFailed) -> None:
    output.complain("error", failure.message)
    if failure.hint:
        output.complain("hint", failure.hint)
    sys.exit(failure.code)
