"""Scale, restart, undo and remove, against a real store."""

from __future__ import annotations

import pytest

from tests.control.asking import apply, finish, lowest, rollout_of, service_of, state
from tests.control.factories import APP, application, spec
from unisono.control import commands
from unisono.control.errors import Conflict, Invalid, NotFound, nearest
from unisono.control.records import (
    Happening,
    Revision,
    RolloutPhase,
    decode,
)
from unisono.spec.model import Dependency, Route
from unisono.store.sqlite import SqliteStore


async def test_scales(store: SqliteStore) -> None:
    """Another number, told with both."""
    await apply(store, application(spec()))

    await commands.scale(store, APP, "web", 0)

    assert (await service_of(store)).replicas == 0


@pytest.mark.parametrize("number", [0, 2, 4])
async def test_scales_within_the_range(store: SqliteStore, number: int) -> None:
    """A range in the file gives the numbers that are possible; zero is always one."""
    await apply(store, application(spec(replicas=2, max_replicas=4)))

    assert (await commands.scale(store, APP, "web", number)).replicas == number


@pytest.mark.parametrize("number", [1, 5])
async def test_refuses_a_number_outside_of_the_range(store: SqliteStore, number: int) -> None:
    """A number that the file does not allow is refused with the ones that it does."""
    await apply(store, application(spec(replicas=2, max_replicas=4)))

    with pytest.raises(Invalid) as caught:
        await commands.scale(store, APP, "web", number)

    assert (caught.value.found, caught.value.wanted) == (str(number), "2 to 4, or 0")


async def test_names_the_nearest(store: SqliteStore) -> None:
    """A service or application that does not exist: the message names the nearest that does."""
    await apply(store, application(spec("orders"), spec("payments")))

    with pytest.raises(NotFound, match=r"has no service payment; did you mean payments\?"):
        await commands.scale(store, APP, "payment", 1)
    with pytest.raises(NotFound, match=r"no application shpo; did you mean shop\?"):
        await commands.restart(store, "shpo")


async def test_names_what_there_is(store: SqliteStore) -> None:
    """Where no name is near, the message names those that there are."""
    await apply(store, application(spec("orders"), spec("payments")))

    with pytest.raises(NotFound, match=r"has no service nope; it has orders, payments$"):
        await commands.undo(store, APP, "nope")
    with pytest.raises(NotFound, match=r"no application else; there is shop$"):
        await commands.restart(store, "else")


def test_names_only_so_many() -> None:
    """Of very many names a message has the first ten and how many more there are."""
    ending = nearest("nope", [f"s{number:02}" for number in range(13)])

    assert ending == "; it has s00, s01, s02, s03, s04, s05, s06, s07, s08, s09 and 3 more"


async def test_restarts(store: SqliteStore) -> None:
    """The same spec under a new number and nonce; the release command is not run again."""
    await apply(store, application(spec(update={"release_command": ("migrate",)})))
    await finish(store)

    await commands.restart(store, APP)

    web = await service_of(store)
    entry = await store.get("revision/shop/web/00000002")
    assert entry is not None
    revision = decode(Revision, entry.value)
    assert (web.revision, rollout_of(web).source) == (2, 1)
    assert rollout_of(web).phase is RolloutPhase.ROLLING
    assert revision.digest == spec().revision_hash()
    assert revision.nonce


async def test_restart_runs_a_release_command_that_never_succeeded(store: SqliteStore) -> None:
    """What was never released is released first, also by a restart."""
    await apply(store, application(spec(update={"release_command": ("migrate",)})))

    await commands.restart(store, APP, ["web"])

    assert rollout_of(await service_of(store)).phase is RolloutPhase.RELEASING


async def test_readdressing_restarts_what_has_the_old_port(store: SqliteStore) -> None:
    """Also a service that gets another port itself; others are left alone."""
    middle = spec(name="middle", after=("back",))
    front = spec(name="front", after=("middle",))
    alone = spec(name="alone")
    await apply(store, application(spec(name="back"), middle, front, alone))
    for name in ("back", "middle", "front", "alone"):
        await finish(store, name)
    before = {name: await service_of(store, name) for name in ("back", "middle", "front", "alone")}

    await commands.readdress(store, [(APP, "back"), (APP, "middle"), (APP, "gone")], allocate_port=lowest)

    after = {name: await service_of(store, name) for name in before}
    moved = {name for name in before if before[name].internal_port != after[name].internal_port}
    restarted = {name for name in before if before[name].revision != after[name].revision}
    assert (moved, restarted) == ({"back", "middle"}, {"middle", "front"})
    assert len({service.internal_port for service in after.values()}) == 4
    told = [decode(Happening, entry.value) for entry in (await store.scan("event/")).entries]
    assert {h.service for h in told if h.kind == "service-readdressed"} == moved


async def test_undo_goes_to_the_stable_one_before(store: SqliteStore) -> None:
    """Back to the revision before, as a rollout; and an undo of that brings back what it undid."""
    await apply(store, application(spec(update={"release_command": ("migrate",)})))
    await finish(store)
    await apply(store, application(spec(command=("two",))))
    await finish(store)

    undone = await commands.undo(store, APP, "web")

    assert (undone.revision, undone.stable) == (1, 2)
    assert (rollout_of(undone).source, rollout_of(undone).target) == (2, 1)
    assert rollout_of(undone).phase is RolloutPhase.ROLLING


async def test_undo_of_a_rollout_turns_it_back(store: SqliteStore) -> None:
    """A rollout on its way goes back to where it came from."""
    await apply(store, application(spec()))
    await finish(store)
    await apply(store, application(spec(command=("two",))))

    undone = await commands.undo(store, APP, "web")

    assert (undone.revision, rollout_of(undone).phase) == (1, RolloutPhase.ROLLING_BACK)
    with pytest.raises(Conflict, match="already"):
        await commands.undo(store, APP, "web")


async def test_nothing_to_undo(store: SqliteStore) -> None:
    """A first revision has none before it, ready or not."""
    await apply(store, application(spec()))

    with pytest.raises(Conflict, match="no earlier revision"):
        await commands.undo(store, APP, "web")
    await finish(store)
    with pytest.raises(Conflict, match="no earlier revision"):
        await commands.undo(store, APP, "web")


async def test_undo_into_a_gap(store: SqliteStore) -> None:
    """A revision whose dependency or route is no longer to be had can't come back."""
    await apply(store, application(spec("db"), spec(after=("db",), routes=(Route(path="/x"),))))
    await finish(store)
    await apply(store, application(spec(command=("two",))))
    await finish(store)

    with pytest.raises(Conflict, match="depends on db, which is gone"):
        await commands.undo(store, APP, "web")

    await apply(store, application(spec("db"), spec(command=("two",))))
    await apply(store, application(spec(routes=(Route(path="/x"),)), name="blog"))
    with pytest.raises(Conflict, match="same route"):
        await commands.undo(store, APP, "web")


async def test_removes_an_application(store: SqliteStore) -> None:
    """All of it is marked at once; the controller stops it in order."""
    await apply(store, application(spec("db"), spec(after=("db",))))

    names = await commands.remove(store, APP)

    known = await state(store)
    assert names == ("db", "web")
    assert known.applications[APP].removing
    assert all(v.service and v.service.removing for v in known.services.values())


async def test_refuses_to_remove_what_is_needed(store: SqliteStore) -> None:
    """A service that another one requires goes only with it."""
    optional = Dependency(service="cache", required=False)
    await apply(store, application(spec("db"), spec("cache"), spec(after=("db", optional))))

    with pytest.raises(Conflict, match="web depends on db; remove web too"):
        await commands.remove(store, APP, ["db"])

    assert await commands.remove(store, APP, ["cache"]) == ("cache",)
    assert await commands.remove(store, APP, ["db", "web"]) == ("db", "web")
    assert (await state(store)).applications[APP].removing


@pytest.mark.parametrize("what", ["scale", "restart", "undo"])
async def test_what_leaves_can_not_be_changed(store: SqliteStore, what: str) -> None:
    """A service on its way out takes no orders but to stay."""
    await apply(store, application(spec()))
    await commands.remove(store, APP)
    asked = {
        "scale": lambda: commands.scale(store, APP, "web", 3),
        "restart": lambda: commands.restart(store, APP, ["web"]),
        "undo": lambda: commands.undo(store, APP, "web"),
    }

    with pytest.raises(Conflict, match="being removed"):
        await asked[what]()
