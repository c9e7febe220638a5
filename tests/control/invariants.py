"""
What must hold of every decision and of every state, written down without looking at how it is decided.

Each function raises AssertionError with what was found. They hold after every action of a decision, not
only after all of them, because a controller may be lost in between.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from unisono.control.actions import Action, Amend, Create, Direct, write_of
from unisono.control.ordering import is_removing
from unisono.control.progress import NEXT, is_active, replaces, wanted_revision
from unisono.control.records import Goal, Phase, RolloutPhase, Service
from unisono.control.snapshot import ServiceKey, ServiceView, Snapshot
from unisono.spec.model import Condition, ServiceSpec, UpdateConfig
from unisono.store import base

READY = frozenset({Phase.READY, Phase.COMPLETED})


def check_decision(snapshot: Snapshot, actions: Sequence[Action]) -> None:
    """Every action, with those before it carried out, keeps the promises of repair and rollout."""
    after = snapshot
    for number, action in enumerate(actions):
        before, after = after, _with(after, action, number)
        match action:
            case Amend(service=service):
                key = (service.application, service.name)
                _check_amend(before.services[key], service)
            case Create(instance=instance):
                key = (instance.application, instance.service)
                _check_create(snapshot, after.services[key], instance.revision, job=instance.job)
            case Direct(instance=instance) if not instance.job:
                key = (instance.application, instance.service)
                if instance.goal is Goal.KILL:
                    member = next(m for m in before.services[key].members if m.id == instance.id)
                    assert member.phase is Phase.UNHEALTHY, f"{instance.id} killed while {member.phase}"
                elif is_removing(before, before.services[key]):
                    _check_removal_order(before, key)
    for key, view in snapshot.services.items():
        if view.service is not None and not is_removing(snapshot, view):
            _check_capacity(view, after.services[key])
            _check_brake(view, actions)


def check_state(snapshot: Snapshot) -> None:
    """What holds of the records whatever has been decided."""
    ports = [v.service.internal_port for v in snapshot.services.values() if v.service]
    assert len(ports) == len(set(ports)), f"internal ports are shared: {sorted(ports)}"
    for view in snapshot.services.values():
        numbers = {i.revision for i in view.instances.values()}
        if view.service is not None:
            numbers.add(view.service.revision)
            numbers.update([view.service.stable] if view.service.stable else [])
        missing = numbers - set(view.revisions)
        assert not missing, f"{view.name} needs revisions {missing}, which are gone"
        alive = [m for m in view.jobs if m.phase not in (Phase.COMPLETED, Phase.FAILED, Phase.STOPPED)]
        assert len(alive) <= 1, f"release commands run together: {[m.id for m in alive]}"


def check_converged(snapshot: Snapshot) -> None:
    """What holds once nothing has gone wrong for long: all is as wanted, or says why not."""
    for name, record in snapshot.applications.items():
        assert not record.removing, f"{name} is still being removed"
    for (application, name), view in snapshot.services.items():
        service = view.service
        assert service is not None, f"remains of {application}/{name}: {view}"
        assert not service.removing, f"{name} is still being removed"
        phase = service.rollout.phase if service.rollout else RolloutPhase.DONE
        spec = view.current_spec
        assert spec is not None, f"no revision {service.revision} of {name}"
        behaviour = spec.command[0]
        if phase is RolloutPhase.PAUSED:
            if service.stable is not None:
                wanted = _replicas(view, service.revision), _replicas(view, service.stable)
                assert min(wanted) <= len(view.running) <= max(wanted), _tell(view)
            continue
        assert not view.jobs, f"{name} still has jobs {view.jobs}"
        if service.stable is None:
            assert phase in (RolloutPhase.ROLLING, RolloutPhase.RELEASING), _tell(view)
            assert behaviour not in ("good", "late") or _is_blocked(snapshot, view), _tell(view)
            continue
        if is_active(service.rollout) and _update(view).failure_action == "continue":
            assert service.rollout is not None, _tell(view)
            assert service.rollout.reason, _tell(view)
            continue
        assert not is_active(service.rollout), _tell(view)
        if behaviour != "sick":  # which is replaced for ever, and may be between two just now
            assert len(view.running) == _replicas(view, service.revision), _tell(view)
        assert all(m.instance.revision == service.revision for m in view.running), _tell(view)
        if behaviour in ("good", "late", "once"):
            assert all(m.phase in READY for m in view.running), _tell(view)
            assert service.braked_at is None, _tell(view)
            assert not view.departing, _tell(view)


def _with(snapshot: Snapshot, action: Action, number: int) -> Snapshot:
    write = write_of(action, str(number))
    entry = None
    if isinstance(write, base.Put):
        entry = base.Entry(key=write.key, value=write.value, created=1, modified=snapshot.revision)
    event = base.Event(key=write.key, revision=snapshot.revision, entry=entry)
    batch = base.Batch(revision=snapshot.revision, events=(event,))
    return snapshot.after([batch])


def _check_amend(view: ServiceView, after: Service) -> None:
    before = view.service
    assert before is not None, f"a service {after.name} out of nothing"
    assert before.replicas == after.replicas, "the controller changed the number that was asked for"
    if before.rollout is None or after.rollout is None:
        return
    assert before.rollout.serial == after.rollout.serial, "the controller began a rollout by itself"
    old, new = before.rollout.phase, after.rollout.phase
    assert old is new or new in NEXT[old], f"a rollout went from {old} to {new}"
    if new is RolloutPhase.ROLLING_BACK:
        assert after.revision == after.rollout.source == after.stable, "rolled back to what is not stable"
    if after.stable != before.stable:
        ready = [m for m in view.running if m.is_ready and m.instance.revision == after.stable]
        wanted = after.replicas if old is RolloutPhase.ROLLING else 0
        assert len(ready) >= min(wanted, 1), f"{after.stable} became stable without one ready"
        assert after.rollout.phase is RolloutPhase.DONE, "stable before it was done"


def _check_create(seen: Snapshot, view: ServiceView, revision: int, *, job: bool) -> None:
    service, update = view.service, _update(view)
    assert service is not None, "an instance of no service"
    rollout = service.rollout
    spec = view.spec(revision)
    assert spec is not None, f"an instance of revision {revision}, which is gone"
    if revision != service.stable:
        _check_dependencies(seen, view, spec)
    if job:
        assert rollout is not None, "a job without a rollout"
        assert rollout.phase is RolloutPhase.RELEASING, f"a job while {rollout.phase}"
        assert rollout.target == revision, "a job of another revision"
        return
    if rollout is not None and rollout.phase is RolloutPhase.CANARY and revision == rollout.target:
        tried = [m for m in view.running if m.instance.revision == revision]
        assert rollout.source not in (0, revision), "a canary of a first deployment"
        assert 1 <= len(tried) <= max(1, service.replicas), f"too many are tried: {_tell(view)}"
        return
    assert revision == wanted_revision(service), f"an instance of revision {revision} is not wanted"
    surge = update.parallelism or max(1, service.replicas)
    surge = surge if update.order == "start-first" and replaces(service) and spec.port is None else 0
    is_tried = rollout is not None and rollout.phase is RolloutPhase.CANARY
    counted = [m for m in view.running if not is_tried or m.instance.revision != service.revision]
    assert len(counted) <= service.replicas + surge, f"too many: {_tell(view)}"
    if spec.port is not None:
        # What is tried has no fixed port, or it would not be tried.
        leaving = [m for m in view.departing if not is_tried or m.instance.revision != service.revision]
        assert len(counted) + len(leaving) <= 1, f"two with one port: {_tell(view)}"


def _check_dependencies(snapshot: Snapshot, view: ServiceView, spec: ServiceSpec) -> None:
    for dependency in spec.depends_on:
        other = snapshot.services.get((view.application, dependency.service))
        if other is None or other.service is None:
            assert not dependency.required, f"{view.name} started without {dependency.service}"
            continue
        phases = {m.phase for m in other.running}
        if other.service.replicas and dependency.condition is Condition.STARTED:
            assert phases - {Phase.PENDING}, f"{view.name} started before {other.name}"
        if other.service.replicas and dependency.condition is Condition.HEALTHY:
            assert Phase.READY in phases, f"{view.name} started before {other.name} was ready"
        if other.service.replicas and dependency.condition is Condition.COMPLETED:
            done = {m.instance.revision for m in other.running if m.phase is Phase.COMPLETED}
            assert other.service.revision in done, f"{view.name} started before {other.name} completed"


def _check_capacity(before: ServiceView, after: ServiceView) -> None:
    """No decision takes a ready instance away that is needed."""
    service = after.service
    assert service is not None, "a service that should run was removed"
    update = _update(after)
    # While a revision is tried, what is to be ready is the one that is proven.
    is_tried = service.rollout is not None and service.rollout.phase is RolloutPhase.CANARY
    revision = service.rollout.source if service.rollout and is_tried else service.revision
    spec = after.spec(revision)
    least = min(_replicas(after, revision), sum(m.phase in READY for m in before.running))
    if replaces(service) and (update.order == "stop-first" or (spec and spec.port is not None)):
        least -= update.parallelism or max(1, service.replicas)
    ready = sum(m.phase in READY for m in after.running)
    assert ready >= least, f"{ready} ready are left of {before.name}, {least} are needed: {_tell(before)}"


def _check_brake(before: ServiceView, actions: Sequence[Action]) -> None:
    service = before.service
    killed = [
        a.instance.id
        for a in actions
        if isinstance(a, Direct)
        and a.instance.goal is Goal.KILL
        and (a.instance.application, a.instance.service) == (before.application, before.name)
    ]
    unhealthy = [m.status.since for m in before.running if m.phase is Phase.UNHEALTHY]
    together = max((sum(s <= t < s + 10.0 for t in unhealthy) for s in unhealthy), default=0)
    if service and together >= 2 and 2 * together > max(service.replicas, len(before.running)):
        assert len(killed) <= 1, f"{killed} of {before.name} killed at once"


def _check_removal_order(before: Snapshot, key: ServiceKey) -> None:
    for other_key, other in before.services.items():
        if other_key[0] != key[0] or other_key == key or not is_removing(before, other):
            continue
        spec = other.current_spec
        if spec and key[1] in {d.service for d in spec.depends_on}:
            assert not other.instances, f"{key[1]} stops before {other.name}, which depends on it"


def _replicas(view: ServiceView, revision: int) -> int:
    service, spec = view.service, view.spec(revision)
    assert service is not None, "no service"
    return service.replicas if spec is None or spec.port is None else min(1, service.replicas)


def _update(view: ServiceView) -> UpdateConfig:
    service = view.service
    assert service is not None, "no service"
    number = service.rollout.target if is_active(service.rollout) and service.rollout else service.revision
    spec = view.spec(number)
    return spec.update if spec else UpdateConfig()


def _is_blocked(snapshot: Snapshot, view: ServiceView) -> bool:
    try:
        spec = view.current_spec
        assert spec is not None
        _check_dependencies(snapshot, view, spec)
    except AssertionError:
        return True
    return False


def _tell(view: ServiceView) -> str:
    members = ", ".join(f"{m.id} r{m.instance.revision} {m.instance.goal}/{m.phase}" for m in view.members)
    return f"{replace(view.service) if view.service else None} with {members or 'no instances'}"
