"""
The promise that every driver keeps: it starts instances, finds them again, signals and ends them.

What an instance should do and when is not here (:mod:`unisono.node.lifecycle` decides, the agent carries
it out); how processes are started is :mod:`unisono.node.drivers.process`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from unisono.control.records import Instance, Status
from unisono.spec.model import ServiceSpec


class CannotStart(Exception):
    """The instance could not be started; the message says why, in words for ``unisono ps``."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """Everything that a driver needs to start an instance once."""

    instance: Instance
    spec: ServiceSpec
    generation: int
    links: Mapping[str, str] = field(default_factory=dict)  # "PAYMENTS_URL" and the like


@dataclass(frozen=True, kw_only=True)
class Running:
    """
    An instance that runs.

    ``pid`` with ``start_time`` (clock ticks since boot) and ``boot_id`` is the identity of its process: a
    number that the kernel gave away again is not mistaken for it.
    """

    instance: str
    generation: int
    pid: int
    start_time: int
    boot_id: str
    port: int | None = None
    warning: str = ""  # what the machine could not grant, such as a limit


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How an instance ended; ``code`` is negative for a signal and ``None`` when nobody could learn it."""

    code: int | None
    detail: str = ""  # what the code alone does not tell, such as a memory limit that was hit


@dataclass(frozen=True, kw_only=True)
class Orphan:
    """A running instance of this node that no status speaks of."""

    application: str
    service: str
    running: Running


class Driver(Protocol):
    """Runs instances on this machine. Cancelling any wait leaves the instance as it is."""

    async def spawn(self, order: Order) -> Running:
        """
        Start the instance.

        Raises:
            CannotStart: Nothing was started.
        """

    def adopt(self, instance: Instance, status: Status) -> Running | None:
        """The run that ``status`` speaks of, or ``None`` if that very process is gone."""

    def orphans(self, known: Collection[int]) -> list[Orphan]:
        """
        What this node started and never wrote down, beside those whose pid is ``known``; oldest first.

        It may be what a run has itself started: one of the same generation as an older one of its instance.
        """

    def take(self, orphan: Orphan) -> Running | None:
        """Adopt an orphan; ``None`` if it has ended meanwhile."""

    def signal(self, running: Running, name: str) -> None:
        """Ask the instance to stop by the signal ``name``; one that is gone is no error."""

    def kill(self, running: Running) -> None:
        """End the instance and all it started, at once; one that is gone is no error."""

    async def ended(self, running: Running) -> Ended:
        """
        Wait until the instance has ended.

        After :meth:`signal` this includes what it started, which is asked to stop as well; otherwise what
        the instance left behind is killed.
        """

    def clean(self) -> None:
        """Remove what earlier runs left on the machine; called once, when all that runs is adopted."""

    def address(self, running: Running, host: str) -> str | None:
        """Where the instance answers, as "host:port"; ``None`` if it has no port."""

    def forget(self, application: str, service: str, instance: str) -> None:
        """Remove what was kept for an instance that will not run again."""

    async def close(self) -> None:
        """Let go of all handles; every instance goes on."""
