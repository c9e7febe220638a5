"""Replacing the instances of one revision by those of another: how many at a time, and which first."""

from __future__ import annotations

import random

import pytest

from tests.control.deciding import created, directed, fresh, olds, scene
from tests.control.factories import Scene, rolling, spec
from unisono.control.decide import decide, next_deadline
from unisono.control.records import Goal, Phase


def test_start_first_makes_one_more() -> None:
    """The first step makes a new instance and stops none."""
    snapshot = olds(scene(), 3).snapshot()

    assert (created(snapshot), directed(snapshot)) == ([2], [])


def test_parallelism_is_the_batch() -> None:
    """So many new ones at a time, and 0 means all."""
    two = olds(scene(update={"parallelism": 2}), 3)
    whole = olds(scene(update={"parallelism": 0}), 3)

    assert (created(two.snapshot()), created(whole.snapshot())) == ([2, 2], [2, 2, 2])


@pytest.mark.parametrize("phase", [None, Phase.STARTING])
def test_old_stays_until_new_is_ready(phase: Phase | None) -> None:
    """Being late kills nobody: the old ones wait, and no further new one is made."""
    snapshot = fresh(olds(scene(), 3), "new", phase).snapshot()

    assert decide(snapshot, random.Random(1)) == ()


def test_ready_one_takes_the_place_of_an_idle_old() -> None:
    """A new one that is ready lets one old one go, the idlest."""
    built = fresh(olds(scene(), 3), "new")
    built.in_flight = {"web-old0": 3, "web-old1": 1, "web-old2": 2}

    assert directed(built.snapshot()) == [("web-old1", Goal.STOP)]


def test_broken_old_ones_go_first() -> None:
    """Of the old ones those that serve nobody make way first."""
    built = fresh(olds(scene(), 2), "new").instance("web-broken", Phase.BACKOFF)

    assert directed(built.snapshot()) == [("web-broken", Goal.STOP)]


def test_delay_between_batches() -> None:
    """After one became ready, the next is made when the delay is over; the first does not wait."""
    early, late = (
        fresh(olds(scene(update={"delay": 10.0}, now=now), 2), "new", ready_at=1005.0)
        for now in (1010.0, 1015.0)
    )
    first = olds(scene(update={"delay": 10.0}), 3)

    assert [created(s.snapshot()) for s in (early, late, first)] == [[], [2], [2]]


def test_wakes_for_the_next_batch() -> None:
    """The end of the delay is a time to decide at."""
    built = fresh(
        olds(scene(update={"delay": 10.0}, now=1007.0, rollout=rolling(progressed_at=1005.0)), 2), "new"
    )

    assert next_deadline(built.snapshot()) == 1015.0


def test_stop_first_stops_then_makes() -> None:
    """Stop-first: an old one stops, and only when it is gone a new one is made."""
    update = {"order": "stop-first"}
    begin = olds(scene(update=update), 3)
    stopping = olds(scene(update=update), 2).instance("web-x", Phase.DRAINING, goal=Goal.STOP)
    gone = olds(scene(update=update), 2)

    assert (len(directed(begin.snapshot())), created(begin.snapshot())) == (1, [])
    assert decide(stopping.snapshot(), random.Random(1)) == ()
    assert (directed(gone.snapshot()), created(gone.snapshot())) == ([], [2])


def test_stop_first_waits_for_the_new_one() -> None:
    """The next old one stops when the new one is ready."""
    update = {"order": "stop-first"}
    starting = fresh(olds(scene(update=update), 2), "new", Phase.STARTING)
    ready = fresh(olds(scene(update=update), 2), "new")

    assert (len(directed(starting.snapshot())), len(directed(ready.snapshot()))) == (0, 1)


def test_own_port_means_stop_first() -> None:
    """Two programs with one port can't run at once, whatever order the file asks for."""
    built = Scene().service(
        revisions={1: spec(port=9000), 2: spec(port=9000, command=("new",))},
        revision=2,
        rollout=rolling(),
    )

    snapshot = built.instance("web-old").snapshot()

    assert (directed(snapshot), created(snapshot)) == ([("web-old", Goal.STOP)], [])


def test_scaling_down_during_a_rollout() -> None:
    """Fewer wanted: old ones that are too many stop at once, as many as wanted stay ready."""
    built = fresh(olds(scene(replicas=1), 3), "new", Phase.STARTING)

    assert len(directed(built.snapshot())) == 2


def test_scaling_up_during_a_rollout() -> None:
    """More wanted: what is missing is made of the new revision."""
    assert created(olds(scene(replicas=5), 3).snapshot()) == [2, 2, 2]
