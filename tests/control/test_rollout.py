"""Rollouts: the verdict, the end, and the way back. How instances are replaced is in test_replacing."""

from __future__ import annotations

import random
from typing import Any

import pytest

from tests.control.deciding import amended, created, directed, fresh, olds, phase_of, scene, told
from tests.control.factories import Scene, rolling, spec
from unisono.control.actions import Amend, Create
from unisono.control.decide import decide, next_deadline
from unisono.control.records import Goal, Phase, Rollout, RolloutPhase
from unisono.control.rollout import FAILED_MAX

# --- the verdict -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("phase", "status"),
    [
        (Phase.BACKOFF, {}),
        (Phase.FAILED, {}),
        (Phase.STARTING, {"restarts": 1}),
        (Phase.READY, {"restarts": 1}),
        (Phase.UNHEALTHY, {}),
    ],
)
def test_a_failed_instance_rolls_back(phase: Phase, status: dict[str, Any]) -> None:
    """A new instance that ended or turned unhealthy: back to the revision before, with the reason."""
    built = fresh(olds(scene(), 3), "new", phase, reason="ended with 1", **status)

    service = amended(built.snapshot())

    assert (service.revision, phase_of(service)) == (1, RolloutPhase.ROLLING_BACK)
    assert service.rollout is not None
    assert service.rollout.reason == "1 of 3 instances failed: ended with 1"
    assert told(built.snapshot())[:2] == ["rollout-failed", "rollout-rolling-back"]


def test_old_instances_failing_is_no_verdict() -> None:
    """An old instance that crashes says nothing about the new revision."""
    built = olds(scene(), 2).instance("web-x", Phase.BACKOFF, status={"restarts": 7})

    assert Amend not in {type(a) for a in decide(built.snapshot(), random.Random(1))}


def test_instances_made_before_it_are_no_verdict() -> None:
    """Instances of the target that an earlier rollout left behind are not this one's failures."""
    built = olds(scene(), 3).instance(
        "web-x", Phase.READY, revision=2, rollout=0, status={"restarts": 7, "ready_at": 990.0}
    )

    assert Amend not in {type(a) for a in decide(built.snapshot(), random.Random(1))}


def test_tolerated_failures() -> None:
    """As many may fail as max_failure_ratio allows; one more is a verdict."""
    update = {"max_failure_ratio": 0.5, "parallelism": 2}
    one = fresh(olds(scene(2, update=update), 2), "a", Phase.BACKOFF)
    two = fresh(fresh(olds(scene(2, update=update), 2), "a", Phase.BACKOFF), "b", Phase.BACKOFF)

    assert phase_of(amended(one.snapshot())) is RolloutPhase.ROLLING
    assert phase_of(amended(two.snapshot())) is RolloutPhase.ROLLING_BACK


def test_a_failure_counts_after_its_instance_is_gone() -> None:
    """The record remembers who failed; the same instance counts once."""
    update = {"max_failure_ratio": 0.5}
    built = fresh(
        olds(scene(2, update=update, rollout=rolling(failed=("web-gone",), failures=1)), 2),
        "a",
        Phase.BACKOFF,
    )
    same = fresh(
        olds(scene(2, update=update, rollout=rolling(failed=("web-a",), failures=1)), 2), "a", Phase.BACKOFF
    )

    assert phase_of(amended(built.snapshot())) is RolloutPhase.ROLLING_BACK
    assert Amend not in {type(a) for a in decide(same.snapshot(), random.Random(1))}


def test_a_rollout_that_never_ends_does_not_grow() -> None:
    """A first deployment goes on whatever fails; it counts all, and remembers the last ones."""
    gone = tuple(f"web-gone{number}" for number in range(FAILED_MAX - 1))
    rollout = rolling(0, 2, failed=("web-a", *gone), failures=9000)
    built = fresh(scene(2, rollout=rollout, stable=None), "a", Phase.BACKOFF)

    service = amended(fresh(built, "b", Phase.BACKOFF).snapshot())

    assert service.rollout is not None
    assert (9001, ("web-a", *gone[1:], "web-b")) == (service.rollout.failures, service.rollout.failed)


def test_a_killed_one_counts_as_failed() -> None:
    """The goal to kill is itself the trace of a failure, if its record was lost with a controller."""
    built = olds(scene(), 3).instance("web-x", Phase.STOPPING, revision=2, rollout=1, goal=Goal.KILL)

    assert phase_of(amended(built.snapshot())) is RolloutPhase.ROLLING_BACK


def test_no_progress_rolls_back() -> None:
    """No new one ready for progress_deadline: failed; the moment before, nothing."""
    update = {"progress_deadline": 60.0}
    early, late = (
        fresh(olds(scene(update=update, now=now), 3), "new", Phase.STARTING) for now in (1059.9, 1060.0)
    )

    assert decide(early.snapshot(), random.Random(1)) == ()
    assert next_deadline(early.snapshot()) == 1060.0
    turned = amended(late.snapshot()).rollout
    assert turned is not None
    assert turned.phase is RolloutPhase.ROLLING_BACK
    assert turned.progressed_at == 1060.0, "the way back has a deadline of its own"


def test_progress_starts_the_deadline_anew() -> None:
    """Each new instance that becomes ready gives the next one its full time."""
    built = fresh(olds(scene(update={"progress_deadline": 60.0}, now=1061.0), 2), "a", ready_at=1030.0)

    service = amended(fresh(built, "b", Phase.STARTING).snapshot())

    assert service.rollout is not None
    assert (service.rollout.phase, service.rollout.progressed_at) == (RolloutPhase.ROLLING, 1030.0)


def test_pause_leaves_it_for_an_operator() -> None:
    """failure_action pause: no way back, and what was ready stays."""
    built = fresh(olds(scene(update={"failure_action": "pause"}), 3), "new", Phase.BACKOFF)

    service = amended(built.snapshot())

    assert (service.revision, phase_of(service)) == (2, RolloutPhase.PAUSED)
    assert directed(built.snapshot()) == [("web-new", Goal.STOP)]


def test_paused_repairs_with_the_stable_revision() -> None:
    """While paused, lost capacity comes back as what is known to work."""
    built = fresh(olds(scene(rollout=rolling(phase=RolloutPhase.PAUSED)), 1), "new")

    assert (created(built.snapshot()), directed(built.snapshot())) == ([1], [])


def test_paused_trims_the_unproven_first() -> None:
    """Of equally busy ones scaling down while paused keeps what is stable, also where it is younger."""
    built = fresh(scene(1, rollout=rolling(phase=RolloutPhase.PAUSED)), "new")
    built.instance("web-old", created_at=2000.0)

    assert directed(built.snapshot()) == [("web-new", Goal.STOP)]


def test_continue_tells_once_and_goes_on() -> None:
    """failure_action continue: the failure is told, and the rollout goes on."""
    update = {"failure_action": "continue"}
    first = fresh(olds(scene(update=update), 3), "new", Phase.BACKOFF)
    again = fresh(
        olds(scene(update=update, rollout=rolling(failed=("web-new",), failures=1, reason="told")), 3),
        "new",
        Phase.BACKOFF,
    )

    assert told(first.snapshot()) == ["rollout-failed"]
    assert phase_of(amended(first.snapshot())) is RolloutPhase.ROLLING
    assert decide(again.snapshot(), random.Random(1)) == ()


# --- monitoring and the end ------------------------------------------------------------------------


def test_monitors_when_all_are_replaced() -> None:
    """The last old one told to stop: from now on the new ones are watched under all the load."""
    built = fresh(scene(1), "new").instance("web-old", Phase.DRAINING, goal=Goal.STOP)

    service = amended(built.snapshot())

    assert service.rollout is not None
    assert (service.rollout.phase, service.rollout.replaced_at) == (RolloutPhase.MONITORING, 1000.0)
    assert service.stable == 1


def test_does_not_monitor_while_an_old_one_is_left() -> None:
    """As many new ones ready as wanted is not enough: the last old one must have been told to stop."""
    built = fresh(olds(scene(1), 1), "new")

    assert directed(built.snapshot()) == [("web-old0", Goal.STOP)]
    assert Amend not in {type(a) for a in decide(built.snapshot(), random.Random(1))}


def test_failure_while_monitored_rolls_back() -> None:
    """A crash in the time of watching counts like one before."""
    monitoring = rolling(phase=RolloutPhase.MONITORING, replaced_at=1000.0)
    built = fresh(scene(1, rollout=monitoring), "new", restarts=1)

    assert phase_of(amended(built.snapshot())) is RolloutPhase.ROLLING_BACK


def test_done_after_monitoring() -> None:
    """The time of watching over: the revision is the stable one, the one before can be gone back to."""
    monitoring = rolling(phase=RolloutPhase.MONITORING, replaced_at=1000.0)
    early, late = (fresh(scene(1, rollout=monitoring, now=now), "new") for now in (1004.9, 1005.0))

    assert next_deadline(early.snapshot()) == 1005.0
    assert decide(early.snapshot(), random.Random(1)) == ()
    service = amended(late.snapshot())
    assert (phase_of(service), service.stable, service.history) == (RolloutPhase.DONE, 2, (1,))


def test_without_monitor_it_is_done_at_once() -> None:
    """monitor 0: done as soon as all are replaced."""
    assert phase_of(amended(fresh(scene(1, update={"monitor": 0.0}), "new").snapshot())) is RolloutPhase.DONE


# --- the way back ----------------------------------------------------------------------------------


def back(**fields: Any) -> Rollout:
    """A rollout on its way back."""
    return rolling(phase=RolloutPhase.ROLLING_BACK, reason="bad", **fields)


def test_rolling_back_replaces_the_new() -> None:
    """The way back is the same machinery: a bad one that is not even needed stops at once."""
    built = fresh(olds(scene(rollout=back(), revision=1), 3), "new", Phase.BACKOFF)

    assert directed(built.snapshot()) == [("web-new", Goal.STOP)]


def test_rolled_back_when_all_are_back() -> None:
    """All of the old revision and ready: over, remembered with its reason, and quiet."""
    service = amended(olds(scene(rollout=back(), revision=1), 3).snapshot())
    over = olds(scene(rollout=service.rollout, revision=1), 3)

    assert service.rollout is not None
    assert (service.rollout.phase, service.rollout.reason) == (RolloutPhase.ROLLED_BACK, "bad")
    assert decide(over.snapshot(), random.Random(1)) == ()


@pytest.mark.parametrize("late", [False, True])
def test_a_rollback_is_never_rolled_back(late: bool) -> None:
    """A way back that fails, by a crash or by no progress, is left as it is."""
    built = scene(1, rollout=back(), revision=1, now=1600.0 if late else 1000.0)
    fresh(built, "new").instance(
        "web-back", Phase.STARTING if late else Phase.BACKOFF, rollout=1, created_at=1000.0
    )

    service = amended(built.snapshot())

    assert (service.revision, phase_of(service)) == (1, RolloutPhase.PAUSED)
    assert told(built.snapshot())[0] == "rollout-paused"


# --- first deployments and release commands --------------------------------------------------------


def first(phase: RolloutPhase = RolloutPhase.ROLLING, *, now: float = 1000.0, replicas: int = 1) -> Scene:
    """A first deployment."""
    revisions = {1: spec(update={"release_command": ("migrate",)})}
    rollout = rolling(source=0, target=1, phase=phase)
    return Scene(now=now).service(revisions=revisions, stable=None, rollout=rollout, replicas=replicas)


def test_first_deployment_keeps_trying() -> None:
    """Nothing to go back to: failures and days without progress change nothing."""
    built = first(now=100_000.0).instance("web-1", Phase.BACKOFF, rollout=1, status={"restarts": 99})
    noted = amended(built.snapshot())

    assert phase_of(noted) is RolloutPhase.ROLLING
    assert (directed(built.snapshot()), created(built.snapshot())) == ([], [])


def test_first_deployment_is_stable_when_all_are_ready() -> None:
    """All ready: stable, without watching."""
    part = first(replicas=2).instance("web-1", rollout=1)
    whole = first(replicas=2).instance("web-1", rollout=1).instance("web-2", rollout=1)

    assert created(part.snapshot()) == [1]
    service = amended(whole.snapshot())
    assert (service.stable, phase_of(service), service.history) == (1, RolloutPhase.DONE, ())


def test_nothing_stable_is_not_worth_waiting_for() -> None:
    """A new file while the first never got ready: what is not ready makes way at once, the rest waits."""
    built = Scene().service(
        revisions={1: spec(), 2: spec(command=("new",))},
        revision=2,
        stable=None,
        replicas=2,
        rollout=rolling(source=0),
    )
    built.instance("web-1", Phase.BACKOFF).instance("web-2")

    assert directed(built.snapshot()) == [("web-1", Goal.STOP)]
    assert created(built.snapshot()) == [2, 2]


def test_release_command_runs_first_and_once() -> None:
    """One job with the release command; no instance is made or stopped while it runs."""
    built = first(RolloutPhase.RELEASING)

    made = [a.instance for a in decide(built.snapshot(), random.Random(1)) if isinstance(a, Create)]
    running = first(RolloutPhase.RELEASING).instance("web-job", Phase.STARTING, job=True, rollout=1)

    assert [(i.job, i.command, i.revision, i.rollout) for i in made] == [(True, ("migrate",), 1, 1)]
    assert decide(running.snapshot(), random.Random(1)) == ()


def test_rolls_when_the_release_command_is_done() -> None:
    """Ended with 0: rolling, its instances are made, and the job goes."""
    built = first(RolloutPhase.RELEASING).instance("web-job", Phase.COMPLETED, job=True, rollout=1)

    assert phase_of(amended(built.snapshot())) is RolloutPhase.ROLLING
    assert (created(built.snapshot()), directed(built.snapshot())) == ([1], [("web-job", Goal.STOP)])


def test_failed_release_command_of_a_first_deployment_pauses() -> None:
    """Nothing runs on data that could not be prepared."""
    built = first(RolloutPhase.RELEASING).instance(
        "web-job", Phase.FAILED, job=True, rollout=1, status={"exit_code": 3}
    )

    service = amended(built.snapshot())

    assert service.rollout is not None
    assert service.rollout.phase is RolloutPhase.PAUSED
    assert service.rollout.reason == "release command failed: exit code 3"
    assert created(built.snapshot()) == []


@pytest.mark.parametrize(
    ("action", "phase"),
    [
        ("rollback", RolloutPhase.ROLLING_BACK),
        ("pause", RolloutPhase.PAUSED),
        ("continue", RolloutPhase.PAUSED),
    ],
)
def test_failed_release_command_stops_a_rollout(action: str, phase: RolloutPhase) -> None:
    """No instance of the new revision starts, also where failures of instances are to be ignored."""
    built = olds(scene(rollout=rolling(phase=RolloutPhase.RELEASING), update={"failure_action": action}), 3)
    built.instance("web-job", Phase.FAILED, revision=2, job=True, rollout=1)

    assert phase_of(amended(built.snapshot())) is phase
    assert created(built.snapshot()) == []


def test_release_command_has_the_progress_deadline() -> None:
    """One that hangs is stopped when the deadline comes."""
    built = first(RolloutPhase.RELEASING, now=1600.0).instance("web-job", Phase.STARTING, job=True, rollout=1)

    assert phase_of(amended(built.snapshot())) is RolloutPhase.PAUSED
    assert directed(built.snapshot()) == [("web-job", Goal.STOP)]


def test_two_release_commands_never_run_together() -> None:
    """A new rollout stops the job of the one before, and waits until it is gone."""
    built = olds(scene(rollout=rolling(phase=RolloutPhase.RELEASING, serial=2)), 3)
    built.instance("web-job", Phase.STARTING, revision=2, job=True, rollout=1)

    assert (directed(built.snapshot()), created(built.snapshot())) == ([("web-job", Goal.STOP)], [])


def test_old_instances_are_kept_while_releasing() -> None:
    """While the release command runs, what is lost comes back as the old revision."""
    built = olds(scene(rollout=rolling(phase=RolloutPhase.RELEASING)), 2)
    built.instance("web-job", Phase.STARTING, revision=2, job=True, rollout=1)

    assert created(built.snapshot()) == [1]
