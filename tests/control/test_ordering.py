"""Start order by depends_on, and removal in the reverse order."""

from __future__ import annotations

import random

import pytest

from tests.control.deciding import created, directed, told
from tests.control.factories import APP, Scene, rolling, spec
from unisono.control.actions import Forget
from unisono.control.decide import decide
from unisono.control.ordering import blockers
from unisono.control.records import Application, Goal, Phase, application_key
from unisono.spec.model import Condition, Dependency


def first_of(dependency: Dependency, scene: Scene) -> Scene:
    """A first deployment of web, which depends on something."""
    return scene.service(
        revisions={1: spec(after=(dependency,))}, stable=None, rollout=rolling(source=0, target=1)
    )


@pytest.mark.parametrize(
    ("condition", "phase", "starts"),
    [
        (Condition.STARTED, None, False),
        (Condition.STARTED, Phase.STARTING, True),
        (Condition.STARTED, Phase.BACKOFF, True),
        (Condition.HEALTHY, Phase.STARTING, False),
        (Condition.HEALTHY, Phase.UNHEALTHY, False),
        (Condition.HEALTHY, Phase.READY, True),
        (Condition.COMPLETED, Phase.READY, False),
        (Condition.COMPLETED, Phase.FAILED, False),
        (Condition.COMPLETED, Phase.COMPLETED, True),
    ],
)
def test_conditions(condition: Condition, phase: Phase | None, starts: bool) -> None:
    """A condition holds from the phase that its word promises, and not before."""
    scene = Scene().service("db", replicas=1).instance("db-1", phase, service="db")

    made = created(first_of(Dependency(service="db", condition=condition), scene).snapshot())

    assert made == ([1] if starts else [])


def test_healthy_needs_one() -> None:
    """One ready instance of many is enough: the gateway lets requests wait."""
    scene = Scene().service("db", replicas=2).instance("db-1", service="db")
    scene.instance("db-2", Phase.STARTING, service="db")

    assert created(first_of(Dependency(service="db", condition=Condition.HEALTHY), scene).snapshot()) == [1]


def test_completed_means_the_wanted_revision() -> None:
    """A migration that completed in its old version does not let the new version's users start."""
    scene = Scene().service("db", revisions={1: spec("db"), 2: spec("db")}, revision=2, rollout=rolling())
    scene.instance("db-1", Phase.COMPLETED, service="db")
    scene.instance("db-2", Phase.STARTING, service="db", revision=2, rollout=1)

    waiting = first_of(Dependency(service="db", condition=Condition.COMPLETED), scene)

    assert created(waiting.snapshot()) == []


def test_a_dependency_at_zero_holds_up_nobody() -> None:
    """Who scales a dependency to zero wants to do without it."""
    scene = Scene().service("db", replicas=0)

    assert created(first_of(Dependency(service="db", condition=Condition.HEALTHY), scene).snapshot()) == [1]


@pytest.mark.parametrize(("required", "starts"), [(True, False), (False, True)])
def test_a_missing_dependency(required: bool, starts: bool) -> None:
    """A service that does not exist holds up only those that require it."""
    scene = first_of(Dependency(service="db", required=required), Scene())

    assert bool(created(scene.snapshot())) is starts


def test_says_what_it_waits_for() -> None:
    """The wait is told in words, for people."""
    scene = Scene().service("db")
    first_of(Dependency(service="db", condition=Condition.HEALTHY), scene)
    snapshot = scene.snapshot()

    assert blockers(snapshot, snapshot.services[APP, "web"], 1) == ("waits for db (service_healthy)",)


def test_what_is_stable_is_repaired_at_once() -> None:
    """A dependency that is down for a moment does not keep a proven service from being repaired."""
    scene = Scene().service("db").instance("db-1", Phase.BACKOFF, service="db")
    scene.service(revisions={1: spec(after=(Dependency(service="db", condition=Condition.HEALTHY),))})

    assert created(scene.snapshot()) == [1]


# --- removal ---------------------------------------------------------------------------------------


def leaving(scene: Scene) -> Scene:
    """The application on its way out."""
    record = Application(name=APP, source="", services=(), removing=True)
    return scene.put(application_key(APP), record)


def test_dependants_go_first() -> None:
    """Removal stops who depends, and what they depend on only when they are gone."""
    both = leaving(Scene().service("db").instance("db-1", service="db"))
    both.service(revisions={1: spec(after=("db",))}).instance("web-1")
    one = leaving(Scene().service("db").instance("db-1", service="db"))
    one.service(revisions={1: spec(after=("db",))})

    assert directed(both.snapshot()) == [("web-1", Goal.STOP)]
    assert directed(one.snapshot()) == [("db-1", Goal.STOP)]


def test_waits_for_dependants_that_still_stop() -> None:
    """A dependant that drains still needs what it depends on."""
    scene = leaving(Scene().service("db").instance("db-1", service="db"))
    scene.service(revisions={1: spec(after=("db",))}).instance("web-1", Phase.DRAINING, goal=Goal.STOP)

    assert directed(scene.snapshot()) == []


def test_services_that_need_each_other_still_go() -> None:
    """A circle, which a rollback can make, does not block removal."""
    scene = leaving(Scene().service("db", revisions={1: spec("db", after=("web",))}))
    scene.instance("db-1", service="db")
    scene.service(revisions={1: spec(after=("db",))}).instance("web-1")

    assert directed(scene.snapshot()) == [("db-1", Goal.STOP), ("web-1", Goal.STOP)]


def test_records_go_with_the_last_instance() -> None:
    """A service without instances is forgotten, its own record before its revisions."""
    scene = leaving(Scene().service())

    actions = decide(scene.snapshot(), random.Random(1))

    keys = [a.key for a in actions if isinstance(a, Forget)]
    assert keys == ["service/shop/web", "revision/shop/web/00000001"]
    assert told(scene.snapshot()) == ["service-removed"]


def test_the_application_goes_last() -> None:
    """An application on its way out is forgotten when no service is left of it."""
    scene = leaving(Scene())

    actions = decide(scene.snapshot(), random.Random(1))

    assert [a.key for a in actions if isinstance(a, Forget)] == ["application/shop"]
    assert told(scene.snapshot()) == ["application-removed"]


def test_an_empty_application_stays() -> None:
    """Without being asked to remove it, an application without services is kept."""
    assert decide(Scene().snapshot(), random.Random(1)) == ()


def test_one_service_goes_alone() -> None:
    """A service marked to go stops; the others of its application stay."""
    scene = Scene().service("db", removing=True).instance("db-1", service="db")
    scene.service().instance("web-1")

    assert directed(scene.snapshot()) == [("db-1", Goal.STOP)]


def test_jobs_of_a_removed_service_stop() -> None:
    """A release command that still runs is stopped with its service."""
    scene = Scene().service(removing=True).instance("web-job", Phase.STARTING, job=True)

    assert directed(scene.snapshot()) == [("web-job", Goal.STOP)]
