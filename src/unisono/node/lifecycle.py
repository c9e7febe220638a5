"""
The life of one instance, as a pure machine: a state and an event give a new state and instructions.

There is no input or output here, no clock and no chance: time and a seeded generator come in, and
:mod:`unisono.node.actor` carries out the instructions. The moves that several events lead to are in
:mod:`unisono.node.moves`, how long restarts wait in :mod:`unisono.node.backoff`.

What always holds, whatever events come in whatever order (:func:`unisono.node.life.check_invariants`):

* there is at most one process: a new one is ordered only when the last one is known to have ended;
* a process that requests were sent to is signalled only after the routing table went without it and
  its requests are done or have had their time (:class:`Drained`), unless the goal is to kill it;
* an event of an earlier process (another ``generation``), of an earlier timer or of an earlier drain
  (another ``token``) changes nothing.

:data:`TRANSITIONS` is the machine; an event that has no entry for a stage changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from unisono.control.records import Goal, Phase, Status
from unisono.node import moves
from unisono.node.backoff import LAST_HOPE_SECONDS, restart_delay
from unisono.node.drivers.base import Running
from unisono.node.life import ALIVE, Context, Life, Stage, check_invariants
from unisono.node.messages import (
    Drained,
    Event,
    Exited,
    GoalChanged,
    Instruction,
    Kill,
    LastWords,
    LeftAlone,
    Listening,
    ListensElsewhere,
    Probe,
    ProbeFailed,
    ProbeOk,
    Returned,
    Spawned,
    SpawnFailed,
    Suspected,
    Tell,
    Timer,
)
from unisono.node.moves import Step


def step(life: Life, event: Event, context: Context) -> Step:
    """
    The next state, and what is to be done now, in that order.

    Raises:
        InvalidLife: The new state breaks a rule.
    """
    handler = TRANSITIONS.get((life.stage, type(event)))
    if handler is None or _stale(life, event):
        return life, []
    after, instructions = handler(life, event, context)
    check_invariants(after)
    return after, instructions


def adopted(status: Status, running: Running | None, boot_id: str, goal: Goal, context: Context) -> Step:
    """
    The machine of an instance that an earlier node ran, and what is to be done first.

    ``running`` is its process if it still runs. One that was ready stays ready, and is published before
    anything else is done, so that no table lacks it.
    """
    life = Life(
        stage=Stage(status.phase.value),
        since=status.since,
        generation=status.generation,
        spawned_at=status.since,
        ready_at=status.ready_at,
        healthy_since=status.ready_at,
        failures=status.failures,
        restarts=status.restarts,
        retry_at=(status.retry_at or context.now) if status.phase is Phase.BACKOFF else None,
        exit_code=status.exit_code,
        reason=status.reason,
    )
    instructions: list[Instruction]
    if running is not None:
        life, instructions = _adopt_running(life, running, context)
        life, more = step(life, GoalChanged(goal=goal), context)
        instructions += more
    elif goal is not Goal.RUN:
        stopped = replace(life, goal=goal, retry_at=None)
        life, instructions = moves.enter(stopped, Stage.STOPPED, context, reason="stopped"), []
    else:
        life, instructions = _adopt_ended(life, status.boot_id == boot_id, context)
    check_invariants(life)
    return life, instructions


def _adopt_running(life: Life, running: Running, cx: Context) -> Step:
    life = replace(life, running=running, generation=running.generation, retry_at=None)
    if life.stage in {Stage.READY, Stage.DRAINING}:
        # One that was draining goes back into the table only if its goal is to run after all; if not, the
        # goal, which comes next, drains it anew.
        return moves.ready(replace(life, ready_at=life.ready_at or cx.now), cx, since=life.since)
    if life.stage is Stage.STOPPING:
        return moves.send_signal(replace(life, stage=Stage.UNHEALTHY), cx)
    if life.stage is Stage.UNHEALTHY and cx.checked:
        # It may have been published before: drain it like one that was.
        life = replace(life, published=cx.routed)
        return life, [Probe(generation=life.generation, after=0.0)]
    return moves.starting(life, cx)


def _adopt_ended(life: Life, same_boot: bool, cx: Context) -> Step:
    if life.stage in {Stage.COMPLETED, Stage.FAILED}:
        return life, []
    # A start after the last one that was written down may have gone unseen: leave its number out.
    life = replace(life, generation=life.generation + 1, failures=life.failures if same_boot else 0)
    if life.stage in ALIVE:
        how = "ended while the node was down" if same_boot else "ended when the machine went down"
        return moves.ended(life, None, how, alone=False, cx=cx)
    if life.stage is Stage.BACKOFF and same_boot:
        return moves.set_timer(life, max(0.0, (life.retry_at or cx.now) - cx.now))
    return moves.spawn(life, cx)


# Handlers, in the order of a life. Each is reached through TRANSITIONS alone.


def _stale(life: Life, event: Event) -> bool:
    match event:
        case (
            Listening() | ListensElsewhere() | ProbeOk() | ProbeFailed() | Suspected() | Returned() | Exited()
        ):
            return event.generation != life.generation
        case LastWords():
            return event.generation != life.ended_generation
        case Drained() | Timer():
            return event.token != life.token
        case Spawned():
            return event.running.generation != life.generation
        case _:
            return False


def _on_goal_idle(life: Life, event: GoalChanged, cx: Context) -> Step:
    """No process: run one, or be done."""
    life = replace(life, goal=event.goal)
    if event.goal is Goal.RUN:
        return moves.spawn(life, cx) if life.stage in {Stage.PENDING, Stage.STOPPED} else (life, [])
    return moves.enter(life, Stage.STOPPED, cx, retry_at=None, reason="stopped"), []


def _on_goal_spawning(life: Life, event: GoalChanged, cx: Context) -> Step:
    """A start is under way: remember; its outcome decides."""
    return replace(life, goal=event.goal), []


def _on_goal_up(life: Life, event: GoalChanged, cx: Context) -> Step:
    life = replace(life, goal=event.goal)
    return (life, []) if event.goal is Goal.RUN else moves.leave(life, cx)


def _on_goal_draining(life: Life, event: GoalChanged, cx: Context) -> Step:
    life = replace(life, goal=event.goal)
    if event.goal is Goal.RUN:  # it is wanted again before it was told to go
        return moves.ready(replace(life, token=life.token + 1), cx)
    return moves.send_signal(life, cx) if event.goal is Goal.KILL else (life, [])


def _on_goal_stopping(life: Life, event: GoalChanged, cx: Context) -> Step:
    """It has been told to go; what is wanted afterwards decides when it has gone."""
    return replace(life, goal=event.goal), []


def _on_spawned(life: Life, event: Spawned, cx: Context) -> Step:
    life = replace(
        life,
        running=event.running,
        published=False,
        killed=False,
        spawned_at=cx.now,
        listening_at=None,
        ready_at=None,
        healthy_since=None,
        probe_failures=0,
        aside="",
    )
    if life.goal is not Goal.RUN:
        return moves.send_signal(life, cx)
    life, instructions = moves.starting(life, cx)
    instructions.append(Tell(kind="instance-started", message=f"process {event.running.pid}"))
    if warning := event.running.warning:
        instructions.append(Tell(kind="instance-limited", message=warning))
    return life, instructions


def _on_spawn_failed(life: Life, event: SpawnFailed, cx: Context) -> Step:
    if life.goal is not Goal.RUN:
        return moves.enter(life, Stage.STOPPED, cx, reason="stopped"), []
    life = replace(life, failures=life.failures + 1, exit_code=None)
    tell = Tell(kind="instance-unstartable", message=event.reason)
    # What could not start a moment ago will not start now: the first retry waits too.
    delay = restart_delay(life.failures + 1, cx.rng)
    life = replace(life, last_end=event.reason, ended_generation=0)  # it wrote no last line
    life, instructions = moves.restart_or_give_up(
        life, event.reason, cx, clean=False, alone=event.alone, delay=delay
    )
    return life, [*instructions, tell]


def _on_listening(life: Life, event: Listening, cx: Context) -> Step:
    life = replace(life, listening_at=cx.now)
    if cx.checked:
        return life, [Probe(generation=life.generation, after=0.0)]
    return moves.ready(life, cx)


def _on_listens_elsewhere(life: Life, event: ListensElsewhere, cx: Context) -> Step:
    """The commonest mistake of a first file, so the remedy is named."""
    port = life.running.port if life.running else None
    where = " and ".join(str(other) for other in event.ports)
    reason = f"not listening on port {port} but on {where}: let its command take {{port}}, or $PORT"
    return replace(life, reason=reason), []


def _on_probe_ok_down(life: Life, event: ProbeOk, cx: Context) -> Step:
    """Starting or unhealthy, and now well."""
    return moves.ready(life, cx)


def _on_probe_ok_up(life: Life, event: ProbeOk, cx: Context) -> Step:
    reason = life.running.warning if life.running else ""
    return replace(life, probe_failures=0, reason=reason), [moves.next_probe(life, cx)]


def _on_probe_failed_starting(life: Life, event: ProbeFailed, cx: Context) -> Step:
    """
    Before the first success it is probed fast, and time decides, not the number of probes.

    Time before it listens never counts: how long a program takes to come up is its own affair, and the
    progress deadline of a rollout bounds it.
    """
    check = cx.spec.healthcheck
    counted_from = (life.listening_at or life.spawned_at) + check.start_period
    if cx.now - counted_from >= check.retries * check.interval:
        return moves.unhealthy(life, event.reason, cx)
    life = replace(life, reason=event.reason)
    return life, [Probe(generation=life.generation, after=check.start_interval)]


def _on_probe_failed_up(life: Life, event: ProbeFailed, cx: Context) -> Step:
    life = replace(life, probe_failures=life.probe_failures + 1)
    if life.probe_failures >= cx.spec.healthcheck.retries:
        return moves.unhealthy(life, f"{event.reason} ({life.probe_failures} times in a row)", cx)
    return replace(life, reason=event.reason), [moves.next_probe(life, cx)]


def _on_probe_failed_down(life: Life, event: ProbeFailed, cx: Context) -> Step:
    return replace(life, reason=event.reason), [moves.next_probe(life, cx)]


def _on_suspected(life: Life, event: Suspected, cx: Context) -> Step:
    """The gateway's word ends nobody, but it is a reason to ask at once rather than when it is time."""
    life = replace(life, aside=f"gets no requests: {event.reason}" if event.ejected else life.aside)
    if not cx.checked:
        return life, []
    # What the probe says takes the place of the reason.
    life = life if event.ejected else replace(life, reason=event.reason)
    return life, [Probe(generation=life.generation, after=0.0)]


def _on_returned(life: Life, event: Returned, cx: Context) -> Step:
    return replace(life, aside=""), []


def _on_drained(life: Life, event: Drained, cx: Context) -> Step:
    life, instructions = moves.send_signal(life, cx)
    if event.in_flight:
        message = f"{event.in_flight} requests were still running after {cx.spec.drain_period:g} s"
        instructions.append(Tell(kind="instance-drain-timeout", message=message))
    return life, instructions


def _on_timer_stopping(life: Life, event: Timer, cx: Context) -> Step:
    message = f"still running {cx.spec.stop_grace_period:g} s after {cx.spec.stop_signal}: killed"
    life = replace(life, killed=True, reason=message)
    return life, [Kill(), Tell(kind="instance-killed", message=message)]


def _on_timer_backoff(life: Life, event: Timer, cx: Context) -> Step:
    return moves.spawn(replace(life, restarts=life.restarts + 1), cx)


def _on_left_alone(life: Life, event: LeftAlone, cx: Context) -> Step:
    """Nobody else can serve: one that once could is not held back longer than a moment."""
    left = (life.retry_at or cx.now) - cx.now
    if not cx.routed or life.ready_at is None or left <= LAST_HOPE_SECONDS:
        return life, []
    return moves.set_timer(replace(life, retry_at=cx.now + LAST_HOPE_SECONDS), LAST_HOPE_SECONDS)


def _on_exited(life: Life, event: Exited, cx: Context) -> Step:
    how = moves.describe_end(event.code, max(0.0, cx.now - life.spawned_at), event.detail)
    return moves.ended(life, event.code, how, event.alone, cx)


def _on_last_words(life: Life, event: LastWords, cx: Context) -> Step:
    """Complete what is said of the last end, whether or not the next run has begun."""
    words = f"{life.last_end}; last line: {event.line}"
    return replace(life, reason=life.reason.replace(life.last_end, words), last_end=words), []


Handler = Callable[[Life, "Event", Context], Step]

_IDLE = (Stage.PENDING, Stage.BACKOFF, Stage.COMPLETED, Stage.FAILED, Stage.STOPPED)
_UP = (Stage.STARTING, Stage.READY, Stage.UNHEALTHY)


def _table() -> Mapping[tuple[Stage, type], Handler]:
    rows: list[tuple[tuple[Stage, ...], type, Callable[..., Step]]] = [
        (_IDLE, GoalChanged, _on_goal_idle),
        ((Stage.SPAWNING,), GoalChanged, _on_goal_spawning),
        (_UP, GoalChanged, _on_goal_up),
        ((Stage.DRAINING,), GoalChanged, _on_goal_draining),
        ((Stage.STOPPING,), GoalChanged, _on_goal_stopping),
        ((Stage.SPAWNING,), Spawned, _on_spawned),
        ((Stage.SPAWNING,), SpawnFailed, _on_spawn_failed),
        ((Stage.STARTING,), Listening, _on_listening),
        ((Stage.STARTING, Stage.UNHEALTHY), ProbeOk, _on_probe_ok_down),
        ((Stage.READY,), ProbeOk, _on_probe_ok_up),
        ((Stage.STARTING,), ProbeFailed, _on_probe_failed_starting),
        ((Stage.READY,), ProbeFailed, _on_probe_failed_up),
        ((Stage.UNHEALTHY,), ProbeFailed, _on_probe_failed_down),
        ((Stage.READY,), Suspected, _on_suspected),
        ((Stage.READY, Stage.UNHEALTHY), Returned, _on_returned),
        ((Stage.DRAINING,), Drained, _on_drained),
        ((Stage.STOPPING,), Timer, _on_timer_stopping),
        ((Stage.BACKOFF,), Timer, _on_timer_backoff),
        ((Stage.BACKOFF,), LeftAlone, _on_left_alone),
        (tuple(sorted(ALIVE)), Exited, _on_exited),
        ((Stage.SPAWNING, Stage.STARTING, Stage.BACKOFF, Stage.FAILED), LastWords, _on_last_words),
        ((Stage.STARTING,), ListensElsewhere, _on_listens_elsewhere),
    ]
    return {(stage, event): handler for stages, event, handler in rows for stage in stages}


TRANSITIONS: Mapping[tuple[Stage, type], Handler] = _table()
