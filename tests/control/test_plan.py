"""What applying a file changes, against a real store; and what is refused, whole."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.control.asking import apply, finish, kinds, rewrite, rollout_of, service_of, state
from tests.control.factories import APP, application, spec
from unisono.control import commands
from unisono.control.errors import Conflict, Invalid
from unisono.control.plan import ChangeKind
from unisono.control.records import (
    Application,
    Happening,
    Rollout,
    RolloutPhase,
    decode,
)
from unisono.spec.changes import MASK
from unisono.spec.model import ApplicationSpec, PublishedPort, Route
from unisono.spec.outside import Outside
from unisono.spec.requests import Mirror
from unisono.store.sqlite import SqliteStore


async def test_creates(store: SqliteStore) -> None:
    """A new file: each service with its first revision, its own internal port, a first deployment."""
    plan = await apply(store, application(spec("db"), spec("web", replicas=2)))

    web = await service_of(store)
    assert kinds(plan) == {"db": ChangeKind.CREATE, "web": ChangeKind.CREATE}
    assert (web.revision, web.stable, web.replicas, web.internal_port) == (1, None, 2, 20001)
    assert (rollout_of(web).source, rollout_of(web).phase) == (0, RolloutPhase.ROLLING)
    assert (await state(store)).applications[APP].services == ("db", "web")


async def test_plan_changes_nothing(store: SqliteStore) -> None:
    """A plan says what apply would do, and leaves the store as it is."""
    before = await store.scan("")

    plan = await commands.plan(store, application(spec()))

    assert kinds(plan) == {"web": ChangeKind.CREATE}
    assert await store.scan("") == before


async def test_applying_twice_changes_nothing(store: SqliteStore) -> None:
    """The same file again: an empty plan, not one write."""
    await apply(store, application(spec()))
    before = await store.scan("")

    plan = await apply(store, application(spec()))

    assert plan.is_empty
    assert await store.scan("") == before


async def test_what_transactions_may_call_is_the_application_s(store: SqliteStore) -> None:
    """It changes with the file, and no instance is touched."""
    await apply(store, application(spec("web")))
    allowed = Outside(allow=("https://pay.example.com",))

    plan = await apply(store, replace(application(spec("web")), transactions=allowed))
    entry = await store.get(f"application/{APP}")

    assert [ChangeKind.UNCHANGED] == [change.kind for change in plan.changes]
    assert entry is not None
    assert allowed == decode(Application, entry.value).transactions


async def test_what_needs_no_new_instances_is_updated_in_place(store: SqliteStore) -> None:
    """Replicas, routes, timeouts: the current revision carries them, and no rollout begins."""
    await apply(store, application(spec()))
    await finish(store)

    plan = await apply(store, application(spec(replicas=3, routes=(Route(path="/x"),), timeout=5.0)))

    known = (await state(store)).services[APP, "web"]
    assert known.service is not None
    assert known.current_spec is not None
    assert kinds(plan) == {"web": ChangeKind.UPDATE}
    assert [d.field for d in plan.changes[0].differences] == ["replicas", "routes", "timeout"]
    assert (known.service.revision, known.service.replicas, known.current_spec.timeout) == (1, 3, 5.0)
    assert rollout_of(known.service).phase is RolloutPhase.DONE


@pytest.mark.parametrize("change", [{"command": ("new",)}, {"environment": {"KEY": "value"}}])
async def test_what_needs_new_instances_rolls(store: SqliteStore, change: dict[str, Any]) -> None:
    """A changed command or environment: a new revision, and a rollout from the stable one."""
    await apply(store, application(spec()))
    await finish(store)

    plan = await apply(store, application(spec(**change)))

    web = await service_of(store)
    assert kinds(plan) == {"web": ChangeKind.ROLL}
    assert (web.revision, web.stable) == (2, 1)
    assert (rollout_of(web).source, rollout_of(web).target, rollout_of(web).serial) == (1, 2, 2)


async def test_a_plan_shows_no_secrets(store: SqliteStore) -> None:
    """What looks like a password is masked; that it changes is shown."""
    await apply(store, application(spec(environment={"DB_PASSWORD": "old", "MODE": "a"})))

    plan = await apply(store, application(spec(environment={"DB_PASSWORD": "new", "MODE": "b"})))

    shown = {d.field: (d.before, d.after) for d in plan.changes[0].differences}
    assert shown == {"environment.DB_PASSWORD": (MASK, MASK), "environment.MODE": ("a", "b")}


async def test_a_changed_shell_is_no_change(store: SqliteStore) -> None:
    """What the applying shell passes on differs each time: it is kept, and nothing rolls."""
    await apply(store, application(spec(inherited={"PATH": "/a"})))

    plan = await apply(store, application(spec(inherited={"PATH": "/b"})))

    current = (await state(store)).services[APP, "web"].current_spec
    assert plan.is_empty
    assert current is not None
    assert current.inherited == {"PATH": "/b"}


async def test_a_release_command_comes_first(store: SqliteStore) -> None:
    """With a release command a rollout, also the first, begins by releasing."""
    await apply(store, application(spec(update={"release_command": ("migrate",)})))

    assert rollout_of(await service_of(store)).phase is RolloutPhase.RELEASING


async def test_another_apply_supersedes(store: SqliteStore) -> None:
    """An apply during a rollout begins another one, still from the stable revision."""
    await apply(store, application(spec()))
    await finish(store)
    await apply(store, application(spec(command=("two",))))

    await apply(store, application(spec(command=("three",))))

    rollout = rollout_of(await service_of(store))
    assert (rollout.source, rollout.target, rollout.serial) == (1, 3, 3)


async def test_a_bad_revision_can_be_tried_again(store: SqliteStore) -> None:
    """After a rollback the same file is not the current one: applying it starts anew."""
    await apply(store, application(spec()))
    done = await finish(store)
    await apply(store, application(spec(command=("bad",))))
    rolled_back = replace(
        done, rollout=Rollout(**{**vars(rollout_of(done)), "target": 2, "phase": RolloutPhase.ROLLED_BACK})
    )
    await rewrite(store, rolled_back)

    await apply(store, application(spec(command=("bad",))))

    assert rollout_of(await service_of(store)).target == 3


async def test_a_paused_rollout_is_tried_again(store: SqliteStore) -> None:
    """Applying the file of a paused rollout starts it anew, with the revision there is."""
    await apply(store, application(spec()))
    await finish(store)
    await apply(store, application(spec(command=("two",))))
    web = await service_of(store)
    await rewrite(store, replace(web, rollout=replace(rollout_of(web), phase=RolloutPhase.PAUSED)))

    plan = await apply(store, application(spec(command=("two",))))

    rollout = rollout_of(await service_of(store))
    assert kinds(plan) == {"web": ChangeKind.ROLL}
    assert (rollout.phase, rollout.target, rollout.serial) == (RolloutPhase.ROLLING, 2, 3)


async def test_services_that_left_the_file_are_removed(store: SqliteStore) -> None:
    """The file is the whole truth of its application."""
    await apply(store, application(spec("db"), spec("web")))

    plan = await apply(store, application(spec("web")))

    assert kinds(plan) == {"db": ChangeKind.REMOVE, "web": ChangeKind.UNCHANGED}
    assert (await service_of(store, "db")).removing


async def test_a_service_on_its_way_out_can_come_back(store: SqliteStore) -> None:
    """Applying a file again keeps a service that was being removed."""
    await apply(store, application(spec()))
    await commands.remove(store, APP)

    await apply(store, application(spec()))

    assert not (await service_of(store)).removing
    assert not (await state(store)).applications[APP].removing


async def test_a_release_that_was_swept_up_with_its_service_runs_again(store: SqliteStore) -> None:
    """A service that comes back while it releases begins another rollout: its job may be gone."""
    asked = application(spec(update={"release_command": ("migrate",)}))
    await apply(store, asked)
    await commands.remove(store, APP)

    await apply(store, asked)

    rollout = rollout_of(await service_of(store))
    assert (rollout.phase, rollout.serial) == (RolloutPhase.RELEASING, 2)


async def test_a_release_command_that_is_taken_out_is_not_waited_for(store: SqliteStore) -> None:
    """The instances are what they were, so the digest is; the rollout is another one."""
    await apply(store, application(spec(update={"release_command": ("migrate",)})))

    await apply(store, application(spec()))

    rollout = rollout_of(await service_of(store))
    assert (rollout.phase, rollout.serial) == (RolloutPhase.ROLLING, 2)


async def test_a_plain_number_in_the_file_is_the_number(store: SqliteStore) -> None:
    """Without a range, applying sets the number back to the file's; within a range it is left alone."""
    await apply(store, application(spec("plain"), spec("range", max_replicas=5)))
    await commands.scale(store, APP, "plain", 4)
    await commands.scale(store, APP, "range", 4)

    await apply(store, application(spec("plain"), spec("range", max_replicas=3)))

    assert (await service_of(store, "plain")).replicas == 1
    assert (await service_of(store, "range")).replicas == 3


async def test_internal_ports_are_unique_over_applications(store: SqliteStore) -> None:
    """Each service of every application has its own."""
    await apply(store, application(spec()))

    await apply(store, application(spec(), name="blog"))

    assert (await service_of(store, app="blog")).internal_port == 20001


async def test_is_told(store: SqliteStore) -> None:
    """What was applied, and each rollout that it began, are happenings of the same transaction."""
    await apply(store, application(spec()))
    await apply(store, application(spec(command=("two",))))

    events = [decode(Happening, e.value) for e in (await store.scan("event/")).entries]
    assert [e.message for e in events if e.kind == "application-applied"] == ["create: web", "roll: web"]
    assert [e.data for e in events if e.kind == "rollout-started"] == [{"source": 0, "target": 2}]


# --- apply refuses ---------------------------------------------------------------------------------


REFUSED: list[tuple[str, ApplicationSpec, str]] = [
    ("no services", application(), "has no services"),
    (
        "a container",
        application(spec("db", driver="container", image="pg", command=()), spec()),
        "no container driver in this version, which db would need: give it a command, or leave it out",
    ),
    ("no command", application(spec(command=())), "web has no command"),
    ("a bad name", application(spec("a/b")), "'a/b' is no name for a service"),
    ("a missing dependency", application(spec("db"), spec(after=("dbs",))), "did you mean db?"),
    ("a circle", application(spec("db", after=("web",)), spec(after=("db",))), "in a circle"),
    ("a fixed port twice", application(spec(port=80, replicas=2)), "insists on port 80"),
    ("a mirror of itself", application(spec(mirror=Mirror(service="web"))), "which is no other service"),
    ("too many", application(spec(replicas=1001)), "0 to 1000 are possible"),
]


@pytest.mark.parametrize(("asked", "message"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED])
async def test_refuses_what_can_not_run(store: SqliteStore, asked: ApplicationSpec, message: str) -> None:
    """What this version can't run is refused whole, with a remedy, and changes nothing."""
    before = await store.scan("")

    with pytest.raises(Invalid, match=message):
        await apply(store, asked)

    assert await store.scan("") == before


@pytest.mark.parametrize(
    ("one", "other", "message"),
    [
        ({"routes": (Route(path="/x"),)}, {"routes": (Route(path="/x"),)}, "same route /x at any host"),
        ({"ports": (PublishedPort(port=80),)}, {"ports": (PublishedPort(port=80),)}, "same port"),
        (
            {"ports": (PublishedPort(port=80),)},
            {"ports": (PublishedPort(port=80, host_ip="0.0.0.0"),)},
            "same port",
        ),
    ],
)
@pytest.mark.parametrize("together", [True, False])
async def test_refuses_a_shared_address(
    store: SqliteStore, one: dict[str, Any], other: dict[str, Any], message: str, together: bool
) -> None:
    """Two services can't have one route or port, whether in one application or in two."""
    if together:
        asked = application(spec("a", **one), spec("b", **other))
    else:
        await apply(store, application(spec("a", **one), name="blog"))
        asked = application(spec("b", **other))
    before = await store.scan("")

    with pytest.raises(Conflict, match=message):
        await apply(store, asked)

    assert await store.scan("") == before


async def test_addresses_that_differ_are_no_conflict(store: SqliteStore) -> None:
    """Another host, another path or another address of the machine is another thing."""
    a = spec("a", routes=(Route(path="/"), Route(path="/x", host="one")), ports=(PublishedPort(port=80),))
    b = spec(
        "b",
        routes=(Route(path="/x"), Route(path="/x", host="two")),
        ports=(PublishedPort(port=80, host_ip="127.0.0.2"), PublishedPort(port=81)),
    )

    assert kinds(await apply(store, application(a, b))) == {"a": ChangeKind.CREATE, "b": ChangeKind.CREATE}


async def test_a_route_that_may_come_back_is_taken(store: SqliteStore) -> None:
    """Until a rollout is done its source may come back, and its routes with it."""
    await apply(store, application(spec(routes=(Route(path="/old"),)), name="blog"))
    await finish(store, app="blog")
    await apply(store, application(spec(command=("two",)), name="blog"))

    with pytest.raises(Conflict, match="/old"):
        await apply(store, application(spec(routes=(Route(path="/old"),))))


async def test_services_keep_the_order_of_the_file(store: SqliteStore) -> None:
    """It is how people think of them, so that `ps` shows them so."""
    await apply(store, application(spec("web"), spec("db"), spec("api")))

    assert (await state(store)).applications[APP].services == ("web", "db", "api")
