"""
Coordinators, store, network, participants and initiators in one loop, in virtual time, all chance from a
seed.

Everything that the coordinator waits for goes through :mod:`.ports`, and each passage is a *step*: before a
request to the store leaves, before its answer comes, before a call leaves, before its answer comes. A
schedule names steps at which the process that takes it is killed (and started again), or stopped for longer
than its lease lasts and let go on.

What must hold is checked where it can be seen: by the participants (:mod:`.bank`) when they are called, by
the initiators when they are told of an end, and by the whole world when all is over.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from tests.state.virtual import VirtualLoop, now
from tests.transactions.bank import MONEY, Bank, Book, Known
from tests.transactions.disk import Disk
from tests.transactions.ports import Process
from unisono.store.base import MaybeDone, NotDone
from unisono.transactions import records
from unisono.transactions.coordinator import Coordinator
from unisono.transactions.errors import Elsewhere, TransactionError
from unisono.transactions.modes import Mode
from unisono.transactions.states import FINAL
from unisono.transactions.submission import BranchSpec, Submission

R = TypeVar("R")

CALM_AT = 40.0  # seconds after which nothing fails any more
END_AT = 400.0


class World:
    """All of it. ``crashes`` says at which steps the process that takes them is killed, or stopped."""

    def __init__(self, seed: int, *, crashes: dict[int, str] | None = None, plan: str | None = None) -> None:
        self.chance = random.Random(seed)
        self.crashes = self._schedule() if crashes is None else crashes
        self.faulty = 0.08 if crashes is None else 0.0
        self.steps = 0
        self.violations: list[str] = []
        self.disk = Disk()
        self._book = Book()
        self.bank = Bank(self._book, self.disk, self.chance, self.violate)
        self.told: dict[str, str] = {}
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
        if now() - self._began > CALM_AT or self.chance.random() >= self.faulty:
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

    # What happens.

    async def run(self) -> None:
        """Until all is over; then :attr:`violations` has what did not hold."""
        self._began = now()
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
                for r in map(self.disk.record, self._book.specs)
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
        for gid in self._book.specs:
            record = self.disk.record(gid)
            if record is None:
                if gid in self.told:
                    self.violate(f"{gid} was told to be {self.told[gid]}, and is not in the log")
                continue
            if self.told.get(gid, record.status) != record.status:
                self.violate(f"{gid} was told to be {self.told[gid]}, and is {record.status}")
            if record.mode is Mode.MSG and (record.status == "committed") != self._book.sent[gid]:
                self.violate(
                    f"{gid} is {record.status}, but its initiator's own part says {self._book.sent[gid]}"
                )
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
        self._book.modes[gid] = mode
        specs = self._branches()
        self._book.specs[gid] = specs
        self._book.sent[gid] = self.chance.random() < 0.5
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
            commit = self._book.sent[gid] if mode is Mode.MSG else whole and self.chance.random() < 0.8
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
