"""A rollout's canary: what the figures say, and what the controller makes of it."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.control.deciding import created, directed, told
from tests.control.factories import APP, Scene, rolling, spec
from unisono.control.actions import Amend
from unisono.control.canary import Verdict, instances_of, judge, percentile, since
from unisono.control.decide import decide, next_deadline
from unisono.control.records import Figures, Goal, Phase, Rollout, RolloutPhase, Service
from unisono.control.snapshot import Snapshot
from unisono.spec.requests import Canary, Success

STEP = Canary(share=0.05, monitor=30.0)
COUNTS = st.integers(0, 10_000)


def figures(requests: int, failures: int = 0, **latency: int) -> Figures:
    """Counts, with answers by their bucket: ``ms100=3``."""
    buckets = tuple((int(name[2:]) / 1000, count) for name, count in latency.items())
    return Figures(requests=requests, failures=failures, latency=buckets)


def verdict(seen: Figures, elapsed: float = 30.0, step: Canary = STEP) -> Verdict:
    return judge(step, seen, elapsed, 600.0)


class TestJudge:
    def test_a_good_one_passes_when_its_time_is_over(self) -> None:
        """Not before; the words have the figures."""
        seen = figures(200, 1, ms10=190, ms100=9)

        assert verdict(seen, 29.9).kind == "open"
        assert verdict(seen) == Verdict(
            kind="passed", words="199 of 200 requests succeeded (99.5 %), p99 100 ms"
        )

    def test_too_many_failures_fail(self) -> None:
        """The words say what was wanted."""
        assert verdict(figures(200, 3)) == Verdict(
            kind="failed", words="197 of 200 requests succeeded (98.5 %), want 99 %"
        )

    def test_too_slow_fails(self) -> None:
        """By the upper end of the bucket that the 99th percentile lies in."""
        step = Canary(success=Success(p99=0.2))

        assert verdict(figures(100, ms100=99, ms500=1), step=step).kind == "passed"
        assert verdict(figures(100, ms100=98, ms500=2), step=step) == Verdict(
            kind="failed", words="100 of 100 requests succeeded (100 %), p99 500 ms, want at most 200 ms"
        )

    def test_too_few_requests_say_nothing(self) -> None:
        """It goes on beyond its time, and fails when patience ends."""
        assert verdict(figures(19), 629.0).kind == "open"
        assert verdict(figures(19), 630.0) == Verdict(
            kind="failed", words="19 requests in 630 s, want 20 to judge by"
        )

    def test_none_may_be_enough(self) -> None:
        """For a service that nobody asks."""
        assert verdict(figures(0), step=Canary(success=Success(min_requests=0))).kind == "passed"

    @pytest.mark.parametrize(("requests", "failures", "kind"), [(3, 3, "failed"), (2, 2, "open")])
    def test_what_is_sure_ends_it_early(self, requests: int, failures: int, kind: str) -> None:
        """A revision that fails them all is ejected by the gateway and gets hardly any more."""
        assert verdict(figures(requests, failures), 0.5).kind == kind

    @given(st.integers(1, 10_000), st.data())
    def test_a_good_one_is_never_ended_early(self, requests: int, data: st.DataObject) -> None:
        """As long as the share that succeeds is the one that is wanted."""
        failures = data.draw(st.integers(0, requests // 100))

        assert verdict(figures(requests, failures), 0.0).kind == "open"

    @given(COUNTS, COUNTS, st.floats(0, 2000))
    def test_once_passed_or_failed_it_stays_so_with_time(self, good: int, bad: int, elapsed: float) -> None:
        """The same figures later are no better and no worse, but for a patience that ends."""
        seen = figures(good + bad, bad)
        now, later = verdict(seen, elapsed), verdict(seen, elapsed + 10_000)

        assert later.kind != "open"
        assert now.kind in ("open", later.kind)


class TestFigures:
    @given(COUNTS, COUNTS, COUNTS, COUNTS)
    def test_what_came_since_is_the_difference(self, a: int, b: int, more: int, bad: int) -> None:
        """Of requests, failures and each bucket."""
        before = Figures(requests=a + b, failures=b, latency=((0.1, a),))
        now = Figures(requests=a + b + more + bad, failures=b + bad, latency=((0.1, a + 1), (0.2, more)))

        found = since(before, now)

        assert found == Figures(requests=more + bad, failures=bad, latency=((0.1, 1), (0.2, more)))

    def test_a_gateway_that_was_started_anew_began_at_nothing(self) -> None:
        """What it counted by now is all there is."""
        assert since(figures(100, 5), figures(3)) == figures(3)

    def test_a_percentile_of_nothing_is_none(self) -> None:
        """Rather than a number that looks good."""
        assert percentile(figures(0), 0.99) is None

    @pytest.mark.parametrize(
        ("share", "replicas", "count"), [(0.05, 3, 1), (0.0, 3, 1), (0.5, 3, 2), (0.1, 30, 3), (1.0, 3, 3)]
    )
    def test_a_share_of_the_requests_needs_that_share_of_instances(
        self, share: float, replicas: int, count: int
    ) -> None:
        """At least one."""
        assert instances_of(Canary(share=share), replicas) == count


def scene(*steps: Canary, rollout: dict[str, Any] | None = None, now: float = 1000.0, **update: Any) -> Scene:
    """Three instances of revision 1, and a rollout to revision 2 that begins with these steps."""
    revisions = {1: spec(), 2: spec(command=("new",), update={"canary": steps or (STEP,), **update})}
    begun = rolling(phase=RolloutPhase.CANARY, **(rollout or {}))
    built = Scene(now=now).service(revisions=revisions, replicas=3, rollout=begun, revision=2, stable=1)
    for number in range(3):
        built.instance(f"web-old{number}")
    return built


def tried(built: Scene, name: str = "new", phase: Phase = Phase.READY, **status: Any) -> Scene:
    """An instance of the revision that is tried."""
    status = {"ready_at": 1000.0, **status} if phase is Phase.READY else status
    return built.instance(f"web-{name}", phase, revision=2, rollout=1, created_at=1000.0, status=status)


def watched(seen: Figures, now: float = 1030.0, *steps: Canary, **update: Any) -> Scene:
    """A step that began at 1000 with nothing counted, and what is counted by now."""
    begun = {"base": Figures(), "stepped_at": 1000.0}
    built = tried(scene(*steps, rollout=begun, now=now, **update))
    built.measured[APP, "web", 2] = seen
    return built


def record(snapshot: Snapshot) -> Service:
    """The service's record after a decision."""
    found = [a.service for a in decide(snapshot, random.Random(1)) if isinstance(a, Amend)]
    return found[0] if found else next(v.service for v in snapshot.services.values() if v.service)


def rollout_of(snapshot: Snapshot) -> Rollout:
    """Where the rollout stands after a decision."""
    rollout = record(snapshot).rollout
    assert rollout is not None
    return rollout


class TestRollout:
    def test_what_is_tried_comes_on_top(self) -> None:
        """No old instance goes; what was counted before is kept."""
        built = scene()
        built.measured[APP, "web", 2] = figures(7)

        snapshot = built.snapshot()

        assert (created(snapshot), directed(snapshot)) == ([2], [])
        assert rollout_of(snapshot).base == figures(7)
        assert told(snapshot) == ["rollout-canary"]

    def test_an_old_instance_that_is_lost_comes_back_as_it_was(self) -> None:
        """Of the proven revision; what is tried stays one."""
        built = tried(scene(rollout={"base": Figures()}))
        built.records.pop(f"instance/{APP}/web/web-old0")

        assert created(built.snapshot()) == [1]

    def test_its_time_begins_when_it_is_ready(self) -> None:
        """Not with its start."""
        begun = {"base": Figures()}
        starting = tried(scene(rollout=begun, now=1005.0), phase=Phase.STARTING).snapshot()
        ready = tried(scene(rollout=begun, now=1005.0)).snapshot()

        assert rollout_of(starting).stepped_at is None
        assert rollout_of(ready).stepped_at == 1005.0

    def test_a_good_one_is_rolled_out(self) -> None:
        """The event has the figures."""
        snapshot = watched(figures(100)).snapshot()

        assert rollout_of(snapshot).phase is RolloutPhase.ROLLING
        assert rollout_of(snapshot).progressed_at == 1030.0
        assert told(snapshot)[0] == "rollout-canary-passed"

    def test_a_bad_one_goes_back_and_says_why(self) -> None:
        """What is tried stops in the same decision; no old instance does."""
        snapshot = watched(figures(60, 30), 1001.0).snapshot()
        after = record(snapshot)

        assert after.revision == 1
        assert rollout_of(snapshot).phase is RolloutPhase.ROLLING_BACK
        words = "canary of revision 2: 30 of 60 requests succeeded (50 %), want 99 %"
        assert rollout_of(snapshot).reason == words
        assert directed(snapshot) == [("web-new", Goal.STOP)]

    def test_a_crash_is_a_failure_as_ever(self) -> None:
        """Whatever its requests say."""
        built = tried(scene(rollout={"base": Figures()}), phase=Phase.BACKOFF)

        assert rollout_of(built.snapshot()).phase is RolloutPhase.ROLLING_BACK

    def test_never_ready_is_a_failure_too(self) -> None:
        """After progress_deadline."""
        begun = {"base": Figures()}
        built = tried(scene(rollout=begun, now=1601.0, progress_deadline=600.0), phase=Phase.STARTING)

        assert rollout_of(built.snapshot()).phase is RolloutPhase.ROLLING_BACK

    def test_a_long_step_is_no_stall(self) -> None:
        """progress_deadline is about instances that do not get ready."""
        step = Canary(monitor=5000.0)

        assert rollout_of(watched(figures(9), 3000.0, step).snapshot()).phase is RolloutPhase.CANARY

    def test_steps_follow_one_another(self) -> None:
        """Each counts anew, with the instances that it needs."""
        steps = (STEP, Canary(share=0.5))
        first = watched(figures(100), 1030.0, *steps).snapshot()
        second = tried(scene(*steps, rollout={"step": 1, "base": figures(100)})).snapshot()

        moved = rollout_of(first)
        assert (moved.phase, moved.step, moved.base, moved.stepped_at) == (RolloutPhase.CANARY, 1, None, None)
        assert created(second) == [2]

    @pytest.mark.parametrize(
        ("action", "phase"), [("pause", RolloutPhase.PAUSED), ("continue", RolloutPhase.ROLLING)]
    )
    def test_failure_action_is_obeyed(self, action: str, phase: RolloutPhase) -> None:
        """As for every other failure."""
        snapshot = watched(figures(60, 30), 1030.0, failure_action=action).snapshot()

        assert rollout_of(snapshot).phase is phase
        assert "30 of 60" in rollout_of(snapshot).reason

    def test_figures_are_looked_at_every_second(self) -> None:
        """Nobody tells when they change."""
        assert next_deadline(watched(figures(1), 1007.5).snapshot()) == 1008.5

    def test_a_step_that_is_gone_holds_nothing_up(self) -> None:
        """A file with fewer steps was applied meanwhile."""
        built = tried(scene(STEP, rollout={"step": 3, "base": None}))

        assert rollout_of(built.snapshot()).phase is RolloutPhase.ROLLING

    def test_scaled_to_nothing_it_goes_on(self) -> None:
        """There is nothing to compare."""
        built = scene()
        service = built.records[f"service/{APP}/web"]
        assert isinstance(service, Service)
        built.service(
            revisions={2: spec(update={"canary": (STEP,)})}, replicas=0, revision=2, rollout=service.rollout
        )

        assert rollout_of(built.snapshot()).phase is RolloutPhase.ROLLING
