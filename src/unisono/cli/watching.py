"""
Watching an application until it is where it should be, and showing how it gets there.

A thread reads the node's stream, so that the main thread can be interrupted, keep a deadline and move
the picture. On a terminal the picture is a live list of services on stderr; elsewhere it is a line for
each change. When it is reached is decided by pure functions of the view (:func:`settled`,
:func:`failures`).
"""

from __future__ import annotations

import math
import queue
import sys
import threading
import time
from collections.abc import Callable, Collection
from http import HTTPStatus
from typing import TYPE_CHECKING, TextIO
from urllib.parse import urlsplit

from unisono.cli.exits import CommandFailed
from unisono.cli.output import console, duration, is_pretty, say, style_of
from unisono.client import NodeError, Refused
from unisono.client.views import ApplicationView, ServiceView

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live

    from unisono.client import NodeClient

WORKER_PROOF = 1.0
"""Seconds that a worker has to run before it counts as there."""

_GATEWAY_SECONDS = 15.0  # for which a gateway that is being started is waited for: a node gives it 10

Verdict = Callable[[ApplicationView], bool]


def settled(view: ApplicationView) -> bool:
    """Whether nothing is under way in the application."""
    return not view["removing"] and all(service["settled"] for service in view["services"])


Ended = frozenset[tuple[str, float]]
"""Rollouts by service and start; what ended before a command is not the command's failure."""


def rollouts(view: ApplicationView | None) -> Ended:
    """The rollouts of all services."""
    found = ((service["name"], service["rollout"]) for service in view["services"]) if view else ()
    return frozenset((name, rollout["started_at"]) for name, rollout in found if rollout)


def failures(view: ApplicationView, before: Ended = frozenset()) -> list[str]:
    """What went wrong since ``before`` and will not get better by waiting, a line each."""
    found = []
    for service in view["services"]:
        rollout = service["rollout"]
        if service["state"] == "failed":
            found.append(f"{service['name']} failed: {service['reason'] or 'it ended and is not restarted'}")
        elif not rollout or (service["name"], rollout["started_at"]) in before:
            continue
        elif rollout["phase"] in ("rolled-back", "paused"):
            word = "was rolled back" if rollout["phase"] == "rolled-back" else "is paused"
            found.append(f"{service['name']} {word}: {rollout['reason']}")
    return found


def unready(view: ApplicationView) -> list[str]:
    """Which services are not where they should be, and why, a line each."""
    return [line for service in view["services"] if (line := _unready(service))]


def _unready(service: ServiceView) -> str:
    if not service["settled"]:
        reason = f": {service['reason']}" if service["reason"] else ""
        return f"{service['name']} is {_standing(service)}{reason}"
    restarts = sum(instance["restarts"] for instance in service["instances"])
    if restarts and _unproven(service, time.time()) > 0:
        return f"{service['name']} does not stay up: restarted {restarts} times"
    return ""


def part(view: ApplicationView, services: Collection[str]) -> ApplicationView:
    """The application with these services alone; with all when none is named."""
    if not services:
        return view
    return {**view, "services": [service for service in view["services"] if service["name"] in services]}


class Watch:
    """
    Follows an application; ``latest`` is its last view, ``None`` once it is gone.

    With ``services`` the views have these alone, so that how others stand neither holds up nor fails what
    is waited for. Ends by itself with the process: its thread is a daemon, as a read can't be interrupted.
    """

    def __init__(self, client: NodeClient, application: str, services: Collection[str] = ()) -> None:
        self.latest: ApplicationView | None = None
        self._queue: queue.SimpleQueue[ApplicationView | NodeError | None] = queue.SimpleQueue()
        self._client = client
        self._application = application
        self._services = frozenset(services)
        threading.Thread(target=self._follow, name="watch", daemon=True).start()

    def next(self, timeout: float | None) -> ApplicationView | None:
        """
        The next view, or ``None`` when the application is gone.

        Raises:
            TimeoutError: None came within ``timeout`` seconds.
            NodeError: The node went away.
        """
        try:
            item = self._queue.get(timeout=timeout)
        except queue.Empty:
            raise TimeoutError from None
        if isinstance(item, NodeError):
            raise item
        self.latest = item
        return item

    def _follow(self) -> None:
        try:
            for view in self._client.watch(self._application):
                self._queue.put(part(view, self._services))
        except NodeError as error:
            self._queue.put(error)
        else:
            self._queue.put(None)


class Progress:
    """
    A picture of an application on stderr for as long as the block lasts; its last state stays.

    With ``vanishes`` nothing stays, because what is shown goes.
    """

    def __init__(self, *, vanishes: bool = False) -> None:
        self._stream: TextIO = sys.stderr
        self._vanishes = vanishes
        self._pretty = is_pretty(self._stream)
        self._live: Live | None = None
        self._said: dict[str, str] = {}
        self._view: ApplicationView | None = None
        self._began = time.monotonic()

    def __enter__(self) -> Progress:
        if self._pretty:
            from rich.live import Live  # noqa: PLC0415 - only when someone looks

            self._live = Live(
                get_renderable=self._picture,
                console=console(self._stream),
                refresh_per_second=10,
                transient=self._vanishes,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    @property
    def console(self) -> Console | None:
        """Where to print so that the picture stays whole; ``None``: anywhere."""
        return self._live.console if self._live else None

    def show(self, view: ApplicationView) -> None:
        """Show a newer view."""
        self._view = view
        if self._live is not None:
            return
        for service in view["services"]:
            line = f"{service['name']} {_standing(service)}"
            if service["reason"]:
                line += f": {service['reason']}"
            if self._said.get(service["name"]) != line:
                self._said[service["name"]] = line
                say(line)
        for name in set(self._said) - {service["name"] for service in view["services"]}:
            del self._said[name]
            say(f"{name} removed")

    def _picture(self) -> RenderableType:
        from rich.spinner import Spinner  # noqa: PLC0415
        from rich.table import Table  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        drawn = Table.grid(padding=(0, 2, 0, 0))
        for service in self._view["services"] if self._view else ():
            done = service["settled"] and service["state"] in ("ready", "completed", "stopped")
            failed = service["state"] in ("failed", "degraded")
            busy = Spinner("dots", style="yellow")
            busy.start_time = self._began
            mark = Text("✔", style="green") if done else Text("✘", style="red") if failed else busy
            note = service["reason"] or (" ".join(service["urls"]) if done else "")
            standing = _standing(service)
            drawn.add_row(
                mark,
                Text(service["name"], style="bold"),
                Text(standing, style=style_of(standing)),
                Text(note, style="dim", overflow="ellipsis", no_wrap=True),
            )
        return drawn


def wait(
    watch: Watch,
    progress: Progress,
    is_reached: Verdict,
    *,
    before: Ended = frozenset(),
    fails: bool = True,
    timeout: float | None = None,
) -> ApplicationView | None:
    """
    Show the application until ``is_reached`` or a failure; returns that view, ``None`` if it is gone.

    Rollouts that ended ``before`` are none; without ``fails`` nothing is.

    Raises:
        TimeoutError: Neither happened within ``timeout`` seconds.
        NodeError: The node went away.
    """
    deadline = math.inf if timeout is None else time.monotonic() + timeout
    reached: ApplicationView | None = None
    proven_at = math.inf
    while True:
        until = min(deadline, proven_at)
        try:
            view = watch.next(None if until == math.inf else max(0.0, until - time.monotonic()))
        except TimeoutError:
            if reached is None or proven_at > deadline:
                raise
            return reached
        if view is None:
            return None
        progress.show(view)
        if fails and failures(view, before):
            return view
        reached = view if is_reached(view) else None
        if reached:
            unproven = (_unproven(service, time.time()) for service in view["services"])
            proven_at = time.monotonic() + max(unproven, default=0.0)
        else:
            proven_at = math.inf
        if reached and proven_at <= time.monotonic():
            return reached


def _unproven(service: ServiceView, now: float) -> float:
    """
    Seconds until a worker has been up for a moment; at most 0 if it has, and for all that are no workers.

    One that nobody calls is ready as soon as its process runs; one that ends at once is not to pass for it.
    """
    if service["internal_url"] is not None:
        return 0.0
    ready_at = [
        instance["ready_at"]
        for instance in service["instances"]
        if instance["phase"] == "ready" and instance["ready_at"] is not None
    ]
    return max(ready_at, default=-math.inf) + WORKER_PROOF - now


def _standing(service: ServiceView) -> str:
    """A service's state with figures: "ready 2/2", "updating 1/3 to revision 4"."""
    rollout = service["rollout"]
    state = service["state"]
    if rollout and rollout["source"] and not service["settled"] and state != "removing":
        return (
            f"{rollout['phase']} {rollout['updated']}/{rollout['replicas']} to revision {service['revision']}"
        )
    if state == "removing":
        left = len(service["instances"])
        return f"removing, {left} left"
    return f"{state} {service['ready']}/{service['replicas']}"


def look(client: NodeClient, name: str) -> ApplicationView | None:
    """The application now, ``None`` if there is none of this name."""
    try:
        return client.application(name)
    except Refused as error:
        if error.status != HTTPStatus.NOT_FOUND:
            raise
        return None


def judge(name: str, view: ApplicationView | None, before: Ended, timeout: float) -> None:
    """
    Judge the view at which waiting ended.

    Raises:
        CommandFailed: Something failed or is not ready; the message says what and why.
    """
    if view is None:
        raise CommandFailed(f"{name} was removed meanwhile")
    reasons = failures(view, before)
    if reasons:
        raise CommandFailed("\n".join(reasons), hint=f"`unisono logs -p {name}` shows what they wrote")
    if reasons := unready(view):
        raise CommandFailed(
            f"not ready after {timeout:g} seconds:\n" + "\n".join(reasons),
            hint=f"it goes on trying; `unisono ps -p {name}` shows how it stands, "
            f"`unisono logs -p {name}` what they wrote, `unisono down -p {name}` ends it",
        )


def unserved(client: NodeClient, view: ApplicationView) -> str:
    """
    Why the gateway does not serve an application whose instances are ready; empty where it does.

    One that is just being started, or learns what to route, is waited for.
    """
    urls = [url for s in view["services"] for url in (*s["urls"], s["internal_url"]) if url is not None]
    if not urls:
        return ""
    deadline = time.monotonic() + _GATEWAY_SECONDS
    gateway = client.node()["gateway"]
    while not (gateway["current"] or gateway["problem"]) and time.monotonic() < deadline:
        time.sleep(0.1)
        gateway = client.node()["gateway"]
    if not gateway["current"]:
        why = gateway["problem"] or "none follows it"
        return f"{view['name']} runs, but no gateway that would serve it: {why}"
    ports = {_port(url) for url in urls}
    closed = [
        f"{address}: {why}"
        for address, why in sorted(gateway["unbound"].items())
        if int(address.rpartition(":")[2]) in ports
    ]
    return f"{view['name']} runs, but the gateway can't listen at {'; '.join(closed)}" if closed else ""


def _port(url: str) -> int:
    parts = urlsplit(url)
    return parts.port or (443 if parts.scheme == "https" else 80)


def took(since: float) -> str:
    """Time since ``since`` (of time.monotonic) in words."""
    return duration(time.monotonic() - since)
