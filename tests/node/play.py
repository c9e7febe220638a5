"""A life of an instance that a test plays through: events in, instructions out; time is a value."""

from __future__ import annotations

from random import Random
from typing import Any

from unisono.control.records import Goal
from unisono.node.drivers.base import Running
from unisono.node.life import Context, Life, Stage
from unisono.node.lifecycle import step
from unisono.node.messages import (
    Event,
    GoalChanged,
    Instruction,
    Listening,
    ProbeOk,
    Spawned,
    Tell,
)
from unisono.spec.model import HealthCheck, ServiceSpec

HTTP = HealthCheck(
    kind="http", path="/healthz", interval=1.0, retries=3, start_period=2.0, start_interval=0.05
)


def running(generation: int = 1, **changes: Any) -> Running:
    known = {"instance": "web-1", "generation": generation, "pid": 100 + generation, "start_time": 5}
    return Running(**{**known, "boot_id": "boot", "port": 21000, **changes})


class Play:
    """A life that is played through; time is a value."""

    def __init__(self, *, job: bool = False, life: Life | None = None, **spec: Any) -> None:
        self.now = 1000.0
        self.job = job
        self.spec = ServiceSpec(name="web", command=("server",), **spec)
        self.life = life or Life()

    def context(self) -> Context:
        return Context(now=self.now, rng=Random(1), spec=self.spec, job=self.job)

    def feed(self, *events: Event, after: float = 0.0) -> list[Instruction]:
        """Feed events, each ``after`` seconds later; the instructions of the last, without tales."""
        instructions: list[Instruction] = []
        for event in events:
            self.now += after
            self.life, instructions = step(self.life, event, self.context())
        return [i for i in instructions if not isinstance(i, Tell)]

    def to_ready(self) -> None:
        self.feed(GoalChanged(goal=Goal.RUN), Spawned(running=running()), Listening(generation=1))
        if self.life.stage is not Stage.READY:
            self.feed(ProbeOk(generation=1))
        assert self.life.stage is Stage.READY
