"""The controller as it runs: on a real store, with a stand-in for the agent that writes statuses."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from tests.control.asking import lowest
from tests.control.factories import APP, Scene, application, spec
from unisono.control import commands, loop
from unisono.control.decide import decide
from unisono.control.leader import LeaderElection
from unisono.control.loop import Controller
from unisono.control.records import (
    ELSEWHERE,
    LEADER_KEY,
    Goal,
    Happening,
    Instance,
    Leader,
    NodeRecord,
    Phase,
    RolloutPhase,
    Status,
    decode,
    encode,
    status_key,
)
from unisono.control.snapshot import Snapshot
from unisono.control.writing import parts
from unisono.state import names as state
from unisono.store.base import Delete, MaybeDone, NotDone, Outcome, Put
from unisono.store.base import Snapshot as Stored
from unisono.store.sqlite import SqliteStore
from unisono.transactions import records as transactions

LIMIT = 60.0  # seconds; generous, only to end a test that hangs


@contextlib.asynccontextmanager
async def running(store: Any, node: str = "here", **options: Any) -> AsyncIterator[asyncio.Task[None]]:
    """A controller at work."""
    controller = Controller(store, node, dict, chance=random.Random(1), **options)
    task = asyncio.create_task(controller.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])


async def obey(store: SqliteStore) -> None:
    """Make ready what should run, end what should stop: the simplest agent there is."""
    node = NodeRecord(id="here", host="here", version="0", started_at=0.0)
    outcome = await store.transact(success=(Put(key="node/here", value=encode(node)),))
    async for batch in store.watch("instance/", after=outcome.revision):
        for event in batch.events:
            if event.entry is None:
                continue
            instance = decode(Instance, event.entry.value)
            phase = Phase.READY if instance.goal is Goal.RUN else Phase.STOPPED
            status = Status(phase=phase, since=0.0, ready_at=0.0)
            key = status_key(instance.application, instance.service, instance.id)
            await store.transact(success=(Put(key=key, value=encode(status)),))


@pytest.fixture
async def agent(store: SqliteStore) -> AsyncIterator[None]:
    """The stand-in for the agent."""
    task = asyncio.create_task(obey(store))
    yield
    task.cancel()
    await asyncio.wait([task])


async def until(store: SqliteStore, holds: Callable[[Snapshot], bool]) -> Snapshot:
    """Wait for a state of the store."""
    async with asyncio.timeout(LIMIT):
        stored = await store.scan("")
        snapshot = Snapshot.of(stored)
        changes = store.watch("", after=stored.revision)
        while not holds(snapshot):
            snapshot = snapshot.after([await anext(changes)])
    return snapshot


def ready(snapshot: Snapshot, count: int, revision: int = 1) -> bool:
    """Whether exactly so many instances of web run, all ready and of a revision."""
    view = snapshot.services.get((APP, "web"))
    if view is None:
        return count == 0
    good = [m for m in view.running if m.is_ready and m.instance.revision == revision]
    return len(view.members) == len(good) == count


@pytest.mark.usefixtures("agent")
async def test_the_whole_way(store: SqliteStore) -> None:
    """Applied, scaled, rolled out, undone, removed: each becomes true by events alone."""
    quick = {"monitor": 0.0}
    async with running(store):
        await commands.apply(store, application(spec(update=quick)), allocate_port=lowest)
        await until(store, lambda s: ready(s, 1) and _is_done(s))
        await commands.scale(store, APP, "web", 3)
        await until(store, lambda s: ready(s, 3))
        two = spec(command=("two",), replicas=3, update=quick)
        await commands.apply(store, application(two), allocate_port=lowest)
        await until(store, lambda s: ready(s, 3, revision=2) and _is_done(s))
        await commands.undo(store, APP, "web")
        await until(store, lambda s: ready(s, 3, revision=1) and _is_done(s))
        await commands.remove(store, APP)
        last = await until(store, lambda s: not s.applications)

    assert last.services == {}


def _is_done(snapshot: Snapshot) -> bool:
    service = snapshot.services[APP, "web"].service
    return bool(service and service.rollout and service.rollout.phase is RolloutPhase.DONE)


@pytest.mark.usefixtures("agent")
async def test_what_services_write_is_not_decided_on(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shared state and transactions change far more often than records, and are no reason to think anew."""
    decided: list[int] = []

    def counted(snapshot: Snapshot, chance: random.Random) -> Any:
        decided.append(snapshot.revision)
        return decide(snapshot, chance)

    monkeypatch.setattr(loop, "decide", counted)
    async with running(store):
        await commands.apply(store, application(spec()), allocate_port=lowest)
        await until(store, lambda s: ready(s, 1) and _is_done(s))
        await asyncio.sleep(0.1)
        before = len(decided)
        for n in range(100):
            await store.transact(success=(Put(key=f"{state.ROOT}{APP}/kv/{n}", value=b""),))
            await store.transact(success=(Put(key=f"{transactions.ROOT}{n}", value=b""),))
        after = len(decided)
        await commands.scale(store, APP, "web", 2)
        await until(store, lambda s: ready(s, 2))

    assert before == after


def test_what_is_elsewhere_is_where_those_rooms_keep_it() -> None:
    """The control plane may not know them, so their keys are named twice."""
    kept = (state.ROOT, transactions.ROOT, transactions.NODES, transactions.FLOOR)

    assert all(key.startswith(ELSEWHERE) for key in kept)


@pytest.mark.usefixtures("agent")
async def test_wakes_at_a_deadline(store: SqliteStore) -> None:
    """The end of monitoring comes without any change of a record."""
    async with running(store):
        await commands.apply(store, application(spec()), allocate_port=lowest)
        await until(store, lambda s: ready(s, 1) and _is_done(s))
        two = spec(command=("two",), update={"monitor": 0.2})
        await commands.apply(store, application(two), allocate_port=lowest)

        snapshot = await until(store, lambda s: ready(s, 1, revision=2) and _is_done(s))

    service = snapshot.services[APP, "web"].service
    assert service is not None
    assert service.stable == 2


async def test_finds_what_happened_before_it(store: SqliteStore) -> None:
    """A controller that starts late works off what is there already."""
    await commands.apply(store, application(spec(replicas=2)), allocate_port=lowest)
    obeying = asyncio.create_task(obey(store))

    async with running(store):
        snapshot = await until(store, lambda s: ready(s, 2))
    obeying.cancel()

    assert len(snapshot.services[APP, "web"].instances) == 2


@pytest.mark.usefixtures("agent")
async def test_a_deposed_controller_stops_deciding(store: SqliteStore) -> None:
    """When another node leads, nothing more is written, and the controller waits for its turn."""
    async with running(store, node="other") as task:
        await until(store, lambda s: bool(s.events))
        await _depose(store)
        await commands.apply(store, application(spec()), allocate_port=lowest)
        await asyncio.sleep(0.3)
        made = (await store.scan("instance/")).entries
        was_waiting = not task.done()
        await store.transact(success=(Put(key=LEADER_KEY, value=encode(Leader(node="other", since=1.0))),))

        await until(store, lambda s: ready(s, 1))

    assert made == ()
    assert was_waiting


async def _depose(store: SqliteStore) -> None:
    value = encode(Leader(node="third", since=0.0))
    await store.transact(success=(Put(key=LEADER_KEY, value=value),))


async def test_every_write_carries_the_fence(store: SqliteStore) -> None:
    """No transaction of a controller goes without the leader's token."""
    recorded: list[Any] = []

    class Recording:
        """The store, noting what is asked of it."""

        def __getattr__(self, name: str) -> Any:
            return getattr(store, name)

        async def transact(self, **arguments: Any) -> Outcome:
            recorded.append(arguments)
            return await store.transact(**arguments)

    obeying = asyncio.create_task(obey(store))
    async with running(Recording()):
        await commands.apply(store, application(spec(replicas=2)), allocate_port=lowest)
        await until(store, lambda s: ready(s, 2))
    obeying.cancel()

    written = recorded[1:]  # the first one claims the lead
    assert written
    assert all(LEADER_KEY in {c.key for c in w["compares"]} for w in written)


@pytest.mark.usefixtures("agent")
async def test_survives_a_failure_of_the_store(store: SqliteStore) -> None:
    """A store that could not for a moment is asked again; what was wanted still comes true."""
    failures: dict[str, list[Exception]] = {
        "leader": [NotDone("busy")],
        "event/": [MaybeDone("?")],
        "instance/": [NotDone("busy")] * 3,
    }

    class Failing:
        """A store that refuses the first writes of some kinds."""

        def __getattr__(self, name: str) -> Any:
            return getattr(store, name)

        async def transact(self, **arguments: Any) -> Outcome:
            for kind, errors in failures.items():
                if errors and any(o.key.startswith(kind) for o in arguments["success"]):
                    raise errors.pop()
            return await store.transact(**arguments)

    async with running(Failing()):
        await commands.apply(store, application(spec(replicas=2)), allocate_port=lowest)
        snapshot = await until(store, lambda s: ready(s, 2))

    assert len(snapshot.services[APP, "web"].instances) == 2
    assert not any(failures.values())


async def test_notices_a_lead_lost_while_the_store_was_away(store: SqliteStore) -> None:
    """Reading anew after a failure, a controller that no longer leads stands for election again."""
    taken = asyncio.Event()
    tried: list[str] = []

    class Away:
        """A store that refuses the first instance, and has another leader when it is read again."""

        def __getattr__(self, name: str) -> Any:
            return getattr(store, name)

        async def scan(self, prefix: str) -> Stored:
            if tried and not taken.is_set():
                await _depose(store)
                taken.set()
            return await store.scan(prefix)

        async def transact(self, **arguments: Any) -> Outcome:
            instances = [o.key for o in arguments["success"] if o.key.startswith("instance/")]
            tried.extend(instances)
            if instances and not taken.is_set():
                raise NotDone("away")
            return await store.transact(**arguments)

    obeying = asyncio.create_task(obey(store))
    async with running(Away()):
        await commands.apply(store, application(spec()), allocate_port=lowest)
        await asyncio.wait_for(taken.wait(), LIMIT)
        await asyncio.sleep(0.5)
        tried_meanwhile = list(tried)
        await store.transact(success=(Delete(key=LEADER_KEY),))

        snapshot = await until(store, lambda s: ready(s, 1))
    obeying.cancel()

    events = [decode(Happening, e.value) for e in (await store.scan("event/")).entries]
    assert len(snapshot.services[APP, "web"].instances) == 1
    assert [e.kind for e in events].count("leader-elected") == 2
    assert len(tried_meanwhile) == 1


async def test_a_damaged_record_ends_it(store: SqliteStore) -> None:
    """What can't be read is not guessed at: the controller ends and names the record."""
    await store.transact(success=(Put(key="service/shop/web", value=b"{}"),))

    async with running(store) as task:
        await asyncio.wait([task], timeout=LIMIT)

        with pytest.raises(ValueError, match="service/shop/web is no Service"):
            task.result()


async def test_resigns_when_it_is_stopped(store: SqliteStore) -> None:
    """A controller that is told to end gives the lead up at once."""
    async with running(store):
        await until(store, lambda s: bool(s.events))

    assert await store.get(LEADER_KEY) is None


async def test_tells_who_leads(store: SqliteStore) -> None:
    """The change of leader is a happening."""
    async with running(store):
        snapshot = await until(store, lambda s: bool(s.events))

    entry = await store.get(next(iter(snapshot.events)))
    assert entry is not None
    assert decode(Happening, entry.value).kind == "leader-elected"


async def test_idle_writes_nothing(store: SqliteStore) -> None:
    """Nothing changes, nothing is due: not one write."""
    async with running(store):
        await until(store, lambda s: bool(s.events))
        before = (await store.scan("")).revision
        await asyncio.sleep(0.5)

        assert (await store.scan("")).revision == before


def test_large_decisions_are_split() -> None:
    """What is too much for one transaction becomes several, in order, each with its conditions."""
    scene = Scene().service("db", replicas=40).service("web", replicas=40)
    actions = decide(scene.snapshot(), random.Random(1))

    made = list(parts(actions, operations_max=30))

    assert all(len(p.writes) + len(p.rests_on) + 1 <= 30 for p in made)
    assert [w.key.split("/")[2] for p in made for w in p.writes] == ["db"] * 40 + ["web"] * 40
    assert {key for p in made for key in p.rests_on} == {"service/shop/db", "service/shop/web"}


async def test_a_command_is_not_overwritten(store: SqliteStore) -> None:
    """A decision made before a command is refused, because the service has changed since."""
    await commands.apply(store, application(spec()), allocate_port=lowest)
    fence = await LeaderElection(store, "here").acquire()
    (part,) = parts(decide((await _known(store)), random.Random(1)))
    seen = {"service/shop/web": (await store.scan("service/")).entries[0].modified}
    await commands.scale(store, APP, "web", 0)

    outcome = await store.transact(compares=part.compares(fence, seen), success=part.writes)

    assert not outcome.succeeded


async def _known(store: SqliteStore) -> Snapshot:
    node = NodeRecord(id="here", host="here", version="0", started_at=0.0)
    await store.transact(success=(Put(key="node/here", value=encode(node)),))
    return Snapshot.of(await store.scan(""))
