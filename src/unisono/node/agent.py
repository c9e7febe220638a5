"""
The agent of a node: sees to it that the node's instances do what the store says they should.

It watches the store, gives each instance of its node an actor, and takes over what an earlier agent left
running. It decides nothing: what should run is the controller's, what of that is this node's is
:mod:`unisono.node.wanted`'s, how one instance lives is :mod:`unisono.node.lifecycle`'s.

Cancelling the agent ends nothing but the agent: every instance, and the log process, go on.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any

from unisono import __version__
from unisono.control.records import (
    ELSEWHERE,
    Goal,
    Instance,
    NodeRecord,
    Phase,
    Status,
    node_key,
    status_key,
)
from unisono.gateway.link import GatewayEvent
from unisono.gateway.table import AccessLog
from unisono.node import logs, messages, processes
from unisono.node.actor import Actor, House
from unisono.node.drivers.base import Driver, Orphan, Running
from unisono.node.drivers.process import ProcessDriver
from unisono.node.hearing import Hearing
from unisono.node.life import Life, Stage
from unisono.node.lifecycle import adopted
from unisono.node.listening import ListenWatch
from unisono.node.logkeeper import LogKeeper
from unisono.node.paths import StateFolder
from unisono.node.pipes import Pipes
from unisono.node.ports import FIRST_PORT, LAST_PORT, Ports
from unisono.node.reports import Reports
from unisono.node.routing import GatewayControl, Routing
from unisono.node.wanted import (
    InstanceGone,
    InstancePut,
    Key,
    Name,
    ServiceChanged,
    ServiceGone,
    Wanted,
)
from unisono.spec.model import ServiceSpec
from unisono.store.base import Broken, Compacted, Event, NotDone, Store, StoreError

_log = logging.getLogger(__name__)

_COMING = frozenset({Stage.SPAWNING, Stage.STARTING, Stage.READY})
_FLUSH_SECONDS_MAX = 5.0
_RETRY_SECONDS = 0.5


class Agent:
    """
    Runs the instances of one node.

    ``ready`` is set once everything that ran before has been found again and the first table is on its
    way to the gateway.
    """

    def __init__(
        self,
        store: Store,
        node_id: str,
        folder: StateFolder,
        gateway: GatewayControl,
        public_address: str,
        *,
        access_log: AccessLog | None = None,
        clock: Callable[[], float] = time.time,
        rng: random.Random | None = None,
    ) -> None:
        """
        ``public_address`` is where the gateway answers for routes, such as "127.0.0.1:8080".

        The folder must be prepared and its lock held.
        """
        self.ready = asyncio.Event()
        self._store = store
        self._node_id = node_id
        self._folder = folder
        self._clock = clock
        self._rng = rng or random.Random()
        self._reports = Reports(store, clock)
        self.routing = Routing(gateway, public_address, access_log=access_log, tell=self._reports.tell)
        self._pipes = Pipes(folder)
        self._listen = ListenWatch()
        # From anywhere in the range: two nodes that start on one machine would else reach for the same ports
        # at the same time, and what was found free by both is used by one.
        ports = Ports(start=self._rng.randint(FIRST_PORT, LAST_PORT))
        self._driver: Driver = ProcessDriver(node_id, folder, ports, self._pipes)
        self._hearing = Hearing(gateway, heed=self._heed, tell=self._tell_of, clock=clock)
        self._log_keeper = LogKeeper(
            folder, tell=lambda message: self._reports.tell("logger-restarted", message)
        )
        self._actors: dict[Key, Actor] = {}
        self._wanted = Wanted(store, node_id)
        self._tasks: asyncio.TaskGroup | None = None
        self._house = House(
            folder=folder,
            driver=self._driver,
            pipes=self._pipes,
            listen=self._listen,
            routing=self.routing,
            reports=self._reports,
            log_rests=self._log_keeper.rests,
            clock=clock,
            rng=self._rng,
            start=self._start,
            links=self._wanted.links,
            alone=self._alone,
            moved=self._moved,
        )

    async def run(self) -> None:
        """
        Until cancelled.

        Raises:
            StoreError: The store can't be read any more.
        """
        try:
            async with asyncio.TaskGroup() as self._tasks:
                self._start(self._reports.run(), "reports")
                self._start(self._log_keeper.run(), "log-keeper")
                self._start(self.routing.run(), "routing")
                self._start(self._hearing.run(), "hearing")
                await self._follow(await self._take_over())
        finally:
            await self._close()

    def tell(self, kind: str, message: str) -> None:
        """Write down a happening of the node as a whole."""
        self._reports.tell(kind, message)

    async def end_logging(self) -> None:
        """End the log process, which else lives on; for when nothing is left to run."""
        await self._log_keeper.stop()

    def _heed(self, event: GatewayEvent) -> None:
        application, _, service = event.service.partition("/")
        actor = self._actors.get((application, service, event.instance or ""))
        if actor is not None:
            actor.hear(event)

    def _tell_of(self, kind: str, event: GatewayEvent) -> None:
        application, _, service = event.service.partition("/")
        instance = self._wanted.instances.get((application, service, event.instance or ""))
        if instance is not None:
            self._reports.tell(kind, event.reason, instance)
        elif event.instance is None:
            self._reports.tell(kind, f"{event.service}: {event.reason}")

    async def _close(self) -> None:
        await self._driver.close()
        await self._listen.close()
        self._pipes.close()
        with suppress(StoreError, TimeoutError):  # the next agent finds out by itself what it says
            async with asyncio.timeout(_FLUSH_SECONDS_MAX):
                await self._reports.flush()

    def _start(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        if self._tasks is None:
            work.close()
            raise RuntimeError("the agent does not run")
        return self._tasks.create_task(work, name=name)

    # Taking over what an earlier agent left.

    async def _take_over(self) -> int:
        """Adopt all that runs, restart what should and does not; the revision that this was seen at."""
        revision, statuses = await self._load()
        record = NodeRecord(
            id=self._node_id, host=socket.gethostname(), version=__version__, started_at=self._clock()
        )
        self._reports.put(node_key(self._node_id), record)
        found = {key: self._adopt(key, status) for key, status in statuses.items()}
        running = {key: process for key, process in found.items() if process is not None}
        for orphan in self._driver.orphans({process.pid for process in running.values()}):
            await self._take_orphan(orphan, running, statuses)
        hosts = await self._listen.hosts([p.port for p in running.values() if p.port is not None])
        for key in [*self._wanted.instances, *(key for key in running if key not in self._wanted.instances)]:
            self._take_up(key, statuses.get(key), running.get(key), hosts)
        for key in statuses.keys() - self._wanted.instances.keys() - running.keys():
            self._reports.remove(status_key(*key))
        self._driver.clean()
        self._pipes.keep_only(self._wanted.instances.keys() | running.keys())
        self.routing.open()
        self.ready.set()
        return revision

    async def _load(self) -> tuple[int, dict[Key, Status]]:
        """Read what is wanted, and route by it; see :meth:`Wanted.load`."""
        found = await self._wanted.load()
        for name in self._wanted.services:
            self._route(name)
        return found

    def _adopt(self, key: Key, status: Status) -> Running | None:
        return self._driver.adopt(self._wanted.instances.get(key) or _stub(key, self._node_id), status)

    async def _take_orphan(
        self, orphan: Orphan, running: dict[Key, Running], statuses: dict[Key, Status]
    ) -> None:
        """Adopt what was started and never written down; end it if it is not wanted."""
        key = (orphan.application, orphan.service, orphan.running.instance)
        known = running.get(key)
        if known is not None and known.generation == orphan.running.generation:
            return  # the marks are inherited: a process of that run with a session of its own
        taken = self._driver.take(orphan)
        if taken is None:
            return
        last = statuses.get(key)
        wanted = key in self._wanted.instances and self._wanted.instances[key].goal is Goal.RUN
        if wanted and key not in running and (last is None or taken.generation > last.generation):
            running[key] = taken
            statuses[key] = Status(
                phase=Phase.STARTING,
                since=self._clock(),
                generation=taken.generation,
                restarts=last.restarts if last else 0,
                failures=last.failures if last else 0,
            )
        else:
            _log.warning("process %d of instance %s is not wanted: killed", taken.pid, taken.instance)
            self._driver.kill(taken)
            self._start(self._see_off(taken), f"{taken.instance}: orphan")

    async def _see_off(self, running: Running) -> None:
        await self._driver.ended(running)

    def _take_up(
        self, key: Key, status: Status | None, running: Running | None, hosts: Mapping[int, str]
    ) -> None:
        instance = self._wanted.instances.get(key)
        gone = instance is None
        if instance is None:
            instance = _stub(key, self._node_id)
        if status is None:
            self._create(key, instance)
            return
        spec = self._wanted.spec_of(instance)
        if spec is None and gone:
            routed = self.routing.service(*key[:2])  # what its siblings live by is the best that is known
            spec = routed.spec if routed else ServiceSpec(name=instance.service)
        if spec is None:
            self._report_no_revision(instance)
            return
        actor = Actor(self._house, instance, spec, gone=gone)
        life, instructions = adopted(status, running, processes.boot_id(), instance.goal, actor.context)
        self._actors[key] = actor
        actor.begin(life, instructions, hosts.get((running and running.port) or 0, "127.0.0.1"))
        if running is not None:
            self._reports.tell("instance-adopted", f"process {running.pid}", instance)
        self._start(self._live(key, actor), instance.id)

    # Following the store.

    async def _follow(self, revision: int) -> None:
        while True:
            try:
                async for batch in self._store.watch("", after=revision, without=ELSEWHERE):
                    revision = batch.revision
                    for event in batch.events:
                        self._apply(event)
                raise Broken("the store was closed while the agent still followed it")
            except Compacted:
                revision = await self._catch_up()

    async def _catch_up(self) -> int:
        """The watch has lost its place: compare everything. A store that is away meanwhile is waited for."""
        before = dict(self._wanted.instances)
        services_before = self._wanted.services
        while True:
            try:
                revision, _ = await self._load()
                break
            except NotDone as error:
                _log.warning("the store can't be read anew, trying again: %s", error)
                await asyncio.sleep(_RETRY_SECONDS)
        for name in set(services_before) - set(self._wanted.services):
            self.routing.remove_service(*name)
        for key in before.keys() - self._wanted.instances.keys():
            self._instance_gone(key, before[key])
        for key, instance in self._wanted.instances.items():
            self._instance_put(key, instance)
        return revision

    def _apply(self, event: Event) -> None:
        match self._wanted.take(event):
            case InstancePut(key):
                self._instance_put(key, self._wanted.instances[key])
            case InstanceGone(key, last):
                self._instance_gone(key, last)
            case ServiceChanged(name):
                self._service_changed(name)
            case ServiceGone(name):
                self.routing.remove_service(*name)

    def _instance_put(self, key: Key, instance: Instance) -> None:
        actor = self._actors.get(key)
        if actor is None:
            self._create(key, instance)
        else:
            actor.aim(instance, self._wanted.spec_of(instance) or actor.spec)

    def _instance_gone(self, key: Key, instance: Instance) -> None:
        if actor := self._actors.get(key):
            # Its process must end, however its record went; the goodbye is the usual one.
            goal = Goal.STOP if actor.instance.goal is Goal.RUN else actor.instance.goal
            stub = _stub(key, self._node_id, goal)
            actor.aim(stub, actor.spec, gone=True)

    def _service_changed(self, name: Name) -> None:
        """A new spec with the digest of the old one takes effect on running instances; so does a late one."""
        self._route(name)
        for key in self._wanted.of_service(name):
            instance, actor = self._wanted.instances[key], self._actors.get(key)
            if actor is None:
                self._create(key, instance)
            elif spec := self._wanted.spec_of(instance):
                actor.spec = spec

    def _create(self, key: Key, instance: Instance) -> None:
        spec = self._wanted.spec_of(instance)
        if spec is None:
            self._report_no_revision(instance)
            return
        actor = Actor(self._house, instance, spec)
        self._actors[key] = actor
        actor.begin(Life(since=self._clock()), [])
        actor.post(messages.GoalChanged(goal=instance.goal))
        self._start(self._live(key, actor), instance.id)

    def _report_no_revision(self, instance: Instance) -> None:
        reason = f"revision {instance.revision} of its service is not in the store"
        status = Status(phase=Phase.PENDING, since=self._clock(), reason=reason)
        self._reports.status(instance, status)

    async def _live(self, key: Key, actor: Actor) -> None:
        """An actor's whole life, and what is to be tidied up after it."""
        await actor.run()
        if self._actors.get(key) is actor:
            del self._actors[key]
            self._reports.remove(status_key(*key))
        self._driver.forget(*key)
        application, service, _ = key
        living = {id for (app, name, id) in self._actors if (app, name) == (application, service)}
        logs.prune(self._folder.logs, application, service, living)

    # What actors ask.

    def _route(self, name: Name) -> None:
        if routed := self._wanted.routed(name):
            self.routing.set_service(routed)

    def _alone(self, instance: Instance) -> bool:
        return not any(
            actor.life.stage in _COMING
            for key, actor in self._actors.items()
            if key[:2] == (instance.application, instance.service) and key[2] != instance.id
        )

    def _moved(self, actor: Actor, before: Stage) -> None:
        """One that no longer serves may have left another alone."""
        if before not in _COMING or actor.life.stage in _COMING:
            return
        for key, other in self._actors.items():
            same = key[:2] == (actor.instance.application, actor.instance.service)
            waiting = other is not actor and other.life.stage is Stage.BACKOFF
            if same and waiting and self._alone(other.instance):
                other.post(messages.LeftAlone())


def _stub(key: Key, node_id: str, goal: Goal = Goal.STOP) -> Instance:
    """A record in place of one that is gone: it should stop."""
    application, service, id = key
    return Instance(application=application, service=service, id=id, revision=0, node=node_id, goal=goal)
