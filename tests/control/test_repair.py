"""Numbers: who is made, who stops, who is killed. Claims about one service without a rollout."""

from __future__ import annotations

import random

import pytest

from tests.control.deciding import created, directed, told
from tests.control.factories import Scene, spec
from unisono.control.actions import Amend, Create, Forget
from unisono.control.decide import decide
from unisono.control.records import Goal, Phase


def test_makes_what_is_missing() -> None:
    """Fewer instances than wanted: the rest is made, of the wanted revision, on the node there is."""
    scene = Scene().service(replicas=3).instance("web-1")

    actions = decide(scene.snapshot(), random.Random(1))

    made = [a.instance for a in actions if isinstance(a, Create)]
    assert [(i.revision, i.node, i.goal) for i in made] == [(1, "here", Goal.RUN)] * 2
    assert len({i.id for i in made} | {"web-1"}) == 3


def test_same_seed_same_actions() -> None:
    """A decision is a function of the snapshot and the seed."""
    snapshot = Scene().service(replicas=3).snapshot()

    assert decide(snapshot, random.Random(5)) == decide(snapshot, random.Random(5))


def test_does_nothing_when_all_is_well() -> None:
    """A decision on what is as wanted is empty."""
    scene = Scene().service(replicas=2).instance("web-1").instance("web-2", Phase.BACKOFF)

    assert decide(scene.snapshot(), random.Random(1)) == ()


def test_waits_for_a_node() -> None:
    """Without a node, nothing is made and nothing fails."""
    scene = Scene().service()
    del scene.records["node/here"]

    assert decide(scene.snapshot(), random.Random(1)) == ()


@pytest.mark.parametrize("phase", [Phase.COMPLETED, Phase.FAILED])
def test_keeps_what_ended_for_good(phase: Phase) -> None:
    """An instance that its restart policy leaves alone counts, and is not made anew."""
    assert created(Scene().service().instance("web-1", phase).snapshot()) == []


def test_stops_starting_before_idle_before_busy() -> None:
    """Scaling down takes those that serve nobody first, then the idle, then the least busy."""
    scene = Scene().service(replicas=1)
    scene.instance("web-busy").instance("web-idle").instance("web-starting", Phase.STARTING)
    scene.instance("web-busier").instance("web-backoff", Phase.BACKOFF).instance("web-new", None)
    scene.in_flight = {"web-busy": 2, "web-busier": 9}

    order = [id for id, _ in directed(scene.snapshot())]

    assert order == ["web-backoff", "web-new", "web-starting", "web-idle", "web-busy"]


def test_stops_the_youngest_of_equals() -> None:
    """Between two idle instances the younger goes: caches of the older are warm."""
    scene = Scene().service(replicas=1).instance("web-a", created_at=5.0).instance("web-b", created_at=9.0)

    assert directed(scene.snapshot()) == [("web-b", Goal.STOP)]


def test_scales_to_zero() -> None:
    """No instances wanted: all stop."""
    assert directed(Scene().service(replicas=0).instance("web-1").snapshot()) == [("web-1", Goal.STOP)]


def test_does_not_count_what_is_on_its_way_out() -> None:
    """An instance told to stop is replaced while it still drains."""
    scene = Scene().service().instance("web-1", Phase.DRAINING, goal=Goal.STOP)

    assert created(scene.snapshot()) == [1]


def test_a_program_with_its_own_port_waits_for_the_last_one() -> None:
    """Where two can't listen at once, the next is made when the last has stopped."""
    own_port = {1: spec(port=9000)}
    leaving = Scene().service(revisions=own_port).instance("web-1", Phase.STOPPING, goal=Goal.STOP)
    gone = Scene().service(revisions=own_port)

    assert (created(leaving.snapshot()), created(gone.snapshot())) == ([], [1])


def test_a_program_with_its_own_port_runs_once() -> None:
    """However many are wanted (an older revision may have had no port), one is made."""
    assert created(Scene().service(revisions={1: spec(port=9000)}, replicas=3).snapshot()) == [1]


def test_replaces_the_unhealthy() -> None:
    """An unhealthy instance hangs: it is killed, not drained, and another one made at once."""
    scene = Scene().service().instance("web-1", Phase.UNHEALTHY, status={"since": 999.0})

    assert directed(scene.snapshot()) == [("web-1", Goal.KILL)]
    assert created(scene.snapshot()) == [1]
    assert told(scene.snapshot()) == ["instance-replaced"]


def test_brake_on_mass_death() -> None:
    """Three of four unhealthy within 10 s: only one is killed, and it is told why."""
    scene = Scene().service(replicas=4).instance("web-0")
    for number in (1, 2, 3):
        scene.instance(f"web-{number}", Phase.UNHEALTHY, status={"since": 990.0 + number})

    assert directed(scene.snapshot()) == [("web-1", Goal.KILL)]
    assert told(scene.snapshot()) == ["brake", "instance-replaced"]


def test_brake_counts_those_there_are() -> None:
    """Three unhealthy ones are a mass, also when only one is wanted by now."""
    scene = Scene().service(replicas=1)
    for number in (1, 2, 3):
        scene.instance(f"web-{number}", Phase.UNHEALTHY, status={"since": 990.0 + number})

    assert [id for id, goal in directed(scene.snapshot()) if goal is Goal.KILL] == ["web-1"]


def test_brake_sees_old_mass_death() -> None:
    """A controller that comes an hour late takes a mass death for one all the same."""
    scene = Scene(now=5000.0).service(replicas=4)
    for number in (1, 2, 3, 4):
        scene.instance(f"web-{number}", Phase.UNHEALTHY, status={"since": 990.0 + number})

    assert len(directed(scene.snapshot())) == 1


def test_brake_remembers_the_killed() -> None:
    """Instances turning unhealthy one after the other count together, also when the first are gone."""
    scene = Scene().service(replicas=4, unhealthy=(991.0, 992.0)).instance("web-1").instance("web-2")
    scene.instance("web-3").instance("web-4", Phase.UNHEALTHY, status={"since": 993.0})

    actions = decide(scene.snapshot(), random.Random(1))

    amended = [a.service for a in actions if isinstance(a, Amend)]
    assert [(s.braked_at, s.unhealthy) for s in amended] == [(1000.0, (991.0, 992.0, 993.0))]


def test_single_failures_apart_do_not_brake() -> None:
    """Unhealthy ones more than 10 s apart have nothing to do with each other: both are killed."""
    scene = Scene().service(replicas=3).instance("web-1")
    scene.instance("web-2", Phase.UNHEALTHY, status={"since": 980.0})
    scene.instance("web-3", Phase.UNHEALTHY, status={"since": 995.0})

    assert directed(scene.snapshot()) == [("web-2", Goal.KILL), ("web-3", Goal.KILL)]


def test_one_instance_alone_does_not_brake() -> None:
    """A service of one is no mass: it is replaced again and again."""
    scene = Scene().service(unhealthy=(995.0,)).instance("web-1", Phase.UNHEALTHY, status={"since": 999.0})

    assert directed(scene.snapshot()) == [("web-1", Goal.KILL)]
    assert told(scene.snapshot()) == ["instance-replaced"]


@pytest.mark.parametrize("replacement", [None, Phase.STARTING, Phase.BACKOFF])
def test_braked_waits_for_the_replacement(replacement: Phase | None) -> None:
    """Under the brake the next one is killed only when the last one's replacement is ready."""
    scene = Scene().service(replicas=3, braked_at=995.0, unhealthy=(990.0,))
    scene.instance("web-1", replacement)
    scene.instance("web-2", Phase.UNHEALTHY).instance("web-3", Phase.UNHEALTHY)

    assert directed(scene.snapshot()) == []


def test_braked_waits_for_what_is_missing() -> None:
    """Nor is one killed while the replacement could not even be made."""
    scene = Scene().service(replicas=3, braked_at=995.0, unhealthy=(990.0,))
    scene.instance("web-2", Phase.UNHEALTHY).instance("web-3", Phase.UNHEALTHY)

    assert directed(scene.snapshot()) == []


def test_braked_goes_on_after_the_replacement() -> None:
    """Once the replacement is ready, the next one is killed, however long that took."""
    scene = Scene(now=2000.0).service(replicas=3, braked_at=995.0, unhealthy=(990.0,)).instance("web-1")
    scene.instance("web-2", Phase.UNHEALTHY).instance("web-3", Phase.UNHEALTHY)

    assert directed(scene.snapshot()) == [("web-2", Goal.KILL)]


def test_brake_lets_go() -> None:
    """When none is unhealthy any more, the brake is off."""
    scene = Scene().service(braked_at=995.0).instance("web-1")

    actions = decide(scene.snapshot(), random.Random(1))

    assert [a.service.braked_at for a in actions if isinstance(a, Amend)] == [None]
    assert told(scene.snapshot()) == ["brake-released"]


def test_sweeps_up_the_stopped() -> None:
    """An instance that has stopped is forgotten with its status."""
    scene = Scene().service(replicas=0).instance("web-1", Phase.STOPPED, goal=Goal.STOP)

    actions = decide(scene.snapshot(), random.Random(1))

    assert actions == (Forget(key="instance/shop/web/web-1"), Forget(key="status/shop/web/web-1"))


@pytest.mark.parametrize(("phase", "goes"), [(Phase.STOPPED, True), (Phase.READY, False)])
def test_a_status_without_instance_stays_while_a_process_runs(phase: Phase, goes: bool) -> None:
    """It is the only trace by which a restarted node finds the process to end it."""
    scene = Scene().service(replicas=0).instance("web-1", phase)
    del scene.records["instance/shop/web/web-1"]

    assert bool(decide(scene.snapshot(), random.Random(1))) is goes


def test_keeps_ten_revisions() -> None:
    """Of many revisions the last ten stay, and those that are stable, run, or can be gone back to."""
    revisions = {n: spec(environment={"V": str(n)}) for n in range(1, 21)}
    scene = Scene().service(revisions=revisions, revision=20, stable=3, history=(1, 2))
    scene.instance("web-1", revision=20).instance("web-2", Phase.STOPPING, revision=5, goal=Goal.STOP)

    actions = decide(scene.snapshot(), random.Random(1))

    forgotten = [int(a.key[-8:]) for a in actions if isinstance(a, Forget)]
    assert forgotten == [1, 4, 6, 7, 8, 9, 10]
