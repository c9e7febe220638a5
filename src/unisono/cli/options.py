"""
The options that many commands share, and what they say together: which node, which application.

An option may stand before the command, as in ``unisono -p shop ps``, or after it. The environment
comes next: ``UNISONO_STATE`` and ``UNISONO_PROJECT``, then Compose's ``COMPOSE_FILE`` and
``COMPOSE_PROJECT_NAME``.
"""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Concatenate

import typer

from unisono.cli.exits import Code, CommandFailed
from unisono.client import NodeError
from unisono.client.views import ApplicationSummary
from unisono.node.paths import StateFolder, default_state_folder

if TYPE_CHECKING:
    from unisono.client import NodeClient
    from unisono.client.shared import SharedSync


@dataclass(frozen=True, kw_only=True)
class Globals:
    """What was given before the command."""

    files: tuple[Path, ...] = ()
    project: str | None = None
    profiles: tuple[str, ...] = ()
    env_file: Path | None = None
    state: Path | None = None


def complete_service(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of services of the application that the command line speaks of."""
    try:
        where = Target.of(ctx)
        client = where.client(timeout=1.0)
        view = client.application(where.application(client))
    except (NodeError, CommandFailed):
        return []
    return [service["name"] for service in view["services"] if service["name"].startswith(incomplete)]


def complete_application(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of the applications on the node."""
    try:
        found = Target.of(ctx).client(timeout=1.0).applications()
    except (NodeError, CommandFailed):
        return []
    return [application["name"] for application in found if application["name"].startswith(incomplete)]


FileOption = Annotated[
    list[Path] | None,
    typer.Option("--file", "-f", metavar="FILE", help="The file of services; several are merged in order."),
]
LongFileOption = Annotated[  # where -f means --follow
    list[Path] | None,
    typer.Option("--file", metavar="FILE", help="The file whose application is meant."),
]
ProjectOption = Annotated[
    str | None,
    typer.Option(
        "--project-name",
        "-p",
        metavar="NAME",
        envvar="UNISONO_PROJECT",
        autocompletion=complete_application,
        help="The application's name, instead of the one that the file has or its folder gives.",
    ),
]
ProfileOption = Annotated[
    list[str] | None,
    typer.Option("--profile", metavar="NAME", help="Also run the services of this profile; repeatable."),
]
EnvFileOption = Annotated[
    Path | None,
    typer.Option("--env-file", metavar="FILE", help="Variables for ${...} in the file, instead of .env."),
]
StateOption = Annotated[
    Path | None,
    typer.Option(
        "--state",
        metavar="DIR",
        envvar="UNISONO_STATE",
        help="The node's state folder. Default: $XDG_STATE_HOME/unisono, else ~/.local/state/unisono.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
WaitOption = Annotated[
    float,
    typer.Option("--wait-timeout", metavar="SECONDS", min=0, help="How long to wait until all is ready."),
]
ServicesArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="[SERVICE]...", autocompletion=complete_service, help="Default: all services."),
]


@dataclass(frozen=True, kw_only=True)
class Target:
    """Which node a command talks to, and of which application."""

    files: tuple[Path, ...]
    project: str | None
    profiles: tuple[str, ...]
    env_file: Path | None
    folder: StateFolder

    @classmethod
    def of(
        cls,
        ctx: typer.Context,
        *,
        file: list[Path] | None = None,
        project: str | None = None,
        profile: list[str] | None = None,
        env_file: Path | None = None,
        state: Path | None = None,
    ) -> Target:
        """What stands after the command counts before what stands in front of it."""
        given = ctx.find_object(Globals) or Globals()
        folder = state or given.state
        return cls(
            files=tuple(file or given.files or _compose_files()),
            project=project or given.project or os.environ.get("COMPOSE_PROJECT_NAME") or None,
            profiles=tuple(profile or given.profiles),
            env_file=env_file or given.env_file,
            folder=StateFolder(folder.absolute() if folder else default_state_folder()),
        )

    def client(self, timeout: float = 30.0) -> NodeClient:
        """A client of the node; it connects when it is first used."""
        from unisono.client import NodeClient  # noqa: PLC0415 - HTTP is slow to import

        return NodeClient(self.folder.api_socket, timeout=timeout)

    def api(self) -> str:
        """The node's address, for those who share state."""
        return f"unix:{self.folder.api_socket}"

    def where(self) -> dict[str, str]:
        """Whose state is meant, at which node: the arguments of ``client.connect``."""
        if self.project is None and not self.files and os.environ.get("UNISONO_API"):
            return {}  # in an instance: its own application's, which its token says
        return {"api": self.api(), "namespace": self.application(self.client())}

    def shared(self) -> SharedSync:
        """The state that the instances of the application share."""
        from unisono.client.sync import connect  # noqa: PLC0415 - HTTP is slow to import

        return connect(**self.where())

    def application(self, client: NodeClient) -> str:
        """
        The name of the application that is meant: by name, by file, by the present folder, or the only one.

        Raises:
            CommandFailed: None of them tells.
            NodeError: The node did not.
        """
        if self.project is not None:
            return self.project
        found = client.applications()
        by_file = [one["name"] for one in found if one["source"] in map(_absolute, self.files)]
        if len(by_file) == 1:
            return by_file[0]
        if self.files:
            named = ", ".join(str(path) for path in self.files)
            raise CommandFailed(
                f"no application from {named} is running", code=Code.REFUSED, hint=_running(_names(found))
            )
        for folder in _here_and_above():
            nearest = [one["name"] for one in found if os.path.dirname(one["source"]) == folder]
            if len(nearest) == 1:
                return nearest[0]
        if len(found) == 1:
            return found[0]["name"]
        if not found:
            raise CommandFailed(
                "no application is running", code=Code.REFUSED, hint="`unisono up` starts one"
            )
        raise CommandFailed(
            "which application is meant? Give its name with -p", code=Code.USAGE, hint=_running(_names(found))
        )


_WHERE: dict[str, Any] = {"file": FileOption, "project": ProjectOption, "state": StateOption}


def on_application(command: Callable[Concatenate[Target, ...], None]) -> Callable[..., None]:
    """
    A command about one application of a node.

    After its own options it takes those that say which, and is called with the :class:`Target` that they say.
    """

    @functools.wraps(command)
    def run(ctx: typer.Context, **given: Any) -> None:
        where = {name: given.pop(name) for name in _WHERE}
        command(Target.of(ctx, **where), **given)

    # Typer reads a command's options from its signature.
    _, *own = inspect.signature(command, eval_str=True).parameters.values()
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [
        inspect.Parameter("ctx", kind, annotation=typer.Context),
        *own,
        *(inspect.Parameter(name, kind, default=None, annotation=option) for name, option in _WHERE.items()),
    ]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _absolute(path: Path) -> str:
    return os.path.abspath(path)


def _here_and_above() -> list[str]:
    here = Path(os.path.abspath("."))
    return [str(folder) for folder in (here, *here.parents)]


def _names(found: list[ApplicationSummary]) -> list[str]:
    return [one["name"] for one in found]


def _running(names: list[str]) -> str:
    return f"running: {', '.join(names)}" if names else "no application is running"


def _compose_files() -> list[Path]:
    """The files that ``COMPOSE_FILE`` names, with ``COMPOSE_PATH_SEPARATOR`` between them."""
    separator = os.environ.get("COMPOSE_PATH_SEPARATOR") or os.pathsep
    return [Path(name) for name in os.environ.get("COMPOSE_FILE", "").split(separator) if name]
