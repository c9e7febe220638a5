"""``unisono up`` and ``unisono down``: an application comes, and goes again."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Mapping
from http import HTTPStatus
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from unisono.cli import files, watching
from unisono.cli.apply import await_settled
from unisono.cli.exits import Code, CommandFailed
from unisono.cli.logs import LogPrinter
from unisono.cli.node import ListenOption, StoreOption, StorePasswordOption
from unisono.cli.nodestart import has_remains, is_running, kept_store, start_in_background, wait_for_exit
from unisono.cli.options import (
    EnvFileOption,
    FileOption,
    ProfileOption,
    ProjectOption,
    StateOption,
    Target,
    WaitOption,
    on_application,
)
from unisono.cli.output import complain, say
from unisono.client import NodeError, NotRunning, Refused
from unisono.client.views import ApplicationView

if TYPE_CHECKING:
    from unisono.client import NodeClient

NODE_EXIT_TIMEOUT = 30.0

DetachOption = Annotated[bool, typer.Option("--detach", "-d", help="Return once everything is ready.")]


def up(
    ctx: typer.Context,
    detach: DetachOption = False,
    wait_timeout: WaitOption = 60.0,
    listen: ListenOption = None,
    store: StoreOption = None,
    store_password_file: StorePasswordOption = None,
    file: FileOption = None,
    project: ProjectOption = None,
    profile: ProfileOption = None,
    env_file: EnvFileOption = None,
    state: StateOption = None,
) -> None:
    """
    Run the services of a file; start a node in the background if none runs.

    Shows how they become ready, then what they write. Ctrl-C takes them down, a second one leaves them
    as they are. With -d it returns once all are ready, and fails if one is not within --wait-timeout.
    """
    target = Target.of(ctx, file=file, project=project, profile=profile, env_file=env_file, state=state)
    loaded = files.load(target)
    name = loaded.application.name
    client = target.client()
    options = {"--listen": listen, "--store": store, "--store-password-file": store_password_file}
    is_new = not target.folder.path.exists()
    try:
        started_node = _ensure_node(target, options)
    except CommandFailed:
        folder = target.folder
        if is_new and not folder.store_file.exists() and not folder.kept_store.exists():
            folder.discard()  # it came to no store, so there is nothing in it
        raise
    except KeyboardInterrupt:
        if is_new:
            target.folder.discard()  # nothing was applied to it
        raise
    before = watching.rollouts(watching.look(client, name))
    try:
        client.apply(name, files.body(loaded.application))
    except Refused:
        if started_node:
            _dismiss(client)  # it would wait for ever for its last application to go
            if is_new:
                target.folder.discard()
        raise
    if detach:
        await_settled(client, name, before, wait_timeout)
    else:
        _attend(client, name, before)


@on_application
def down(
    target: Target,
) -> None:
    """
    Stop an application and remove it: dependants first, each finishing its requests.

    A node that `up` started ends with its last application.
    """
    if not is_running(target.folder) and has_remains(target.folder):
        say("the node is gone, but its work still runs; starting a node to end it")
        start_in_background(target.folder)
    client = target.client()
    take_down(client, target.application(client))


def take_down(client: NodeClient, name: str) -> None:
    """Remove an application, show how it goes, and see off a node that ends with it."""
    began = time.monotonic()
    node = client.node()
    client.remove(name)
    with watching.Progress(vanishes=True) as progress:
        try:
            watching.wait(watching.Watch(client, name), progress, lambda view: False, fails=False)
        except Refused as refused:
            if refused.status != HTTPStatus.NOT_FOUND:
                raise  # else it was gone before it could be watched
        except NotRunning:
            if not node["ends_when_empty"]:
                raise  # else it has ended because nothing is left
    is_last = node["ends_when_empty"] and not _has_applications(client)
    if is_last and not wait_for_exit(node["pid"], NODE_EXIT_TIMEOUT):
        raise CommandFailed(
            f"{name} is down, but its node (pid {node['pid']}) still runs", hint="`unisono node stop` ends it"
        )
    say(f"{name} is down ({watching.took(began)})")


def _has_applications(client: NodeClient) -> bool:
    try:
        return bool(client.applications())
    except NodeError:
        return False


def _dismiss(client: NodeClient) -> None:
    """End a node that was started in vain."""
    pid = client.node()["pid"]
    client.stop_node()
    wait_for_exit(pid, NODE_EXIT_TIMEOUT)


def _ensure_node(target: Target, options: Mapping[str, object]) -> bool:
    """Start a node if none answers; whether one was started."""
    try:
        node = target.client().node()
    except NotRunning:
        start_in_background(target.folder, options)
        return True
    listen, store = options["--listen"], options["--store"]
    if listen is not None and listen != node["listen"]:
        raise CommandFailed(
            f"the node that runs answers at {node['listen']}, not at {listen}",
            code=Code.REFUSED,
            hint="leave out --listen, or give another node a folder of its own with --state",
        )
    if store is not None and store != kept_store(target.folder):
        raise CommandFailed(
            f"the node that runs keeps its truth elsewhere, not in {store}",
            code=Code.REFUSED,
            hint="leave out --store, or give another node a folder of its own with --state",
        )
    return False


def _attend(client: NodeClient, name: str, before: watching.Ended) -> None:
    """Stay with the application: progress, then its logs, until it is gone, has ended or Ctrl-C."""
    signal.signal(signal.SIGTERM, _interrupt)
    since = time.time()
    watch = watching.Watch(client, name)
    printer = LogPrinter()
    try:
        with watching.Progress() as progress:
            printer.console = progress.console
            threading.Thread(
                target=_print_logs, args=(client, name, since, printer), name="logs", daemon=True
            ).start()
            view = watching.wait(watch, progress, watching.settled, before=before)
            printer.console = None
        if view is not None:
            _announce(client, view, before)
        while view is not None and not _has_ended(view):
            view = watch.next(None)
    except KeyboardInterrupt:
        _leave(client, name)
        raise typer.Exit(Code.INTERRUPTED) from None
    if view is None:
        say(f"{name} was removed")
        return
    reasons = watching.failures(view, before)
    take_down(client, name)
    if reasons:
        raise CommandFailed("\n".join(reasons))


def _announce(client: NodeClient, view: ApplicationView, before: watching.Ended) -> None:
    for reason in (*watching.failures(view, before), watching.unserved(client, view)):
        if reason:
            complain("warning", reason)
    say(f"{view['name']} runs; Ctrl-C takes it down")


def _has_ended(view: ApplicationView) -> bool:
    """Whether every service has come to its end by itself, so that there is nothing left to attend."""
    return all(service["state"] in ("completed", "failed") for service in view["services"])


def _leave(client: NodeClient, name: str) -> None:
    say(f"taking {name} down; Ctrl-C again leaves it as it is")
    try:
        take_down(client, name)
    except KeyboardInterrupt:
        say(f"left {name}; `unisono ps -p {name}` shows how it stands")


def _print_logs(client: NodeClient, name: str, since: float, printer: LogPrinter) -> None:
    try:
        for line in client.logs(name, since=since, follow=True):
            printer.print(line)
    except NodeError:
        return  # the watch meets the same end, and speaks of it
    except BrokenPipeError:
        sys.stderr.close()


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
