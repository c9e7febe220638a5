"""
Who waits for whom: start order by ``depends_on``, and removal in the reverse order.

When a condition holds:

* STARTED: an instance of the dependency has, or has had, a process.
* HEALTHY: at least one is ready. One is enough, because the gateway lets requests wait, and a
  dependency that is being rolled or repaired is not to hold up those who depend on it.
* COMPLETED: the revision that the dependency should run has instances, and all have completed.

A dependency scaled to zero holds up nobody: whoever did that wants it so. A missing one holds up only
where it is required.
"""

from __future__ import annotations

from unisono.control.records import Phase
from unisono.control.snapshot import ServiceKey, ServiceView, Snapshot
from unisono.spec.model import Condition, Dependency

_HAS_HAD_PROCESS = frozenset(Phase) - {Phase.PENDING}


def blockers(snapshot: Snapshot, view: ServiceView, revision: int) -> tuple[str, ...]:
    """In words, what an instance of ``revision`` has to wait for; empty when it may start."""
    spec = view.spec(revision)
    if spec is None:
        return (f"revision {revision} of {view.name} is missing",)
    waits = (_blocker(snapshot.services.get((view.application, d.service)), d) for d in spec.depends_on)
    return tuple(wait for wait in waits if wait)


def _blocker(dependency: ServiceView | None, wanted: Dependency) -> str:
    if dependency is None or dependency.service is None or dependency.service.removing:
        return f"waits for {wanted.service}, which does not exist" if wanted.required else ""
    if dependency.service.replicas == 0 or _holds(dependency, dependency.service.revision, wanted.condition):
        return ""
    return f"waits for {wanted.service} ({wanted.condition})"


def _holds(dependency: ServiceView, revision: int, condition: Condition) -> bool:
    running = dependency.running
    match condition:
        case Condition.STARTED:
            return any(m.phase in _HAS_HAD_PROCESS for m in running)
        case Condition.HEALTHY:
            return any(m.phase is Phase.READY for m in running)
        case Condition.COMPLETED:
            current = [m for m in running if m.instance.revision == revision]
            return bool(current) and all(m.phase is Phase.COMPLETED for m in current)


def must_outlast(snapshot: Snapshot, view: ServiceView) -> tuple[str, ...]:
    """
    Services on their way out that still have instances and need this one until they are gone.

    Two that need each other (possible when one of them was rolled back) don't wait for each other.
    """
    key = (view.application, view.name)
    return tuple(
        other.name
        for other_key, other in sorted(snapshot.services.items())
        if other_key[0] == view.application
        and other_key != key
        and other.members
        and is_removing(snapshot, other)
        and view.name in _needs(snapshot, other_key)
        and other.name not in _needs(snapshot, key)
    )


def is_removing(snapshot: Snapshot, view: ServiceView) -> bool:
    """Whether a service, or the application that it belongs to, is on its way out."""
    application = snapshot.applications.get(view.application)
    return view.service is None or view.service.removing or (application is not None and application.removing)


def _needs(snapshot: Snapshot, key: ServiceKey) -> frozenset[str]:
    """Names of all services that one needs, directly or through others."""
    found: set[str] = set()
    todo = [key[1]]
    while todo:
        view = snapshot.services.get((key[0], todo.pop()))
        spec = view.current_spec if view else None
        for dependency in spec.depends_on if spec else ():
            if dependency.service not in found:
                found.add(dependency.service)
                todo.append(dependency.service)
    return frozenset(found)
