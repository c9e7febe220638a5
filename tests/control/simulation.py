"""
A whole control plane in virtual time: real commands and decisions, a fake agent, faults by chance.

:func:`simulate` plays one seed: some hundred steps with faults and commands at random, every state and
every decision checked (:mod:`tests.control.invariants`), then quiet, after which all must be as wanted.
A controller may be lost between any two writes of a decision, and may come back later with what it had
decided; commands come between deciding and writing.
"""

from __future__ import annotations

import random

from tests.control.fake_agent import FakeAgent
from tests.control.invariants import check_converged, check_decision, check_state
from tests.control.memory_store import MemoryStore, run
from unisono.control import commands
from unisono.control.decide import decide, next_deadline
from unisono.control.errors import CommandError
from unisono.control.leader import Fence, LeaderElection
from unisono.control.records import (
    Figures,
    Instance,
    NodeRecord,
    Phase,
    decode,
    encode,
    node_key,
)
from unisono.control.snapshot import Snapshot
from unisono.control.writing import Part, parts, seen_in
from unisono.spec.model import (
    ApplicationSpec,
    Condition,
    Dependency,
    ServiceSpec,
    UpdateConfig,
)
from unisono.spec.requests import Canary, Success
from unisono.store.base import Put

QUIET = 1000.0  # seconds after which all must have settled: several progress deadlines and backoffs
BEHAVIOURS = ("good", "good", "good", "good", "late", "crash", "hang", "sick")


class World:
    """Everything there is, moved on step by step."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.now = 1_000_000.0
        self.store = MemoryStore()
        self.agent = FakeAgent(self.store, self.rng)
        self.snapshot = Snapshot()
        self.fence = Fence(token=0, lease=0)
        self.deposed: list[tuple[Fence, list[Part], dict[str, int]]] = []
        self.figures: dict[tuple[str, str, int], Figures] = {}
        self._jobs: dict[tuple[str, str, int, int], str] = {}
        self._seen = 0
        node = NodeRecord(id="here", host="here", version="0", started_at=self.now)
        run(self.store.transact(success=(Put(key=node_key("here"), value=encode(node)),)))
        self.elect()

    # --- steps ---

    def elect(self) -> None:
        """Another controller takes over, knowing nothing but what the store holds."""
        election = LeaderElection(self.store, "here", clock=lambda: self.now)
        self.fence = run(election.acquire())
        self.snapshot = Snapshot.of(run(self.store.scan("")))

    def control(self, *, faulty: bool) -> bool:
        """One turn of the controller; whether it had anything to do."""
        self._catch_up()
        in_flight = {key[2]: self.rng.randrange(4) for key in self.agent.instances}
        self.snapshot = self.snapshot.at(self.now, in_flight, self.figures)
        actions = decide(self.snapshot, self.rng)
        check_decision(self.snapshot, actions)
        limit = self.rng.choice((3, 6, 1024)) if faulty else 1024  # 3: one action, its record, the fence
        todo = list(parts(actions, operations_max=limit))
        seen = seen_in(self.snapshot)
        if faulty and self.rng.random() < 0.1:
            self.command()
        while todo:
            if faulty and self.rng.random() < 0.03:
                self.deposed.append((self.fence, todo, seen))
                self.elect()
                break
            part = todo.pop(0)
            outcome = run(self.store.transact(compares=part.compares(self.fence, seen), success=part.writes))
            if not outcome.succeeded:
                break
            seen.update(dict.fromkeys(part.changes, outcome.revision))
        return bool(actions)

    def haunt(self) -> None:
        """A deposed controller comes back and writes what it had decided: nothing may come of it."""
        if not self.deposed:
            return
        fence, todo, seen = self.deposed.pop(self.rng.randrange(len(self.deposed)))
        for part in todo:
            before = self.store.revision
            outcome = run(self.store.transact(compares=part.compares(fence, seen), success=part.writes))
            assert not outcome.succeeded, "a deposed controller wrote"
            assert self.store.revision == before, "a refused write changed something"

    def pass_time(self) -> None:
        """To the next thing that happens, or a little."""
        due = self._next_time()
        if due is not None and self.rng.random() < 0.9:
            self.now = max(self.now, due)
        else:
            self.now += self.rng.uniform(0.0, 5.0)
        self.agent.look(self.now)
        self.agent.work(self.now)
        self.serve()

    def fault(self) -> None:
        """Something goes wrong at the agent's."""
        self.agent.look(self.now)
        keys = sorted(self.agent.instances)
        if not keys:
            return
        key = self.rng.choice(keys)
        match self.rng.randrange(6):
            case 0 | 1:
                self.agent.crash(key, self.now)
            case 2:
                self.agent.sicken(key, self.now)
            case 3:
                for other in keys:
                    if other[:2] == key[:2]:
                        self.agent.sicken(other, self.now)
            case 4:
                self.agent.recover(key, self.now)
            case _:
                self.agent.restart(self.now)

    def command(self) -> None:
        """Somebody asks for something, sensible or not."""
        application = self.rng.choice(("shop", "shop", "blog"))
        service = self.rng.choice(("a", "b", "c", "m", "nobody"))
        clock = self._clock
        try:
            match self.rng.randrange(12):
                case 0 | 1 | 2 | 3 | 4:
                    self._apply(application)
                case 5 | 6:
                    run(commands.scale(self.store, application, service, self.rng.randrange(5), clock=clock))
                case 7 | 8:
                    run(commands.undo(self.store, application, service, clock=clock))
                case 9:
                    run(commands.restart(self.store, application, [service], clock=clock))
                case 10:
                    run(commands.remove(self.store, application, [service], clock=clock))
                case _:
                    if self.rng.random() < 0.3:
                        run(commands.remove(self.store, application, clock=clock))
        except CommandError:
            return

    def settle(self) -> None:
        """Nothing goes wrong any more: run until all must have settled."""
        end = self.now + QUIET
        while True:
            self.control_until_done()
            due = self._next_time()
            if due is None or due > end:
                break
            self.now = max(self.now, due)
            self.agent.look(self.now)
            self.agent.work(self.now)
            self.serve()
            self._catch_up()
            check_state(self.snapshot)
        self.control_until_done()
        self.check()

    def control_until_done(self) -> None:
        """Decide until nothing is left to do; a decision must come to an end."""
        for _ in range(100):
            if not self.control(faulty=False):
                break
        else:
            raise AssertionError("decisions never end although nothing changes")
        self.agent.look(self.now)

    def check(self) -> None:
        """Check the state, and now and then that following the watch and reading anew are the same."""
        self._catch_up()
        check_state(self.snapshot)
        if self.rng.random() < 0.9:
            return
        anew = Snapshot.of(run(self.store.scan("")))
        assert self.snapshot.services == anew.services
        assert self.snapshot.applications == anew.applications
        assert self.snapshot.events.keys() == anew.events.keys()

    # --- helpers ---

    def _clock(self) -> float:
        return self.now

    def _next_time(self) -> float | None:
        self._catch_up()
        times = (self.agent.next_due(), next_deadline(self.snapshot.at(self.now, {})))
        return min((t for t in times if t is not None), default=None)

    def _catch_up(self) -> None:
        news = [b for b in self.store.log[self._seen :]]
        self._seen = len(self.store.log)
        for batch in news:
            for event in batch.events:
                if event.key.startswith("instance/") and event.entry is not None:
                    self._count_job(decode(Instance, event.entry.value))
        self.snapshot = self.snapshot.after(b for b in news if b.revision > self.snapshot.revision)

    def _count_job(self, instance: Instance) -> None:
        if not instance.job:
            return
        service = self.store.entries.get(f"service/{instance.application}/{instance.service}")
        incarnation = service.created if service else 0  # removed and applied again: another service
        key = (instance.application, instance.service, incarnation, instance.rollout)
        assert self._jobs.setdefault(key, instance.id) == instance.id, f"two jobs of one rollout: {key}"

    def _apply(self, application: str) -> None:
        names = ("a", "b", "c", "m") if application == "shop" else ("a",)
        services = {n: self._spec(n) for n in names if n in "am" or self.rng.random() < 0.9}
        if "b" not in services:
            services.pop("c", None)
        spec = ApplicationSpec(name=application, services=services)
        run(
            commands.apply(
                self.store,
                spec,
                allocate_port=lambda taken: min(set(range(20000, 21000)) - taken),
                clock=self._clock,
            )
        )

    def serve(self) -> None:
        """Clients ask: each revision with a ready instance answers some, and faulty ones fail some."""
        for view in self.snapshot.services.values():
            for revision in {m.instance.revision for m in view.running if m.phase is Phase.READY}:
                key = (view.application, view.name, revision)
                spec = view.spec(revision)
                old = self.figures.get(key, Figures())
                asked = self.rng.randrange(10)
                fails = spec is not None and spec.environment.get("ANSWERS") == "500"
                self.figures[key] = Figures(
                    requests=old.requests + asked, failures=old.failures + (asked if fails else 0)
                )
        if self.rng.random() < 0.02:
            self.figures.clear()  # the gateway was started anew

    def _spec(self, name: str) -> ServiceSpec:
        choose = self.rng.choice
        depends_on = {
            "a": (),
            "b": (Dependency(service="a", condition=Condition.HEALTHY),),
            "c": (
                Dependency(service="b", condition=Condition.STARTED),
                Dependency(service="m", condition=Condition.COMPLETED),
                Dependency(service="nobody", required=False),
            ),
            "m": (),
        }[name]
        step = Canary(monitor=10.0, success=Success(min_requests=choose((0, 20))))
        port = 9000 if self.rng.random() < 0.15 else None
        update = UpdateConfig(
            order=choose(("start-first", "start-first", "stop-first")),
            parallelism=choose((0, 1, 1, 2)),
            delay=choose((0.0, 0.0, 3.0)),
            failure_action=choose(("rollback", "rollback", "pause", "continue")),
            monitor=choose((0.0, 5.0, 10.0)),
            max_failure_ratio=choose((0.0, 0.0, 0.5)),
            progress_deadline=choose((30.0, 60.0)),
            release_command=choose(((), (), (), ("once",), ("fail",), ("hang",))),
            canary=choose(((), (), (step,), (step, Canary(share=0.5, monitor=5.0)))),
        )
        return ServiceSpec(
            name=name,
            command=("once",) if name == "m" else (choose(BEHAVIOURS),),
            environment={"VERSION": str(self.rng.randrange(3)), "ANSWERS": choose(("200", "200", "500"))},
            port=port,
            replicas=1 if port else choose((0, 1, 2, 3, 4)),
            depends_on=depends_on,
            update=update,
        )


def simulate(seed: int, steps: int = 250) -> World:
    """
    Play one seed.

    Raises:
        AssertionError: Something did not hold; the message begins with the seed.
    """
    world = World(seed)
    try:
        for _ in range(steps):
            step = world.rng.random()
            if step < 0.06:
                world.command()
            elif step < 0.12:
                world.fault()
            elif step < 0.15:
                world.haunt()
            elif step < 0.60:
                world.control(faulty=True)
            else:
                world.pass_time()
            world.check()
        world.settle()
        check_converged(world.snapshot)
    except AssertionError as error:
        raise AssertionError(f"seed {seed} at {world.now:.3f}: {error}") from error
    return world
