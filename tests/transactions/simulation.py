"""
Coordinators, store, network, participants and initiators in one loop, in virtual time, all chance from a
seed.

Everything that the coordinator waits for goes through the ports here, and each passage is a *step*:
before a request to the store leaves, before its answer comes, before a call leaves, before its answer
comes. A schedule names steps at which the process that takes it is killed (and started again), or stopped
for longer than its lease lasts and let go on. What was sent stays sent: a killed process's writes and
calls still arrive. Store and network also fail by themselves: refuse, lose the question or the answer,
repeat, deliver much later.

What must hold is checked where it can be seen: by the participants when they are called, by the
initiators when they are told of an end, and by the whole world when all is over.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic_core import from_json

from tests.control.memory_store import MemoryStore
from tests.state.virtual import VirtualLoop
from unisono.store.base import (
    Batch,
    Compare,
    Delete,
    Entry,
    LeaseEnded,
    MaybeDone,
    NotDone,
    Outcome,
    Put,
    Snapshot,
    StoreError,
)
from unisono.transactions import records
from unisono.transactions.calls import Reply
from unisono.transactions.coordinator import Coordinator
from unisono.transactions.errors import Decided, Elsewhere, NotActive, TransactionError
from unisono.transactions.modes import OPERATIONS, Mode
from unisono.transactions.states import ABORT, COMMIT, FINAL
from unisono.transactions.submission import BranchSpec, Submission
from unisono.transactions.targets import Address

R = TypeVar("R")

CALM_AT = 40.0  # seconds after which nothing fails any more
END_AT = 400.0
EPOCH = 1_700_000_000.0
MONEY = 100


class Down(Exception):
    """The process asked is not there, or went while it was asked."""


class Disk(MemoryStore):
    """The store itself: survives everything. Leases end in virtual time."""

    def __init__(self) -> None:
        super().__init__()
        self._ends: dict[int, tuple[float, float]] = {}
        self._moved = asyncio.Event()

    async def grant(self, ttl: float) -> int:
        lease = await super().grant(ttl)
        self._ends[lease] = (ttl, _now() + ttl)
        return lease

    async def keep_alive(self, lease: int) -> None:
        self.expire()
        if lease not in self._ends:
            raise LeaseEnded(lease)
        ttl, _ = self._ends[lease]
        self._ends[lease] = (ttl, _now() + ttl)

    async def revoke(self, lease: int) -> None:
        self._ends.pop(lease, None)
        await super().revoke(lease)

    def expire(self) -> None:
        for lease in [lease for lease, (_, end) in self._ends.items() if end <= _now()]:
            del self._ends[lease]
            self._run([Delete(key=key) for key, entry in self.entries.items() if entry.lease == lease])

    async def transact(self, **operations: Any) -> Outcome:
        self.expire()
        for put in operations.get("success", ()):
            if isinstance(put, Put) and put.lease is not None and put.lease not in self._ends:
                raise LeaseEnded(put.lease)
        return await super().transact(**operations)

    def _run(self, operations: Sequence[Put | Delete]) -> None:
        super()._run(operations)
        self._moved.set()
        self._moved = asyncio.Event()

    async def watch(self, prefix: str, *, after: int, marks: bool = False) -> AsyncIterator[Batch]:
        while True:
            for batch in self.log[after:]:
                after = batch.revision
                events = tuple(e for e in batch.events if e.key.startswith(prefix))
                if events:
                    yield Batch(revision=batch.revision, events=events)
            moved = self._moved
            with suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await moved.wait()
            self.expire()

    def record(self, gid: str) -> records.Record | None:
        key = f"{records.ROOT}bank/{gid}"
        entry = self.entries.get(key)
        return None if entry is None else records.decode(key, entry.value)


class Process:
    """One life of a node's process, from its start to its end."""

    def __init__(self, world: World, node: str) -> None:
        self.world = world
        self.node = node
        self.dead = False
        self.died = asyncio.Event()
        self.going = asyncio.Event()
        self.going.set()
        self.coordinator = Coordinator(
            Wire(self),
            node,
            Net(self),
            world,
            stamp=world.tick,
            chance=world.chance,
            now=lambda: EPOCH + _now(),
        )
        self.task = asyncio.create_task(self.coordinator.run())

    async def passes(self) -> None:
        """One step: here it may be killed or stopped."""
        self.world.step(self)
        await self.lives()

    async def lives(self) -> None:
        """Go on, if there is still somebody to go on."""
        await self.going.wait()
        if self.dead:
            await asyncio.Event().wait()


class Wire:
    """A process's connection to the store."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._world = process.world
        self._disk = process.world.disk

    async def get(self, key: str) -> Entry | None:
        return await self._read(lambda: self._disk.get(key))

    async def scan(self, prefix: str, *, revision: int | None = None) -> Snapshot:
        return await self._read(lambda: self._disk.scan(prefix))

    async def transact(
        self,
        *,
        compares: Sequence[Compare] = (),
        success: Sequence[Put | Delete] = (),
        failure: Sequence[Put | Delete] = (),
    ) -> Outcome:
        return await self._write(
            lambda: self._disk.transact(compares=compares, success=success, failure=failure)
        )

    async def watch(self, prefix: str, *, after: int, marks: bool = False) -> AsyncIterator[Batch]:
        async for batch in self._disk.watch(prefix, after=after):
            await self._process.passes()
            yield batch

    async def grant(self, ttl: float) -> int:
        return await self._write(lambda: self._disk.grant(ttl))

    async def keep_alive(self, lease: int) -> None:
        await self._write(lambda: self._disk.keep_alive(lease))

    async def revoke(self, lease: int) -> None:
        await self._write(lambda: self._disk.revoke(lease))

    async def compact(self, revision: int) -> None:
        raise AssertionError("the coordinator does not compact")

    async def close(self) -> None:
        raise AssertionError("the coordinator does not close the store")

    async def _read(self, operation: Callable[[], Awaitable[R]]) -> R:
        await self._process.passes()
        await asyncio.sleep(self._world.delay())
        result = await operation()
        await self._process.passes()
        return result

    async def _write(self, operation: Callable[[], Awaitable[R]]) -> R:
        await self._process.passes()
        # What has left arrives, whatever becomes of the process: a task of the world's own.
        result = await asyncio.shield(self._world.spawn(self._carry(operation)))
        await self._process.passes()
        if isinstance(result, StoreError):
            raise result
        return result

    async def _carry(self, operation: Callable[[], Awaitable[R]]) -> R | StoreError:
        world = self._world
        fault = world.fault("refused", "lost", "unheard", "late")
        await asyncio.sleep(world.delay())
        if fault == "refused":
            return NotDone("refused")
        if fault == "late":
            await asyncio.sleep(world.chance.uniform(0, 8))
        if fault == "lost":
            return MaybeDone("the question was lost")
        try:
            result = await operation()
        except StoreError as error:
            return error
        await asyncio.sleep(world.delay())
        return MaybeDone("the answer was lost") if fault in ("unheard", "late") else result


class Net:
    """How a process's calls reach participants."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._world = process.world

    def call(self, address: Address, request: bytes, timeout: float, done: Callable[[Reply], None]) -> None:
        world, process = self._world, self._process
        world.step(process)
        if process.dead:
            return
        answered: list[bool] = []

        def end(reply: Reply) -> None:
            if not answered:
                answered.append(True)
                world.spawn(self._bring(done, reply))

        loop = asyncio.get_running_loop()
        loop.call_later(timeout, end, Reply(error="no answer"))
        fault = world.fault("lost", "unheard", "broken", "again", "late")
        if fault == "lost":
            return
        delay = world.chance.uniform(0, 20) if fault == "late" else world.delay()
        loop.call_later(delay, self._arrive, address, request, fault, end)
        if fault == "again":
            loop.call_later(world.chance.uniform(0, 20), self._arrive, address, request, "unheard", end)

    def _arrive(
        self, address: Address, request: bytes, fault: str | None, end: Callable[[Reply], None]
    ) -> None:
        if fault == "broken":
            end(Reply(500))
            return
        reply = self._world.bank.asked(self._process, address.path, request)
        if fault != "unheard":
            asyncio.get_running_loop().call_later(self._world.delay(), end, reply)

    async def _bring(self, done: Callable[[Reply], None], reply: Reply) -> None:
        await self._process.passes()
        done(reply)


@dataclass
class Known:
    """What a participant knows of one branch."""

    state: str = "new"  # new, done, refused, finished, undone
    amount: int = 0
    effects: Counter[str] = field(default_factory=Counter)
    epoch: int = 0


class Bank:
    """All participants: accounts, and a fence as the contract asks for it."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.accounts = {"a": MONEY, "b": MONEY, "c": MONEY, "d": MONEY}
        self.entries: dict[tuple[str, str], Known] = {}
        self._epochs: dict[tuple[str, int], Process] = {}

    def asked(self, process: Process, path: str, request: bytes) -> Reply:
        head, _, body = request.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        gid, branch, op = (headers[f"Transaction-{name}"] for name in ("Id", "Branch", "Op"))
        epoch = int(headers["Transaction-Epoch"])
        owner = self._epochs.setdefault((gid, epoch), process)
        if owner is not process:
            self._world.violate(f"{gid}: two processes called with the epoch {epoch}")
        if op == "query_prepared":
            return Reply(200 if self._world.sent[gid] else 409)
        entry = self.entries.setdefault((gid, branch), Known())
        entry.amount = from_json(body)
        entry.epoch = max(entry.epoch, epoch)
        kind = _kind(Mode(headers["Transaction-Mode"]), op)
        self._check_log(gid, branch, kind)
        if epoch < entry.epoch:
            return Reply(409, body=b'{"code": "fenced"}')
        return getattr(self, f"_{kind}")(gid, branch, entry)

    def _forward(self, gid: str, branch: str, entry: Known) -> Reply:
        if entry.state == "new":
            for other in self._world.after(gid, branch):
                if self.entries.get((gid, other), Known()).state != "done":
                    self._world.violate(f"{gid}: {branch} went forward before {other}")
            if self.accounts[branch] + entry.amount < 0:
                entry.state = "refused"
            else:
                entry.state = "done"
                self._move(gid, branch, entry, "forward", entry.amount)
        return Reply(200 if entry.state in ("done", "finished") else 409)

    def _finish(self, gid: str, branch: str, entry: Known) -> Reply:
        if entry.state == "new" and OPERATIONS[self._world.mode(gid)].forward is None:
            entry.state = "done"
            self._move(gid, branch, entry, "forward", entry.amount)
        if entry.state == "done":
            entry.state = "finished"
        if entry.state != "finished":
            self._world.violate(f"{gid}: {branch} is to be finished, but is {entry.state}")
            return Reply(409)
        return Reply(200 if self._world.chance.random() < 0.9 else 410)

    def _undo(self, gid: str, branch: str, entry: Known) -> Reply:
        if entry.state == "finished":
            self._world.violate(f"{gid}: {branch} is to be undone, but is finished")
        if entry.state == "done":
            for other in self._world.before(gid, branch):
                if self.entries.get((gid, other), Known()).state == "done":
                    self._world.violate(f"{gid}: {branch} was undone before {other}")
            self._move(gid, branch, entry, "undo", -entry.amount)
        entry.state = "undone"
        return Reply(200)

    def _move(self, gid: str, branch: str, entry: Known, what: str, amount: int) -> None:
        entry.effects[what] += 1
        self.accounts[branch] += amount
        if entry.effects[what] > 1:
            self._world.violate(f"{gid}: {what} of {branch} happened {entry.effects[what]} times")

    def _check_log(self, gid: str, branch: str, kind: str) -> None:
        """Whatever is called was durable before: the transaction, the branch, the decision."""
        record = self._world.disk.record(gid)
        if record is None or branch not in {spec.id for spec in record.specs}:
            self._world.violate(f"{gid}: {branch} was called and is not in the log")
        elif kind == "finish" and record.status not in COMMIT:
            self._world.violate(f"{gid}: {branch} is to be finished, but the log says {record.status}")
        elif kind == "undo" and record.status not in ABORT:
            self._world.violate(f"{gid}: {branch} is to be undone, but the log says {record.status}")


class World:
    """All of it. ``crashes`` says at which steps the process that takes them is killed, or stopped."""

    def __init__(self, seed: int, *, crashes: dict[int, str] | None = None, plan: str | None = None) -> None:
        self.chance = random.Random(seed)
        self.crashes = self._schedule() if crashes is None else crashes
        self.faulty = 0.08 if crashes is None else 0.0
        self.steps = 0
        self.violations: list[str] = []
        self.disk = Disk()
        self.bank = Bank(self)
        self.sent: dict[str, bool] = {}  # messages: whether the initiator's local transaction committed
        self.told: dict[str, str] = {}
        self._specs: dict[str, list[dict[str, Any]]] = {}
        self._modes: dict[str, Mode] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._clock = 0
        self._plan = plan
        self.processes: dict[str, Process] = {}

    def _schedule(self) -> dict[int, str]:
        count = self.chance.choice([0, 1, 1, 2, 3])
        return {
            self.chance.randint(1, 140): self.chance.choice(["kill", "kill", "stop"]) for _ in range(count)
        }

    # The directory.

    def port_of(self, application: str, service: str) -> int | None:
        return 1

    def has_port(self, application: str, port: int) -> bool:
        return True

    def allows(self, application: str, url: str) -> bool:
        return False

    # What the ports ask.

    def tick(self) -> int:
        self._clock += 1
        return self._clock

    def delay(self) -> float:
        return self.chance.expovariate(200)

    def fault(self, *kinds: str) -> str | None:
        if _now() - self._began > CALM_AT or self.chance.random() >= self.faulty:
            return None
        return self.chance.choice(kinds)

    def spawn(self, work: Any) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def step(self, process: Process) -> None:
        if process.dead or not process.going.is_set():
            return
        self.steps += 1
        crash = self.crashes.get(self.steps)
        if crash == "kill":
            self._kill(process)
        elif crash == "stop":
            process.going.clear()
            asyncio.get_running_loop().call_later(self.chance.uniform(6, 12), process.going.set)

    def _kill(self, process: Process) -> None:
        process.dead = True
        process.died.set()
        process.task.cancel()
        asyncio.get_running_loop().call_later(self.chance.uniform(0.01, 8), self._start, process.node)

    def _start(self, node: str) -> None:
        self.processes[node] = Process(self, node)

    def violate(self, what: str) -> None:
        self.violations.append(f"at step {self.steps}: {what}")

    def after(self, gid: str, branch: str) -> list[str]:
        return next((s.get("after", []) for s in self._specs[gid] if s["id"] == branch), [])

    def before(self, gid: str, branch: str) -> list[str]:
        return [spec["id"] for spec in self._specs[gid] if branch in spec.get("after", [])]

    def mode(self, gid: str) -> Mode:
        return self._modes[gid]

    # What happens.

    async def run(self) -> None:
        """Until all is over; then :attr:`violations` has what did not hold."""
        self._began = _now()
        nodes = ["n1", "n2"] if self.chance.random() < 0.6 else ["n1"]
        for node in nodes:
            self._start(node)
        count = 1 if self._plan else self.chance.randint(1, 4)
        clients = [asyncio.create_task(self._client(f"t{n}", nodes)) for n in range(count)]
        try:
            async with asyncio.timeout(END_AT):
                await asyncio.gather(*clients)
                while self._open():  # noqa: ASYNC110 - in virtual time
                    await asyncio.sleep(1.0)
                await asyncio.sleep(30.0)  # late calls arrive
        except TimeoutError:
            left = [
                r.gid + " " + r.status
                for r in map(self.disk.record, self._specs)
                if r and r.status not in FINAL
            ]
            self.violate(f"not over after {END_AT:g} s: {left}")
        self._check_end()
        for task in [*clients, *self._tasks, *(p.task for p in self.processes.values())]:
            task.cancel()
        for process in self.processes.values():
            process.dead = True
        await asyncio.gather(*clients, *(p.task for p in self.processes.values()), return_exceptions=True)

    def _open(self) -> bool:
        """Whether a transaction is."""
        entries = self.disk.entries.items()
        return any(records.is_open(e.value) for key, e in entries if key.startswith(records.ROOT))

    def _check_end(self) -> None:
        for gid in self._specs:
            record = self.disk.record(gid)
            if record is None:
                if gid in self.told:
                    self.violate(f"{gid} was told to be {self.told[gid]}, and is not in the log")
                continue
            if self.told.get(gid, record.status) != record.status:
                self.violate(f"{gid} was told to be {self.told[gid]}, and is {record.status}")
            if record.mode is Mode.MSG and (record.status == "committed") != self.sent[gid]:
                self.violate(f"{gid} is {record.status}, but its initiator's own part says {self.sent[gid]}")
            if record.heuristic is not None:
                self.violate(f"{gid} is in doubt: {record.heuristic.reason}")
            for branch in record.specs:
                entry = self.bank.entries.get((gid, branch.id), Known())
                net = entry.effects["forward"] - entry.effects["undo"]
                right = 1 if record.status == "committed" else 0
                if net != right:
                    self.violate(f"{gid} is {record.status}, but {branch.id} happened {net} times")
        if sum(self.bank.accounts.values()) != 4 * MONEY:
            self.violate(f"money: {self.bank.accounts}")

    async def _client(self, gid: str, nodes: list[str]) -> None:
        """An initiator: asks until it is told the end, or gives up on one that never began."""
        await asyncio.sleep(self.chance.uniform(0, 2))
        mode = Mode(self._plan or self.chance.choice(list(Mode)))
        self._modes[gid] = mode
        specs = self._branches()
        self._specs[gid] = specs
        self.sent[gid] = self.chance.random() < 0.5
        given: dict[str, Any] = {
            "gid": gid,
            "mode": mode,
            "timeout_ms": self.chance.choice([800, 5000, 20_000]),
        }
        dynamic = mode is not Mode.MSG and self.chance.random() < 0.4
        if not dynamic:
            given["branches"] = specs
        if mode is Mode.MSG:
            given["query_prepared"] = "http://bank/ask"
        submission = Submission.of(given)
        await self._ask(nodes, lambda c: c.begin("bank", submission))
        whole = True
        for spec in specs if dynamic else ():
            whole = whole and await self._enrol(nodes, gid, spec)
        if dynamic or (mode is Mode.MSG and self.chance.random() < 0.6):
            commit = self.sent[gid] if mode is Mode.MSG else whole and self.chance.random() < 0.8
            # Some initiators die without a word: the deadline decides.
            if self.chance.random() < 0.85:
                asked = [self._ask(nodes, lambda c: c.decide("bank", gid, commit=commit, wait=5))]
                if mode is not Mode.MSG and self.chance.random() < 0.3:
                    # And some say the one thing and the other.
                    asked.append(self._ask(nodes, lambda c: c.decide("bank", gid, commit=not commit, wait=5)))
                await asyncio.gather(*asked)
        view = None
        while view is None or view["status"] not in FINAL:
            view = await self._ask(nodes, lambda c: c.get("bank", gid, wait=10))
            if view is None:
                return
        self.told[gid] = view["status"]

    async def _enrol(self, nodes: list[str], gid: str, spec: dict[str, Any]) -> bool:
        branch = BranchSpec.of(spec, "")
        return await self._ask(nodes, lambda c: c.enrol("bank", gid, branch, wait=5)) is not None

    async def _ask(self, nodes: list[str], question: Callable[[Coordinator], Awaitable[R]]) -> R | None:
        """Ask one node after the other, until there is a definite answer; ``None``: it was refused."""
        for attempt in range(400):
            node = nodes[attempt % len(nodes)]
            process = self.processes[node]
            asking = asyncio.ensure_future(question(process.coordinator))
            dying = asyncio.ensure_future(process.died.wait())
            try:
                await asyncio.wait((asking, dying), return_when=asyncio.FIRST_COMPLETED, timeout=20)
                if asking.done() and not process.dead:
                    return asking.result()
            except (Elsewhere, NotDone, MaybeDone):
                pass
            except (Decided, NotActive):
                return None
            except TransactionError:
                return None
            finally:
                for task in (asking, dying):
                    task.cancel()
                await asyncio.gather(asking, dying, return_exceptions=True)
            await asyncio.sleep(self.chance.uniform(0.05, 0.5))
        raise AssertionError("no node answered")

    def _branches(self) -> list[dict[str, Any]]:
        """Transfers between two to four accounts; some ask for more than there is."""
        ids = ["a", "b", "c", "d"][: self.chance.randint(2, 4)]
        amount = self.chance.choice([10, 10, 40, 150])
        amounts = [-amount, *[0] * (len(ids) - 2), amount]
        specs = []
        for n, (id, value) in enumerate(zip(ids, amounts, strict=True)):
            after = [other for other in ids[:n] if self.chance.random() < 0.3]
            specs.append({"id": id, "url": f"http://bank/{id}", "payload": value, "after": after})
        return specs


def play(seed: int, *, crashes: dict[int, str] | None = None, plan: str | None = None) -> World:
    """One schedule, from beginning to end."""
    loop = VirtualLoop()
    loop.set_exception_handler(lambda _, context: problems.append(str(context)))
    problems: list[str] = []

    async def run() -> World:
        world = World(seed, crashes=crashes, plan=plan)
        await world.run()
        return world

    try:
        world = loop.run_until_complete(run())
    finally:
        loop.run_until_complete(_drain())
        loop.run_until_complete(loop.shutdown_asyncgens())
        asyncio.set_event_loop(None)
        loop.close()
    world.violations += [f"the loop: {problem}" for problem in problems]
    return world


async def _drain() -> None:
    left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)


def _kind(mode: Mode, op: str) -> str:
    names = OPERATIONS[mode]
    return {names.forward: "forward", names.finish: "finish", names.undo: "undo"}[op]


def _now() -> float:
    return asyncio.get_running_loop().time()
