"""
The moves of an instance's life that several events lead to: it is started, is ready, leaves, has ended.

Pure, as :mod:`unisono.node.lifecycle` is, whose handlers make them: there it stands which event leads to
which move, and what always holds. Each gives the new state and what is to be done, in that order.
"""

from __future__ import annotations

import signal
from dataclasses import replace

from unisono.control.records import Goal
from unisono.node.backoff import HEALTHY_SECONDS, LAST_HOPE_SECONDS, restart_delay
from unisono.node.life import Context, InvalidLife, Life, Stage
from unisono.node.messages import (
    AwaitListening,
    Drain,
    Instruction,
    Kill,
    Probe,
    Publish,
    SetTimer,
    Signal,
    Spawn,
    StopProbing,
    Tell,
    Withdraw,
)

Step = tuple[Life, list[Instruction]]


def enter(life: Life, stage: Stage, cx: Context, **changes: object) -> Life:
    """The same life in another stage, with ``changes``."""
    return replace(life, stage=stage, since=cx.now, **changes)  # type: ignore[arg-type]


def set_timer(life: Life, after: float) -> Step:
    """Have a :class:`Timer` come in ``after`` seconds; every earlier one is void."""
    life = replace(life, token=life.token + 1)
    return life, [SetTimer(token=life.token, after=after)]


def spawn(life: Life, cx: Context) -> Step:
    """A new run: its process is ordered."""
    generation = life.generation + 1
    life = enter(life, Stage.SPAWNING, cx, generation=generation, retry_at=None)
    return life, [Spawn(generation=generation)]


def starting(life: Life, cx: Context) -> Step:
    """The process runs; what is waited for before it is ready."""
    running = life.running
    kind = "none" if cx.job else cx.spec.healthcheck.kind
    before = f" (before: {life.last_end})" if life.last_end else ""
    if kind == "none" or (kind == "listen" and (running is None or running.port is None)):
        return ready(life, cx)
    if kind == "command":
        life = enter(life, Stage.STARTING, cx, reason=f"not yet found healthy{before}")
        return life, [Probe(generation=life.generation, after=0.0)]
    port = running.port if running else None
    life = enter(life, Stage.STARTING, cx, reason=f"not listening on port {port} yet{before}")
    return life, [AwaitListening(generation=life.generation)]


def ready(life: Life, cx: Context, since: float | None = None) -> Step:
    """
    It can serve: published, and probed from now on; ``since`` when that is earlier than now.

    Raises:
        InvalidLife: There is no process: a fault in the machine.
    """
    running = life.running
    if running is None:
        raise InvalidLife(f"ready without a process: {life}")
    first = life.ready_at is None
    life = enter(
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
        instructions.append(next_probe(life, cx))
    if first and not cx.job:
        took = cx.now - life.spawned_at
        instructions.append(Tell(kind="instance-ready", message=f"ready after {took:.3g} s"))
    return life, instructions


def unhealthy(life: Life, reason: str, cx: Context) -> Step:
    """It runs and can't serve: out of the table, and probed on."""
    life = enter(life, Stage.UNHEALTHY, cx, healthy_since=None, reason=reason)
    tell = Tell(kind="instance-unhealthy", message=reason)
    withdraw: list[Instruction] = [Withdraw()] if life.published else []
    return life, [*withdraw, next_probe(life, cx), tell]


def next_probe(life: Life, cx: Context) -> Probe:
    """The next regular look at one that is ready or was."""
    return Probe(generation=life.generation, after=cx.spec.healthcheck.interval)


def leave(life: Life, cx: Context) -> Step:
    """The first step of the goodbye: out of the table, unless it never was in it or is to be killed."""
    if not life.published or life.goal is Goal.KILL:
        return send_signal(life, cx)
    life = enter(life, Stage.DRAINING, cx, token=life.token + 1, reason="finishing its requests")
    drain = Drain(token=life.token, generation=life.generation, timeout=cx.spec.drain_period)
    return life, [StopProbing(), drain]


def send_signal(life: Life, cx: Context) -> Step:
    """The second step of the goodbye: the signal, and time to obey it."""
    reason = f"{cx.spec.stop_signal} sent"
    life = enter(life, Stage.STOPPING, cx, token=life.token + 1, reason=reason)
    instructions: list[Instruction] = [StopProbing()]
    if life.published:
        instructions.append(Withdraw())
    if cx.spec.stop_signal == signal.SIGKILL.name:
        return replace(life, killed=True), [*instructions, Kill()]
    timer = SetTimer(token=life.token, after=cx.spec.stop_grace_period)
    return life, [*instructions, Signal(name=cx.spec.stop_signal), timer]


def ended(life: Life, code: int | None, how: str, alone: bool, cx: Context) -> Step:
    """Its process has ended with ``code``, as was wanted, or so that the restart policy is asked."""
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
        return enter(life, Stage.STOPPED, cx, failures=0, reason=kept), [*instructions, tell]
    if stopping:  # told to go, then wanted again: not its fault
        life, more = spawn(replace(life, failures=0, restarts=life.restarts + 1), cx)
        return life, [*instructions, *more]
    delay = restart_delay(life.failures, cx.rng)
    life, more = restart_or_give_up(life, how, cx, clean=code == 0, alone=alone, delay=delay)
    return life, [*instructions, *more, Tell(kind="instance-exited", message=how, last_words=True)]


def restart_or_give_up(life: Life, how: str, cx: Context, *, clean: bool, alone: bool, delay: float) -> Step:
    """After an end that nobody wanted: run again, now or after ``delay`` seconds, or be done."""
    policy = cx.spec.restart
    if cx.job or policy.policy == "no" or (policy.policy == "on-failure" and clean):
        stage, kind = (Stage.COMPLETED, "instance-completed") if clean else (Stage.FAILED, "instance-failed")
        return enter(life, stage, cx, reason=how), [Tell(kind=kind, message=how)]
    if policy.max_attempts is not None and life.failures > policy.max_attempts:
        message = f"{how}; not started again after {policy.max_attempts} restarts"
        return enter(life, Stage.FAILED, cx, reason=message), [Tell(kind="instance-failed", message=message)]
    if alone and cx.routed and life.ready_at is not None:  # of a worker nobody waits for an answer
        delay = min(delay, LAST_HOPE_SECONDS)
    if delay == 0.0:
        return spawn(replace(life, restarts=life.restarts + 1, reason=how), cx)
    life = enter(life, Stage.BACKOFF, cx, retry_at=cx.now + delay, reason=how)
    return set_timer(life, delay)


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
