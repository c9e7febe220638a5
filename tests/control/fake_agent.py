"""
An agent for simulations: it obeys goals and walks through the phases of a life, in virtual time.

What a process does is its command's first word:

========  ==========================================================
good      starts within a second and serves until it is stopped
late      the same, after 20 s
crash     ends with 1 before it was ready
hang      starts and never becomes ready
sick      becomes ready, and unhealthy a few seconds later
once      ends with 0
fail      ends with 1 (a release command)
========  ==========================================================
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from tests.control.memory_store import MemoryStore, run
from unisono.control.records import (
    Goal,
    Instance,
    Phase,
    Revision,
    Status,
    decode,
    encode,
    revision_key,
    status_key,
)
from unisono.store.base import Put

WITH_PROCESS = frozenset({Phase.STARTING, Phase.READY, Phase.UNHEALTHY, Phase.DRAINING, Phase.STOPPING})


@dataclass(frozen=True)
class _Due:
    at: float
    phase: Phase
    exit_code: int | None = None


class FakeAgent:
    """One node's instances; :meth:`look` and :meth:`work` are called by the simulation."""

    def __init__(self, store: MemoryStore, rng: random.Random) -> None:
        self._store = store
        self._rng = rng
        self._read = 0
        self.instances: dict[tuple[str, str, str], Instance] = {}
        self.statuses: dict[tuple[str, str, str], Status] = {}
        self._due: dict[tuple[str, str, str], _Due] = {}

    def look(self, now: float) -> None:
        """See what is wanted by now."""
        for batch in self._store.log[self._read :]:
            for event in batch.events:
                kind, *rest = event.key.split("/")
                if kind != "instance":
                    continue
                key = (rest[0], rest[1], rest[2])
                if event.entry is None:
                    assert self.phase(key) not in WITH_PROCESS, f"{key} was forgotten while it runs"
                    for known in (self.instances, self.statuses, self._due):
                        known.pop(key, None)
                else:
                    old = self.instances.get(key)
                    self.instances[key] = decode(Instance, event.entry.value)
                    if old is None or old.goal is not self.instances[key].goal:
                        self._react(key, now)
        self._read = len(self._store.log)

    def restart(self, now: float) -> None:
        """The node was restarted: instances live on, what it had in mind is worked out anew."""
        self._due.clear()
        for key in self.instances:
            self._react(key, now)

    def next_due(self) -> float | None:
        """When something happens next."""
        return min((due.at for due in self._due.values()), default=None)

    def work(self, now: float) -> None:
        """Do what is due first, if its time has come."""
        key = min(self._due, key=lambda k: (self._due[k].at, k), default=None)
        if key is None or self._due[key].at > now:
            return
        due = self._due.pop(key)
        if due.phase in (Phase.COMPLETED, Phase.FAILED):
            self._end(key, due.exit_code or 0, now)
        else:
            self._enter(key, due.phase, now)

    def phase(self, key: tuple[str, str, str]) -> Phase:
        """Where an instance is."""
        status = self.statuses.get(key)
        return status.phase if status else Phase.PENDING

    def crash(self, key: tuple[str, str, str], now: float) -> None:
        """Its process is killed from outside."""
        if self.phase(key) in WITH_PROCESS:
            self._due.pop(key, None)
            self._end(key, -9, now)

    def sicken(self, key: tuple[str, str, str], now: float) -> None:
        """It fails its health check from now on, until it recovers or is replaced."""
        if self.phase(key) is Phase.READY and self.instances[key].goal is Goal.RUN:
            self._enter(key, Phase.UNHEALTHY, now)

    def recover(self, key: tuple[str, str, str], now: float) -> None:
        """Its health check succeeds again."""
        if self.phase(key) is Phase.UNHEALTHY and self.instances[key].goal is Goal.RUN:
            self._enter(key, Phase.READY, now)

    def _react(self, key: tuple[str, str, str], now: float) -> None:
        phase, goal = self.phase(key), self.instances[key].goal
        if goal is not Goal.RUN:
            has_process = phase in WITH_PROCESS
            first = Phase.STOPPED
            if has_process and phase is not Phase.STOPPING:
                first = (
                    Phase.DRAINING if goal is Goal.STOP and phase is not Phase.DRAINING else Phase.STOPPING
                )
            self._plan(key, first, now, 0.1)
        elif phase is Phase.PENDING:
            self._plan(key, Phase.STARTING, now, 0.5)
        elif phase is Phase.BACKOFF:
            self._plan(key, Phase.STARTING, now, 5.0)
        elif phase in (Phase.STARTING, Phase.READY):
            self._follow(key, phase, now)

    def _plan(
        self, key: tuple[str, str, str], phase: Phase, now: float, within: float, code: int = 0
    ) -> None:
        self._due[key] = _Due(now + self._rng.uniform(0.0, within), phase, code)

    def _enter(self, key: tuple[str, str, str], phase: Phase, now: float) -> None:
        old = self.statuses.get(key) or Status(phase=Phase.PENDING, since=now)
        status = replace(old, phase=phase, since=now, reason="")
        if phase is Phase.STARTING:
            restarts = old.restarts + (1 if old.generation else 0)
            status = replace(status, generation=old.generation + 1, restarts=restarts)
        if phase is Phase.READY and old.phase is Phase.STARTING:
            status = replace(status, ready_at=now)
        self._write(key, status)
        self._follow(key, phase, now)

    def _follow(self, key: tuple[str, str, str], phase: Phase, now: float) -> None:
        """What comes after a phase, if nobody interferes."""
        behaviour = self._behaviour(key)
        match phase, behaviour:
            case (Phase.STARTING, "crash" | "fail"):
                self._plan(key, Phase.FAILED, now, 1.0, code=1)
            case (Phase.STARTING, "once"):
                self._plan(key, Phase.COMPLETED, now, 1.0)
            case (Phase.STARTING, "late"):
                self._due[key] = _Due(now + 20.0, Phase.READY)
            case (Phase.STARTING, "good" | "sick"):
                self._plan(key, Phase.READY, now, 1.0)
            case (Phase.READY, "sick"):
                self._plan(key, Phase.UNHEALTHY, now, 8.0)
            case (Phase.DRAINING, _):
                self._plan(key, Phase.STOPPING, now, 3.0)
            case (Phase.STOPPING, _):
                self._plan(key, Phase.STOPPED, now, 1.0)

    def _end(self, key: tuple[str, str, str], code: int, now: float) -> None:
        instance, old = self.instances[key], self.statuses[key]
        status = replace(old, since=now, exit_code=code, reason=f"ended with {code}")
        if instance.goal is not Goal.RUN:
            self._write(key, replace(status, phase=Phase.STOPPED))
        elif code == 0:
            self._write(key, replace(status, phase=Phase.COMPLETED))
        elif instance.job:
            self._write(key, replace(status, phase=Phase.FAILED))
        else:
            self._write(key, replace(status, phase=Phase.BACKOFF, failures=old.failures + 1))
            self._due[key] = _Due(now + min(30.0, 0.1 * 2**old.failures), Phase.STARTING)

    def _behaviour(self, key: tuple[str, str, str]) -> str:
        instance = self.instances[key]
        if instance.command:
            return instance.command[0]
        entry = self._store.entries[revision_key(key[0], key[1], instance.revision)]
        return decode(Revision, entry.value).spec.command[0]

    def _write(self, key: tuple[str, str, str], status: Status) -> None:
        self.statuses[key] = status
        put = Put(key=status_key(*key), value=encode(status))
        run(self._store.transact(success=(put,)))
