"""
One instance in the flesh: brings events to its machine and carries out what the machine asks for.

Each actor has one inbox and takes one event at a time, so nothing in an instance's life happens at the
same time as anything else in it. Decisions are :mod:`unisono.node.lifecycle`'s; which instances there are
is :mod:`unisono.node.agent`'s.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

from unisono.control.records import Goal, Instance, Phase, Status
from unisono.gateway.link import GatewayEvent
from unisono.gateway.table import Target
from unisono.node import logs, messages, probes, processes
from unisono.node.drivers.base import CannotStart, Driver, Order, Running
from unisono.node.life import Context, Life, Stage, status_of
from unisono.node.lifecycle import step
from unisono.node.listening import ListenWatch
from unisono.node.paths import StateFolder
from unisono.node.pipes import Pipes
from unisono.node.reports import Reports
from unisono.node.routing import Routing
from unisono.spec.model import ServiceSpec

_log = logging.getLogger(__name__)

_LOOPBACK = "127.0.0.1"
_ELSEWHERE_SECONDS = 3.0  # after which one that does not listen is asked where it listens instead
_FOREIGN_SECONDS = 0.05  # between two looks whether another program has left the port
_WORDS_SECONDS_MAX = 5.0  # longest wait for the log process to have written an instance's last words
_WORDS_LOOK_SECONDS = 0.02
_WORDS_CHARACTERS_MAX = 500


@dataclass(frozen=True, kw_only=True)
class House:
    """What all actors of a node share."""

    folder: StateFolder
    driver: Driver
    pipes: Pipes
    listen: ListenWatch
    routing: Routing
    reports: Reports
    log_rests: Callable[[], bool]  # what the log process has read it has written, too
    clock: Callable[[], float]  # seconds since the epoch
    rng: Random
    start: Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None]]  # a task that the agent owns
    links: Callable[[str, ServiceSpec], Mapping[str, str]]  # environment for an application's service
    alone: Callable[[Instance], bool]  # no other instance of its service is up or coming
    moved: Callable[[Actor, Stage], None]  # called after a change of stage, with the one before


class Actor:
    """The life of one instance on this node."""

    def __init__(self, house: House, instance: Instance, spec: ServiceSpec, *, gone: bool = False) -> None:
        """``gone``: its record has been removed; once stopped, nothing of it is to be left."""
        self.instance = instance
        self.spec = spec
        self.gone = gone
        self.life = Life(goal=instance.goal)
        self._house = house
        self._host = _LOOPBACK
        self._inbox: asyncio.Queue[messages.Event] = asyncio.Queue()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._reported: Status | None = None
        self._broken = False
        self._asking: int | None = None  # the run that a probe asks now, or is about to
        self._performers: dict[type, Callable[[Any], None]] = {
            messages.Spawn: self._do_spawn,
            messages.AwaitListening: self._do_await_listening,
            messages.Probe: self._do_probe,
            messages.StopProbing: self._do_stop_probing,
            messages.Publish: self._do_publish,
            messages.Withdraw: self._do_withdraw,
            messages.Drain: self._do_drain,
            messages.Signal: self._do_signal,
            messages.Kill: self._do_kill,
            messages.SetTimer: self._do_set_timer,
            messages.Tell: self._do_tell,
        }

    @property
    def service(self) -> str:
        """Its service's name in the routing table."""
        return f"{self.instance.application}/{self.instance.service}"

    @property
    def context(self) -> Context:
        """What the machine may know at this moment."""
        return Context(now=self._house.clock(), rng=self._house.rng, spec=self.spec, job=self.instance.job)

    def begin(self, life: Life, instructions: list[messages.Instruction], host: str = _LOOPBACK) -> None:
        """
        Take up a life, at once: on return the routing table knows of it.

        ``host`` is where its process listens, if it has one.
        """
        self._host = host
        if life.running is not None:
            self._start("exit", self._await_exit(life.running))
        self._move(life, instructions)

    def aim(self, instance: Instance, spec: ServiceSpec, *, gone: bool = False) -> None:
        """Follow what the instance should do from now on; ``gone`` as in the constructor."""
        self.instance, self.spec, self.gone = instance, spec, gone
        if self._broken:
            self._report_broken("given up after a fault in unisono")
        self.post(messages.GoalChanged(goal=instance.goal))

    def post(self, event: messages.Event) -> None:
        """Put an event into the inbox."""
        self._inbox.put_nowait(event)

    def hear(self, event: GatewayEvent) -> None:
        """Take note of what the gateway tells of this instance; an earlier run's is not meant."""
        if event.generation != self.life.generation:
            return
        if event.kind == "target-returned":
            self.post(messages.Returned(generation=event.generation))
        elif event.kind in ("target-suspect", "target-ejected"):
            ejected = event.kind == "target-ejected"
            word = messages.Suspected(generation=event.generation, reason=event.reason, ejected=ejected)
            self.post(word)

    async def run(self) -> None:
        """Live, until stopped and gone. Cancelling leaves the process as it is."""
        try:
            while not (self.gone and (self._broken or self.life.stage is Stage.STOPPED)):
                event = await self._inbox.get()
                if self._broken:
                    continue  # nothing is done any more, but to go when all is gone
                self._take(event)
        finally:
            self._cancel(*list(self._tasks))
            if self._timer is not None:
                self._timer.cancel()

    def _take(self, event: messages.Event) -> None:
        try:
            life, instructions = step(self.life, event, self.context)
            self._move(life, instructions)
        except Exception as error:  # a fault of ours must not take the other instances along
            self._break(error)

    def _move(self, life: Life, instructions: list[messages.Instruction]) -> None:
        before, self.life = self.life.stage, life
        for instruction in instructions:
            self._perform(instruction)
        status = status_of(life, processes.boot_id())
        if status != self._reported:
            self._reported = status
            self._house.reports.status(self.instance, status)
        if before is not life.stage:
            self._house.moved(self, before)

    def _perform(self, instruction: messages.Instruction) -> None:
        self._performers[type(instruction)](instruction)

    def _do_spawn(self, instruction: messages.Spawn) -> None:
        self._start("spawn", self._spawn(instruction.generation))

    def _do_await_listening(self, instruction: messages.AwaitListening) -> None:
        self._start("listen", self._await_listening(instruction.generation))
        self._start("elsewhere", self._look_elsewhere(instruction.generation))

    def _do_probe(self, instruction: messages.Probe) -> None:
        is_now = not instruction.after
        if is_now and self._asking == instruction.generation and "probe" in self._tasks:
            return  # beginning it anew at each word of the gateway would let none come to its end
        self._asking = instruction.generation if is_now else None
        self._cancel("listen", "elsewhere")
        self._start("probe", self._probe(instruction.generation, instruction.after))

    def _do_stop_probing(self, _: messages.StopProbing) -> None:
        self._cancel("probe", "listen", "elsewhere")

    def _do_publish(self, instruction: messages.Publish) -> None:
        self._cancel("drain")
        self._publish(instruction.running)

    def _do_withdraw(self, _: messages.Withdraw) -> None:
        self._house.routing.withdraw(self.service, self.instance.id)

    def _do_drain(self, instruction: messages.Drain) -> None:
        self._house.routing.withdraw(self.service, self.instance.id)
        self._start("drain", self._drain(instruction))

    def _do_signal(self, instruction: messages.Signal) -> None:
        if self.life.running is not None:
            self._house.driver.signal(self.life.running, instruction.name)

    def _do_kill(self, _: messages.Kill) -> None:
        if self.life.running is not None:
            self._house.driver.kill(self.life.running)

    def _do_set_timer(self, instruction: messages.SetTimer) -> None:
        if self._timer is not None:
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(instruction.after, self.post, messages.Timer(token=instruction.token))

    def _do_tell(self, instruction: messages.Tell) -> None:
        if not instruction.last_words:
            self._house.reports.tell(instruction.kind, instruction.message, self.instance)
            return
        # What the run was is taken from the state now: the next run is about to take its place there.
        ended, since = self.life.ended_generation, self.life.spawned_at
        self._start(f"words-{ended}", self._tell_with_last_words(instruction, ended, since))

    def _publish(self, running: Running) -> None:
        address = self._house.driver.address(running, self._host)
        if address is None:
            return
        target = Target(
            id=self.instance.id,
            generation=running.generation,
            address=address,
            pid=running.pid,
            start_time=running.start_time,
            revision=str(self.instance.revision),
        )
        self._house.routing.publish(self.service, target)

    async def _spawn(self, generation: int) -> None:
        order = Order(
            instance=self.instance,
            spec=self.spec,
            generation=generation,
            links=self._house.links(self.instance.application, self.spec),
        )
        self._host = _LOOPBACK
        try:
            running = await self._house.driver.spawn(order)
        except CannotStart as error:
            self.post(messages.SpawnFailed(reason=str(error), alone=self._house.alone(self.instance)))
            return
        self.post(messages.Spawned(running=running))
        self._start("exit", self._await_exit(running))

    async def _await_exit(self, running: Running) -> None:
        end = await self._house.driver.ended(running)
        alone = self._house.alone(self.instance)
        self.post(
            messages.Exited(generation=running.generation, code=end.code, detail=end.detail, alone=alone)
        )

    async def _await_listening(self, generation: int) -> None:
        running = self.life.running
        if running is None or running.port is None:
            return
        listen = self._house.listen
        self._host = await listen.listening(running.port)
        # A program that took the port before the instance bound it would get the instance's requests.
        while not listen.is_theirs(running.port, processes.family(running.pid)):
            await asyncio.sleep(_FOREIGN_SECONDS)
            self._host = await listen.listening(running.port)
        self.post(messages.Listening(generation=generation))

    async def _look_elsewhere(self, generation: int) -> None:
        await asyncio.sleep(_ELSEWHERE_SECONDS)
        running = self.life.running
        if running is None:
            return
        ports = self._house.listen.ports_of(processes.family(running.pid))
        if ports:
            self.post(messages.ListensElsewhere(generation=generation, ports=tuple(ports)))

    async def _probe(self, generation: int, after: float) -> None:
        if after:
            await asyncio.sleep(after)
        running = self.life.running
        if running is None or running.generation != generation:
            return
        self._asking = generation
        try:
            await self._ask(running)
        finally:
            self._asking = None

    async def _ask(self, running: Running) -> None:
        address = self._house.driver.address(running, self._host)
        has_command = self.spec.healthcheck.kind == "command"
        links = self._house.links(self.instance.application, self.spec) if has_command else {}
        while True:
            try:
                await probes.probe(self.spec, address, port=running.port, links=links)
            except probes.Inconclusive:
                continue
            except probes.Ill as error:
                self.post(messages.ProbeFailed(generation=running.generation, reason=str(error)))
            else:
                self.post(messages.ProbeOk(generation=running.generation))
            return

    async def _drain(self, order: messages.Drain) -> None:
        await self._house.routing.confirmed()
        left = await self._house.routing.drained(self.instance.id, order.generation, order.timeout)
        self.post(messages.Drained(token=order.token, in_flight=left))

    async def _tell_with_last_words(self, instruction: messages.Tell, ended: int, since: float) -> None:
        instance, message = self.instance, instruction.message
        where = (instance.application, instance.service, instance.id)
        deadline = asyncio.get_running_loop().time() + _WORDS_SECONDS_MAX
        # The log process tells nobody what it has read; this happens once per end of an instance.
        while self._house.pipes.unread(*where) or not self._house.log_rests():
            if asyncio.get_running_loop().time() >= deadline:
                break
            await asyncio.sleep(_WORDS_LOOK_SECONDS)
        line = logs.last_line(self._house.folder.logs, *where, since=since)[:_WORDS_CHARACTERS_MAX]
        if line:
            message = f"{message}; last line: {line}"
            self.post(messages.LastWords(generation=ended, line=line))
        self._house.reports.tell(instruction.kind, message, instance)

    def _start(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        self._cancel(name)
        task = self._house.start(self._guarded(work), f"{self.instance.id}: {name}")
        self._tasks[name] = task

        def forget(done: asyncio.Task[None]) -> None:
            work.close()  # of a task that was cancelled before its first step it was never begun
            if self._tasks.get(name) is done:
                del self._tasks[name]

        task.add_done_callback(forget)

    def _cancel(self, *names: str) -> None:
        for name in names:
            if task := self._tasks.pop(name, None):
                task.cancel()

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as error:
            self._break(error)

    def _break(self, error: Exception) -> None:
        """Something here is wrong in a way nobody thought of: end the process, say so, touch nothing else."""
        _log.exception("instance %s can't be run any more", self.instance.id, exc_info=error)
        self._house.routing.withdraw(self.service, self.instance.id)
        if self.life.running is not None:
            self._house.driver.kill(self.life.running)
        reason = f"a fault in unisono: {error!r}; the log of the node has more"
        self._broken = True
        self._cancel(*(name for name in self._tasks if name != "exit"))
        self._report_broken(reason)
        self._house.reports.tell("instance-failed", reason, self.instance)

    def _report_broken(self, reason: str) -> None:
        status = Status(
            phase=Phase.FAILED if self.instance.goal is Goal.RUN else Phase.STOPPED,
            since=self._house.clock(),
            generation=self.life.generation,
            boot_id=processes.boot_id(),
            reason=reason,
        )
        self._house.reports.status(self.instance, status)
