"""The machine of an instance's life, as transcripts: events in, instructions out."""

from __future__ import annotations

import pytest

from tests.node.play import HTTP, Play, running
from unisono.control.records import Goal, Phase
from unisono.node.life import Life, Stage, status_of
from unisono.node.messages import (
    AwaitListening,
    Drain,
    Drained,
    Event,
    Exited,
    GoalChanged,
    Kill,
    LastWords,
    LeftAlone,
    Listening,
    ListensElsewhere,
    Probe,
    ProbeFailed,
    ProbeOk,
    Publish,
    SetTimer,
    Signal,
    Spawn,
    Spawned,
    SpawnFailed,
    StopProbing,
    Timer,
    Withdraw,
)
from unisono.node.moves import describe_end
from unisono.spec.model import HealthCheck, Restart

NO_CHECK = HealthCheck(kind="none")


def test_an_instance_is_spawned_watched_and_published() -> None:
    """The way up of a plain service: process, port, table."""
    play = Play()

    assert play.feed(GoalChanged(goal=Goal.RUN)) == [Spawn(generation=1)]
    assert play.feed(Spawned(running=running())) == [AwaitListening(generation=1)]
    assert play.life.reason == "not listening on port 21000 yet"
    assert play.feed(Listening(generation=1)) == [Publish(running=running())]
    assert status_of(play.life, "boot").phase is Phase.READY


def test_a_probed_instance_is_published_after_its_first_success() -> None:
    """Probes begin once it listens, fast until the first success, then at the interval."""
    play = Play(healthcheck=HTTP)
    play.feed(GoalChanged(goal=Goal.RUN), Spawned(running=running()))

    assert play.feed(Listening(generation=1)) == [Probe(generation=1, after=0.0)]
    assert play.feed(ProbeFailed(generation=1, reason="503")) == [Probe(generation=1, after=0.05)]
    assert play.feed(ProbeOk(generation=1)) == [Publish(running=running()), Probe(generation=1, after=1.0)]


def test_a_worker_without_a_port_is_ready_when_it_runs_and_never_published() -> None:
    """What serves nobody needs no table."""
    play = Play(serves=False, healthcheck=HealthCheck(kind="none"))

    instructions = play.feed(GoalChanged(goal=Goal.RUN), Spawned(running=running(port=None)))

    assert instructions == []
    assert play.life.stage is Stage.READY


def test_failures_in_the_start_period_do_not_count() -> None:
    """2 s of start period and 3 retries at 1 s: ill until 4.9 s it is starting, after 5 s unhealthy."""
    play = Play(healthcheck=HTTP)
    play.feed(GoalChanged(goal=Goal.RUN), Spawned(running=running()), Listening(generation=1))

    play.feed(ProbeFailed(generation=1, reason="503"), after=4.9)
    assert play.life.stage is Stage.STARTING
    play.feed(ProbeFailed(generation=1, reason="503"), after=0.1)

    assert play.life.stage is Stage.UNHEALTHY


def test_time_before_it_listens_never_makes_it_unhealthy() -> None:
    """A program that takes a minute to come up is still starting."""
    play = Play(healthcheck=HTTP)
    play.feed(GoalChanged(goal=Goal.RUN), Spawned(running=running()))
    play.feed(Listening(generation=1), after=60.0)

    play.feed(ProbeFailed(generation=1, reason="503"), after=1.0)

    assert play.life.stage is Stage.STARTING


def test_a_ready_instance_leaves_the_table_after_retries_failures_in_a_row() -> None:
    """Two failures are forgiven by a success; three in a row withdraw it; a success brings it back."""
    play = Play(healthcheck=HTTP)
    play.to_ready()
    fails = ProbeFailed(generation=1, reason="http /healthz answered 503")

    play.feed(fails, fails, ProbeOk(generation=1), fails, fails)
    assert play.life.stage is Stage.READY
    assert play.feed(fails) == [Withdraw(), Probe(generation=1, after=1.0)]
    assert play.life.reason == "http /healthz answered 503 (3 times in a row)"
    assert play.feed(ProbeOk(generation=1)) == [Publish(running=running()), Probe(generation=1, after=1.0)]


def test_the_goodbye_has_its_order() -> None:
    """Stop: out of the table and drained, then the signal, then, after the grace, the kill."""
    play = Play(stop_signal="SIGINT", stop_grace_period=7.0, drain_period=20.0)
    play.to_ready()

    assert play.feed(GoalChanged(goal=Goal.STOP)) == [
        StopProbing(),
        Drain(token=1, generation=1, timeout=20.0),
    ]
    assert play.feed(Drained(token=1, in_flight=0)) == [
        StopProbing(),
        Withdraw(),
        Signal(name="SIGINT"),
        SetTimer(token=2, after=7.0),
    ]
    assert play.feed(Timer(token=2)) == [Kill()]
    play.feed(Exited(generation=1, code=-9))
    assert play.life.stage is Stage.STOPPED
    assert play.life.reason == "stopped: still running 7 s after SIGINT: killed"


def test_a_kill_does_not_wait_for_requests() -> None:
    """One that hangs leaves the table and is signalled in the same step, even while it drains."""
    at_once, draining = Play(), Play()
    at_once.to_ready()
    draining.to_ready()
    draining.feed(GoalChanged(goal=Goal.STOP))

    for play in (at_once, draining):
        instructions = play.feed(GoalChanged(goal=Goal.KILL))
        assert instructions[:3] == [StopProbing(), Withdraw(), Signal(name="SIGTERM")]


def test_sigkill_as_stop_signal_kills_all_of_it_at_once() -> None:
    """There is nothing to wait for."""
    play = Play(stop_signal="SIGKILL", serves=False)
    play.to_ready()

    assert play.feed(GoalChanged(goal=Goal.STOP)) == [StopProbing(), Kill()]


def test_what_never_had_requests_is_signalled_without_draining() -> None:
    """An instance that is still starting has nothing to finish."""
    play = Play()
    play.feed(GoalChanged(goal=Goal.RUN), Spawned(running=running()))

    instructions = play.feed(GoalChanged(goal=Goal.STOP))

    assert Signal(name="SIGTERM") in instructions
    assert not any(isinstance(i, Drain) for i in instructions)


def test_one_that_is_wanted_again_while_it_drains_is_published_again() -> None:
    """Nothing was lost yet; the word of the old drain changes nothing."""
    play = Play()
    play.to_ready()
    play.feed(GoalChanged(goal=Goal.STOP))

    assert play.feed(GoalChanged(goal=Goal.RUN)) == [Publish(running=running())]
    assert play.feed(Drained(token=1, in_flight=0)) == []
    assert play.life.stage is Stage.READY


def test_a_stop_during_the_start_ends_the_process_when_it_is_there() -> None:
    """The start can't be taken back, so its outcome is awaited."""
    play = Play()
    play.feed(GoalChanged(goal=Goal.RUN))

    assert play.feed(GoalChanged(goal=Goal.STOP)) == []
    assert Signal(name="SIGTERM") in play.feed(Spawned(running=running()))


def test_the_first_crash_is_followed_by_a_start_in_the_same_step() -> None:
    """Out of the table, and spawned again, before anything is written down."""
    play = Play()
    play.to_ready()

    instructions = play.feed(Exited(generation=1, code=1), after=3.0)

    assert instructions == [StopProbing(), Withdraw(), Spawn(generation=2)]
    assert play.life.reason == "exited with 1 after 3 s"
    assert (play.life.restarts, play.life.failures) == (1, 1)


def test_the_second_crash_waits_and_the_status_says_until_when() -> None:
    """Backoff: retry_at is known, and the timer leads to the next start."""
    play = Play()
    play.to_ready()
    play.feed(Exited(generation=1, code=1), Spawned(running=running(2)))

    *_, timer = play.feed(Exited(generation=2, code=1))
    status = status_of(play.life, "boot")

    assert isinstance(timer, SetTimer)
    assert 0.075 <= timer.after <= 0.125
    assert (status.phase, status.retry_at) == (Phase.BACKOFF, play.now + timer.after)
    assert play.feed(Timer(token=timer.token)) == [Spawn(generation=3)]


def test_ten_seconds_of_health_begin_a_new_streak() -> None:
    """Nine failures in a row are forgotten by a run of 10 s, and kept by one of 9.9 s."""
    forgiven, kept = Play(life=Life(failures=9)), Play(life=Life(failures=9))
    for play, ran in ((forgiven, 10.0), (kept, 9.9)):
        play.to_ready()
        play.feed(Exited(generation=1, code=1), after=ran)

    assert (forgiven.life.failures, forgiven.life.stage) == (1, Stage.SPAWNING)
    assert (kept.life.failures, kept.life.stage) == (10, Stage.BACKOFF)


def test_the_last_hope_is_not_held_back() -> None:
    """If nobody else serves, one that once was ready waits at most 100 ms; one that never was, waits."""
    once_ready, never = Play(life=Life(failures=9)), Play(life=Life(failures=9))
    once_ready.to_ready()
    never.feed(GoalChanged(goal=Goal.RUN), Spawned(running=running()))

    *_, short = once_ready.feed(Exited(generation=1, code=1, alone=True))
    *_, long = never.feed(Exited(generation=1, code=1, alone=True))

    assert isinstance(short, SetTimer)
    assert isinstance(long, SetTimer)
    assert short.after == 0.1
    assert long.after > 20.0


def test_one_that_is_left_alone_in_backoff_is_hurried() -> None:
    """The others went while it waited."""
    play = Play(life=Life(failures=9))
    play.to_ready()
    play.feed(Exited(generation=1, code=1))

    (timer,) = play.feed(LeftAlone())

    assert isinstance(timer, SetTimer)
    assert timer.after == 0.1
    assert play.life.retry_at == play.now + 0.1


def test_a_worker_is_nobodys_last_hope() -> None:
    """Nobody asks it anything, and it is ready as soon as it runs: it waits as long as all others."""
    ended, left = (Play(life=Life(failures=9), serves=False, healthcheck=NO_CHECK) for _ in range(2))
    for play in (ended, left):
        play.feed(GoalChanged(goal=Goal.RUN), Spawned(running=running()))

    *_, timer = ended.feed(Exited(generation=1, code=1, alone=True))
    left.feed(Exited(generation=1, code=1))

    assert isinstance(timer, SetTimer)
    assert timer.after > 20.0
    assert left.feed(LeftAlone()) == []


@pytest.mark.parametrize(
    ("policy", "code", "stage"),
    [
        (Restart(policy="always"), 0, Stage.SPAWNING),
        (Restart(policy="on-failure"), 0, Stage.COMPLETED),
        (Restart(policy="on-failure"), 3, Stage.SPAWNING),
        (Restart(policy="on-failure"), None, Stage.SPAWNING),
        (Restart(policy="no"), 0, Stage.COMPLETED),
        (Restart(policy="no"), 3, Stage.FAILED),
        (Restart(policy="always", max_attempts=0), 3, Stage.FAILED),
    ],
)
def test_the_restart_policy_decides_what_follows_an_end(
    policy: Restart, code: int | None, stage: Stage
) -> None:
    """An unknown exit code counts as a failure: running twice beats not running."""
    play = Play(restart=policy)
    play.to_ready()

    play.feed(Exited(generation=1, code=code))

    assert play.life.stage is stage


def test_max_attempts_counts_restarts_in_a_row() -> None:
    """With 2 attempts the third end is the last."""
    play = Play(restart=Restart(max_attempts=2), life=Life(failures=1))
    play.to_ready()
    play.feed(Exited(generation=1, code=1))
    timer = play.life.token
    play.feed(Timer(token=timer), Spawned(running=running(2)), Exited(generation=2, code=1))

    assert play.life.stage is Stage.FAILED
    assert play.life.reason == "exited with 1 after 0 s; not started again after 2 restarts"


def test_a_job_runs_once() -> None:
    """A release command is neither published nor started again."""
    done, failed = Play(job=True), Play(job=True)
    for play, code in ((done, 0), (failed, 2)):
        assert play.feed(GoalChanged(goal=Goal.RUN), Spawned(running=running(port=None))) == []
        play.feed(Exited(generation=1, code=code))

    assert (done.life.stage, failed.life.stage) == (Stage.COMPLETED, Stage.FAILED)


def test_what_can_not_be_started_waits_from_the_first_time_on() -> None:
    """What failed a moment ago will fail now; the reason is the driver's."""
    play = Play()

    (timer,) = play.feed(GoalChanged(goal=Goal.RUN), SpawnFailed(reason="cannot start: no such file: foo"))

    assert isinstance(timer, SetTimer)
    assert timer.after >= 0.075
    assert status_of(play.life, "boot").reason == "cannot start: no such file: foo"


def test_last_words_complete_the_reason_wherever_it_stands() -> None:
    """They come a moment after the end, when the next run may already be starting."""
    play = Play()
    play.to_ready()
    play.feed(Exited(generation=1, code=1), Spawned(running=running(2)))

    play.feed(LastWords(generation=1, line="ImportError: foo"))

    assert play.life.reason == (
        "not listening on port 21000 yet (before: exited with 1 after 0 s; last line: ImportError: foo)"
    )


def test_an_instance_on_the_wrong_port_is_told_the_remedy() -> None:
    """The commonest mistake of a first file."""
    play = Play()
    play.feed(GoalChanged(goal=Goal.RUN), Spawned(running=running()))

    play.feed(ListensElsewhere(generation=1, ports=(5000,)))

    expected = "not listening on port 21000 but on 5000: let its command take {port}, or $PORT"
    assert play.life.reason == expected


@pytest.mark.parametrize(
    "late",
    [
        Exited(generation=1, code=1),
        Listening(generation=1),
        ProbeFailed(generation=1, reason="late"),
        Timer(token=0),
        Drained(token=0, in_flight=0),
    ],
)
def test_what_belongs_to_an_earlier_run_changes_nothing(late: Event) -> None:
    """Generation and token tell the news of the present from that of the past."""
    play = Play()
    play.to_ready()
    play.feed(Exited(generation=1, code=1), Spawned(running=running(2)))
    before = play.life

    assert play.feed(late) == []
    assert play.life == before


@pytest.mark.parametrize(
    ("code", "ran", "detail", "words"),
    [
        (0, 61.4, "", "exited with 0 after 61 s"),
        (-9, 0.25, "over its memory limit", "killed by SIGKILL after 0.25 s: over its memory limit"),
        (-40, 1.0, "", "killed by signal 40 after 1 s"),
        (None, 5.0, "", "ended after 5 s, its exit code is unknown because an earlier node started it"),
    ],
)
def test_an_end_is_told_in_words(code: int | None, ran: float, detail: str, words: str) -> None:
    """For `unisono ps`."""
    assert describe_end(code, ran, detail) == words
