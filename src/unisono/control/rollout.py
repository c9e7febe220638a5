"""
The verdict on a rollout: how its phase moves.

Which instances are started and stopped to get there is :mod:`unisono.control.repair`'s; both look at
the same records (:mod:`unisono.control.progress`), so that nothing has to be remembered between them.

::

    RELEASING ──ended with 0──► CANARY ──passed──► ROLLING ──all replaced──► MONITORING ──time is up──► DONE
        │                         │                   │                          │
        └──────── failed ─────────┴───────────────────┴──────────────────────────┘
                          │ rollback                │ pause, or no stable revision to go back to
                          ▼                         ▼
                    ROLLING_BACK ──failed──────► PAUSED
                          └──all replaced──► ROLLED_BACK

Rules:

* An instance made by the rollout fails when its process ends by itself or it turns unhealthy. Each
  counts once, whatever becomes of it. More failed ones than ``max_failure_ratio`` of the replicas
  allows are a verdict, and so is no new instance becoming ready for ``progress_deadline``.
* A canary's instances come on top of the old ones. A step begins when they are ready, and its figures decide
  (:mod:`unisono.control.canary`); steps follow one another. There is none at a first deployment.
* Being late is no failure before that: the old instances stay until new ones are ready.
* A rollback that fails is left as it is. Rolling it back would bring back what failed first.
* A first deployment has nothing to go back to: it keeps trying, and ends when all are ready. Only its
  release command can fail, which pauses it.
* A failed release command never goes on, also under ``failure_action: continue``: that word is
  about instances, and code must not meet data that it can't read.

Sources: Docker Swarm's update_config and its rule against rolling back a rollback; Kubernetes'
progressDeadlineSeconds; Fly's release_command.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from unisono.control.canary import instances_of, judge, since
from unisono.control.happenings import happening
from unisono.control.progress import NO_FIGURES, Facts, begins_with, canary_step, is_active
from unisono.control.records import Figures, Happening, Phase, Rollout, RolloutPhase, Service
from unisono.control.snapshot import ServiceView
from unisono.spec.model import ServiceSpec
from unisono.spec.requests import Canary

HISTORY_MAX = 10
"""Revisions kept for going back to."""

FAILED_MAX = 2000
"""
Ids of failed instances that a rollout remembers, twice as many as a service can have. One that goes on
whatever fails, as a first deployment does, would else make its record larger than the store takes.
"""


def advance(
    view: ServiceView, service: Service, now: float, figures: Figures = NO_FIGURES
) -> tuple[Service, tuple[Happening, ...]]:
    """
    The service's record after what its instances show at ``now``, and what there is to tell.

    ``figures`` are what the gateway has counted of the revision that should run.

    Unchanged records give the same object back. One phase at a time: the next call goes on.
    """
    if service.rollout is None or not is_active(service.rollout):
        return service, ()
    facts = Facts(view=view, service=service, rollout=service.rollout, now=now, figures=figures)
    facts = _noted(facts)
    moved, kind, message = _STEPS[service.rollout.phase](facts)
    if not kind:
        return moved, ()
    told = [kind] if kind != "rollout-failed" else [kind, *_consequence(moved)]
    return moved, tuple(
        happening(
            k,
            at=now,
            application=service.application,
            service=service.name,
            message=message,
            data={"source": service.rollout.source, "target": service.rollout.target},
        )
        for k in told
    )


_Step = tuple[Service, str, str]  # the record, the kind of happening or "", its message


def _noted(facts: Facts) -> Facts:
    """Write progress and failures into the record, so that they outlast the instances."""
    rollout = facts.rollout
    if rollout.phase is RolloutPhase.RELEASING:
        return facts
    ready_at = [m.status.ready_at for m in facts.new if m.status.ready_at is not None]
    progressed_at = max([rollout.progressed_at, *ready_at])
    counted = rollout.failures + len(facts.failed) - len(rollout.failed)
    noted = replace(rollout, progressed_at=progressed_at, failures=counted, failed=_remembered(facts))
    if noted == rollout:
        return facts
    return replace(facts, rollout=noted, service=replace(facts.service, rollout=noted))


def _remembered(facts: Facts) -> tuple[str, ...]:
    """The failed ones; of too many the oldest go that are no more, as they can't be met and counted again."""
    surplus = len(facts.failed) - FAILED_MAX
    if surplus <= 0:
        return facts.failed
    members = {m.id for m in facts.view.members}
    forgotten = set([id for id in facts.failed if id not in members][:surplus])
    return tuple(id for id in facts.failed if id not in forgotten)


def _releasing(facts: Facts) -> _Step:
    job = facts.job
    if job is not None and job.phase is Phase.COMPLETED:
        spec = facts.view.spec(facts.rollout.target) or ServiceSpec(name=facts.service.name)
        phase = begins_with(facts.rollout.source, facts.rollout.target, spec)
        return (
            _moved(facts, phase=phase, progressed_at=facts.now),
            "rollout-released",
            f"release command of revision {facts.rollout.target} done",
        )
    if job is not None and job.phase in (Phase.FAILED, Phase.STOPPED):
        why = job.status.reason or f"exit code {job.status.exit_code}"
        return _fail(facts, f"release command failed: {why}")
    if facts.is_stalled:
        return _fail(facts, f"release command did not end within {facts.update.progress_deadline:g} s")
    return facts.service, "", ""


def _canary(facts: Facts) -> _Step:
    step = canary_step(facts.view, facts.service)
    failed = _failure(facts)
    if failed is not None:
        return failed
    if step is None:  # a file was applied that has fewer steps, or the service was scaled to 0
        message = f"revision {facts.rollout.target}: no step is left"
        return _rolls(facts), "rollout-canary-passed", message
    if facts.rollout.base is None:
        share = f"{step.share * 100:g} % of the requests"
        if step.header is not None:
            share += f", and those with {step.header.name}"
        message = f"revision {facts.rollout.target} gets {share}; watched for {step.monitor:g} s"
        return _moved(facts, base=facts.figures), "rollout-canary", message
    if facts.rollout.stepped_at is not None:
        return _judged(facts, step, facts.rollout.base, facts.rollout.stepped_at)
    if sum(m.is_ready for m in facts.new) < instances_of(step, facts.replicas):
        return facts.service, "", ""
    return _moved(facts, stepped_at=facts.now), "", ""


def _judged(facts: Facts, step: Canary, base: Figures, began: float) -> _Step:
    seen, patience = since(base, facts.figures), facts.update.progress_deadline
    verdict = judge(step, seen, facts.now - began, patience)
    words = f"canary of revision {facts.rollout.target}: {verdict.words}"
    match verdict.kind:
        case "open":
            return facts.service, "", ""
        case "passed":
            following = facts.rollout.step + 1
            is_last = following >= len(facts.update.canary)
            moved = _rolls(facts) if is_last else _moved(facts, **_NEXT_STEP, step=following)
            return moved, "rollout-canary-passed", words
        case "failed" if facts.update.failure_action == "continue":
            reason = f"{words}; goes on, as failure_action says"
            noted = replace(facts.rollout, reason=reason)
            return _rolls(replace(facts, rollout=noted)), "rollout-failed", reason
        case "failed":
            return _fail(facts, words)


_NEXT_STEP: dict[str, object] = {"base": None, "stepped_at": None}


def _rolls(facts: Facts) -> Service:
    return _moved(facts, **_NEXT_STEP, phase=RolloutPhase.ROLLING, progressed_at=facts.now)


def _rolling(facts: Facts) -> _Step:
    if facts.first:
        if facts.is_replaced:
            return _done(facts), "service-ready", f"revision {facts.rollout.target}"
        return facts.service, "", ""
    failed = _failure(facts)
    if failed is not None:
        return failed
    if not facts.is_replaced:
        return facts.service, "", ""
    if facts.update.monitor <= 0:
        return _done(facts), "rollout-done", f"revision {facts.rollout.target} is stable"
    return (
        _moved(facts, phase=RolloutPhase.MONITORING, replaced_at=facts.now),
        "rollout-monitoring",
        f"all run revision {facts.rollout.target}; watched for {facts.update.monitor:g} s",
    )


def _monitoring(facts: Facts) -> _Step:
    failed = _failure(facts)
    if failed is not None:
        return failed
    if facts.now >= facts.monitored_at:
        return _done(facts), "rollout-done", f"revision {facts.rollout.target} is stable"
    return facts.service, "", ""


def _rolling_back(facts: Facts) -> _Step:
    if facts.is_replaced:
        return (
            _moved(facts, phase=RolloutPhase.ROLLED_BACK),
            "rollout-rolled-back",
            f"revision {facts.service.revision} is back: {facts.rollout.reason}",
        )
    if facts.has_failed or facts.is_stalled:
        reason = f"{facts.rollout.reason}; rolling back failed too: {facts.failure_reason()}"
        return _moved(facts, phase=RolloutPhase.PAUSED, reason=reason), "rollout-paused", reason
    return facts.service, "", ""


_STEPS: dict[RolloutPhase, Callable[[Facts], _Step]] = {
    RolloutPhase.RELEASING: _releasing,
    RolloutPhase.CANARY: _canary,
    RolloutPhase.ROLLING: _rolling,
    RolloutPhase.MONITORING: _monitoring,
    RolloutPhase.ROLLING_BACK: _rolling_back,
}


def _failure(facts: Facts) -> _Step | None:
    """The step that a failure asks for, or None when there is none or it has been told already."""
    waits = facts.rollout.phase is RolloutPhase.CANARY and facts.rollout.stepped_at is None
    stalled = facts.is_stalled and (waits or facts.rollout.phase is RolloutPhase.ROLLING)
    if not facts.has_failed and not stalled:
        return None
    if facts.update.failure_action != "continue":
        return _fail(facts, facts.failure_reason())
    if facts.rollout.reason:
        return None
    reason = f"{facts.failure_reason()}; goes on, as failure_action says"
    return _moved(facts, reason=reason), "rollout-failed", reason


def _fail(facts: Facts, reason: str) -> _Step:
    if facts.first or facts.update.failure_action != "rollback":
        return _moved(facts, phase=RolloutPhase.PAUSED, reason=reason), "rollout-failed", reason
    return turned_back(facts.service, facts.rollout, reason, facts.now), "rollout-failed", reason


def _consequence(service: Service) -> list[str]:
    told = {
        RolloutPhase.ROLLING_BACK: ["rollout-rolling-back"],
        RolloutPhase.PAUSED: ["rollout-paused"],
    }
    return told.get(service.rollout.phase, []) if service.rollout else []


def turned_back(service: Service, rollout: Rollout, reason: str, now: float) -> Service:
    """The record of a service whose rollout goes back to where it came from."""
    back = replace(
        rollout,
        phase=RolloutPhase.ROLLING_BACK,
        progressed_at=now,
        replaced_at=None,
        stepped_at=None,
        base=None,
        failed=(),
        reason=reason,
    )
    return replace(service, revision=rollout.source, rollout=back)


def _done(facts: Facts) -> Service:
    service, target = facts.service, facts.rollout.target
    earlier = [n for n in service.history if n not in (target, service.stable)]
    if service.stable is not None and service.stable != target:
        earlier.append(service.stable)
    finished = _moved(facts, phase=RolloutPhase.DONE)
    return replace(finished, stable=target, history=tuple(earlier[-HISTORY_MAX:]))


def _moved(facts: Facts, **changes: object) -> Service:
    return replace(facts.service, rollout=replace(facts.rollout, **changes))  # type: ignore[arg-type]
