"""
The life of one instance, as a pure machine: a state and an event give a new state and instructions.

There is no input or output here, no clock and no chance: time and a seeded generator come in, and
:mod:`unisono.node.actor` carries out the instructions. How long restarts wait is in
:mod:`unisono.node.backoff`.

What always holds, whatever events come in whatever order (:func:`unisono.node.life.check_invariants`):

* there is at most one process: a new one is ordered only when the last one is known to have ended;
* a process that requests were sent to is signalled only after the routing table went without it and
  its requests are done or have had their time (:class:`Drained`), unless the goal is to kill it;
* an event of an earlier process (another ``generation``), of an earlier timer or of an earlier drain
  (another ``token``) changes nothing.

:data:`TRANSITIONS` is the machine; an event that has no entry for a stage changes nothing.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from dataclasses import replace

from unisono.control.records import Goal, Phase, Status
from unisono.node.backoff import HEALTHY_SECONDS, LAST_HOPE_SECONDS, restart_delay
from unisono.node.drivers.base import Running
from unisono.node.life import ALIVE, Context, InvalidLife, Life, Stage, check_invariants
from unisono.node.messages import (
    AwaitListening,
    Drain,
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
    Publish,
    Returned,
    SetTimer,
    Signal,
    Spawn,
    Spawned,
    SpawnFailed,
    StopProbing,
    Suspected,
    Tell,
    Timer,
    Withdraw,
)

Step = tuple["Life", list[Instruction]]


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
        life, instructions = _enter(stopped, Stage.STOPPED, context, reason="stopped"), []
    else:
        life, instructions = _adopt_ended(life, status.boot_id == boot_id, context)
    check_invariants(life)
    return life, instructions


def _adopt_running(life: Life, running: Running, cx: Context) -> Step:
    life = replace(life, running=running, generation=running.generation, retry_at=None)
    if life.stage in {Stage.READY, Stage.DRAINING}:
        # One that was draining goes back into the table only if its goal is to run after all; if not, the
        # goal, which comes next, drains it anew.
        return _ready(replace(life, ready_at=life.ready_at or cx.now), cx, since=life.since)
    if life.stage is Stage.STOPPING:
        return _signal(replace(life, stage=Stage.UNHEALTHY), cx)
    if life.stage is Stage.UNHEALTHY and cx.checked:
        # It may have been published before: drain it like one that was.
        life = replace(life, published=cx.routed)
        return life, [Probe(generation=life.generation, after=0.0)]
    return _starting(life, cx)


def _adopt_ended(life: Life, same_boot: bool, cx: Context) -> Step:
    if life.stage in {Stage.COMPLETED, Stage.FAILED}:
        return life, []
    # A start after the last one that was written down may have gone unseen: leave its number out.
    life = replace(life, generation=life.generation + 1, failures=life.failures if same_boot else 0)
    if life.stage in ALIVE:
        how = "ended while the node was down" if same_boot else "ended when the machine went down"
        return _ended(life, None, how, alone=False, cx=cx)
    if life.stage is Stage.BACKOFF and same_boot:
        return _set_timer(life, max(0.0, (life.retry_at or cx.now) - cx.now))
    return _spawn(life, cx)


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
        return _spawn(life, cx) if life.stage in {Stage.PENDING, Stage.STOPPED} else (life, [])
    return _enter(life, Stage.STOPPED, cx, retry_at=None, reason="stopped"), []


def _on_goal_spawning(life: Life, event: GoalChanged, cx: Context) -> Step:
    """A start is under way: remember; its outcome decides."""
    return replace(life, goal=event.goal), []


def _on_goal_up(life: Life, event: GoalChanged, cx: Context) -> Step:
    life = replace(life, goal=event.goal)
    return (life, []) if event.goal is Goal.RUN else _leave(life, cx)


def _on_goal_draining(life: Life, event: GoalChanged, cx: Context) -> Step:
    life = replace(life, goal=event.goal)
    if event.goal is Goal.RUN:  # it is wanted again before it was told to go
        return _ready(replace(life, token=life.token + 1), cx)
    return _signal(life, cx) if event.goal is Goal.KILL else (life, [])


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
        return _signal(life, cx)
    life, instructions = _starting(life, cx)
    instructions.append(Tell(kind="instance-started", message=f"process {event.running.pid}"))
    if warning := event.running.warning:
        instructions.append(Tell(kind="instance-limited", message=warning))
    return life, instructions


def _on_spawn_failed(life: Life, event: SpawnFailed, cx: Context) -> Step:
    if life.goal is not Goal.RUN:
        return _enter(life, Stage.STOPPED, cx, reason="stopped"), []
    life = replace(life, failures=life.failures + 1, exit_code=None)
    tell = Tell(kind="instance-unstartable", message=event.reason)
    # What could not start a moment ago will not start now: the first retry waits too.
    delay = restart_delay(life.failures + 1, cx.rng)
    life = replace(life, last_end=event.reason, ended_generation=0)  # it wrote no last line
    life, instructions = _restart_or_give_up(
        life, event.reason, cx, clean=False, alone=event.alone, delay=delay
    )
    return life, [*instructions, tell]


def _on_listening(life: Life, event: Listening, cx: Context) -> Step:
    life = replace(life, listening_at=cx.now)
    if cx.checked:
        return life, [Probe(generation=life.generation, after=0.0)]
    return _ready(life, cx)


def _on_listens_elsewhere(life: Life, event: ListensElsewhere, cx: Context) -> Step:
    """The commonest mistake of a first file, so the remedy is named."""
    port = life.running.port if life.running else None
    where = " and ".join(str(other) for other in event.ports)
    reason = f"not listening on port {port} but on {where}: let its command take {{port}}, or $PORT"
    return replace(life, reason=reason), []


def _on_probe_ok_down(life: Life, event: ProbeOk, cx: Context) -> Step:
    """Starting or unhealthy, and now well."""
    return _ready(life, cx)


def _on_probe_ok_up(life: Life, event: ProbeOk, cx: Context) -> Step:
    reason = life.running.warning if life.running else ""
    return replace(life, probe_failures=0, reason=reason), [_next_probe(life, cx)]


def _on_probe_failed_starting(life: Life, event: ProbeFailed, cx: Context) -> Step:
    """
    Before the first success it is probed fast, and time decides, not the number of probes.

    Time before it listens never counts: how long a program takes to come up is its own affair, and the
    progress deadline of a rollout bounds it.
    """
    check = cx.spec.healthcheck
    counted_from = (life.listening_at or life.spawned_at) + check.start_period
    if cx.now - counted_from >= check.retries * check.interval:
        return _unhealthy(life, event.reason, cx)
    life = replace(life, reason=event.reason)
    return life, [Probe(generation=life.generation, after=check.start_interval)]


def _on_probe_failed_up(life: Life, event: ProbeFailed, cx: Context) -> Step:
    life = replace(life, probe_failures=life.probe_failures + 1)
    if life.probe_failures >= cx.spec.healthcheck.retries:
        return _unhealthy(life, f"{event.reason} ({life.probe_failures} times in a row)", cx)
    return replace(life, reason=event.reason), [_next_probe(life, cx)]


def _on_probe_failed_down(life: Life, event: ProbeFailed, cx: Context) -> Step:
    return replace(life, reason=event.reason), [_next_probe(life, cx)]


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
    life, instructions = _signal(life, cx)
    if event.in_flight:
        message = f"{event.in_flight} requests were still running after {cx.spec.drain_period:g} s"
        instructions.append(Tell(kind="instance-drain-timeout", message=message))
    return life, instructions


def _on_timer_stopping(life: Life, event: Timer, cx: Context) -> Step:
    message = f"still running {cx.spec.stop_grace_period:g} s after {cx.spec.stop_signal}: killed"
    life = replace(life, killed=True, reason=message)
    return life, [Kill(), Tell(kind="instance-killed", message=message)]


def _on_timer_backoff(life: Life, event: Timer, cx: Context) -> Step:
    return _spawn(replace(life, restarts=life.restarts + 1), cx)


def _on_left_alone(life: Life, event: LeftAlone, cx: Context) -> Step:
    """Nobody else can serve: one that once could is not held back longer than a moment."""
    left = (life.retry_at or cx.now) - cx.now
    if life.ready_at is None or left <= LAST_HOPE_SECONDS:
        return life, []
    return _set_timer(replace(life, retry_at=cx.now + LAST_HOPE_SECONDS), LAST_HOPE_SECONDS)


def _on_exited(life: Life, event: Exited, cx: Context) -> Step:
    how = describe_end(event.code, max(0.0, cx.now - life.spawned_at), event.detail)
    return _ended(life, event.code, how, event.alone, cx)


def _on_last_words(life: Life, event: LastWords, cx: Context) -> Step:
    """Complete what is said of the last end, whether or not the next run has begun."""
    words = f"{life.last_end}; last line: {event.line}"
    return replace(life, reason=life.reason.replace(life.last_end, words), last_end=words), []


# What several handlers do.


def _enter(life: Life, stage: Stage, cx: Context, **changes: object) -> Life:
    return replace(life, stage=stage, since=cx.now, **changes)  # type: ignore[arg-type]


def _set_timer(life: Life, after: float) -> Step:
    life = replace(life, token=life.token + 1)
    return life, [SetTimer(token=life.token, after=after)]


def _spawn(life: Life, cx: Context) -> Step:
    generation = life.generation + 1
    life = _enter(life, Stage.SPAWNING, cx, generation=generation, retry_at=None)
    return life, [Spawn(generation=generation)]


def _starting(life: Life, cx: Context) -> Step:
    running = life.running
    kind = "none" if cx.job else cx.spec.healthcheck.kind
    before = f" (before: {life.last_end})" if life.last_end else ""
    if kind == "none" or (kind == "listen" and (running is None or running.port is None)):
        return _ready(life, cx)
    if kind == "command":
        life = _enter(life, Stage.STARTING, cx, reason=f"not yet found healthy{before}")
        return life, [Probe(generation=life.generation, after=0.0)]
    port = running.port if running else None
    life = _enter(life, Stage.STARTING, cx, reason=f"not listening on port {port} yet{before}")
    return life, [AwaitListening(generation=life.generation)]


def _ready(life: Life, cx: Context, since: float | None = None) -> Step:
    running = life.running
    if running is None:
        raise InvalidLife(f"ready without a process: {life}")
    first = life.ready_at is None
    life = _enter(
        life,
        Stage.READY,
        cx,
        published=cx.routed,
        ready_at=life.ready_at or cx.now,
        healthy_since=life.healthy_since or cx.now,
        probe_failures=0,
        reason=running.warning,
    )
    if since is not None:
        life = replace(life, since=since)
    instructions: list[Instruction] = [Publish(running=running)] if cx.routed else []
    if cx.checked:
        instructions.append(_next_probe(life, cx))
    if first and not cx.job:
        took = cx.now - life.spawned_at
        instructions.append(Tell(kind="instance-ready", message=f"ready after {took:.3g} s"))
    return life, instructions


def _unhealthy(life: Life, reason: str, cx: Context) -> Step:
    life = _enter(life, Stage.UNHEALTHY, cx, healthy_since=None, reason=reason)
    tell = Tell(kind="instance-unhealthy", message=reason)
    withdraw: list[Instruction] = [Withdraw()] if life.published else []
    return life, [*withdraw, _next_probe(life, cx), tell]


def _next_probe(life: Life, cx: Context) -> Probe:
    return Probe(generation=life.generation, after=cx.spec.healthcheck.interval)


def _leave(life: Life, cx: Context) -> Step:
    """The first step of the goodbye: out of the table, unless it never was in it or is to be killed."""
    if not life.published or life.goal is Goal.KILL:
        return _signal(life, cx)
    life = _enter(life, Stage.DRAINING, cx, token=life.token + 1, reason="finishing its requests")
    drain = Drain(token=life.token, generation=life.generation, timeout=cx.spec.drain_period)
    return life, [StopProbing(), drain]


def _signal(life: Life, cx: Context) -> Step:
    """The second step of the goodbye: the signal, and time to obey it."""
    reason = f"{cx.spec.stop_signal} sent"
    life = _enter(life, Stage.STOPPING, cx, token=life.token + 1, reason=reason)
    instructions: list[Instruction] = [StopProbing()]
    if life.published:
        instructions.append(Withdraw())
    if cx.spec.stop_signal == signal.SIGKILL.name:
        return replace(life, killed=True), [*instructions, Kill()]
    timer = SetTimer(token=life.token, after=cx.spec.stop_grace_period)
    return life, [*instructions, Signal(name=cx.spec.stop_signal), timer]


def _ended(life: Life, code: int | None, how: str, alone: bool, cx: Context) -> Step:
    stopping = life.stage is Stage.STOPPING
    instructions: list[Instruction] = [StopProbing()]
    if life.published:
        instructions.append(Withdraw())
    healthy = life.healthy_since is not None and cx.now - life.healthy_since >= HEALTHY_SECONDS
    life = replace(
        life,
        running=None,
        published=False,
        exit_code=code,
        failures=1 if healthy else life.failures + 1,
        healthy_since=None,
        last_end=how,
        ended_generation=life.generation,
        token=life.token + 1,  # whatever timer or drain was under way is void
    )
    if life.goal is not Goal.RUN:
        kept = f"stopped: {life.reason}" if life.killed else "stopped"
        tell = Tell(kind="instance-stopped", message=kept)
        return _enter(life, Stage.STOPPED, cx, failures=0, reason=kept), [*instructions, tell]
    if stopping:  # told to go, then wanted again: not its fault
        life, more = _spawn(replace(life, failures=0, restarts=life.restarts + 1), cx)
        return life, [*instructions, *more]
    delay = restart_delay(life.failures, cx.rng)
    life, more = _restart_or_give_up(life, how, cx, clean=code == 0, alone=alone, delay=delay)
    return life, [*instructions, *more, Tell(kind="instance-exited", message=how, last_words=True)]


def _restart_or_give_up(life: Life, how: str, cx: Context, *, clean: bool, alone: bool, delay: float) -> Step:
    policy = cx.spec.restart
    if cx.job or policy.policy == "no" or (policy.policy == "on-failure" and clean):
        stage, kind = (Stage.COMPLETED, "instance-completed") if clean else (Stage.FAILED, "instance-failed")
        return _enter(life, stage, cx, reason=how), [Tell(kind=kind, message=how)]
    if policy.max_attempts is not None and life.failures > policy.max_attempts:
        message = f"{how}; not started again after {policy.max_attempts} restarts"
        return _enter(life, Stage.FAILED, cx, reason=message), [Tell(kind="instance-failed", message=message)]
    if alone and life.ready_at is not None:
        delay = min(delay, LAST_HOPE_SECONDS)
    if delay == 0.0:
        return _spawn(replace(life, restarts=life.restarts + 1, reason=how), cx)
    life = _enter(life, Stage.BACKOFF, cx, retry_at=cx.now + delay, reason=how)
    return _set_timer(life, delay)


def describe_end(code: int | None, ran: float, detail: str) -> str:
    """
    How a process ended, in words.

    >>> describe_end(1, 0.31, "")
    'exited with 1 after 0.31 s'
    >>> describe_end(-9, 12.0, "over its memory limit")
    'killed by SIGKILL after 12 s: over its memory limit'
    """
    tail = f": {detail}" if detail else ""
    after = f"after {ran:.2g} s" if ran < 10 else f"after {ran:.0f} s"
    if code is None:
        return f"ended {after}, its exit code is unknown because an earlier node started it{tail}"
    if code >= 0:
        return f"exited with {code} {after}{tail}"
    try:
        name = signal.Signals(-code).name
    except ValueError:  # a real-time signal has no name
        name = f"signal {-code}"
    return f"killed by {name} {after}{tail}"


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
