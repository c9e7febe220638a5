"""
How many instances of which revision there should be, against those there are.

Three questions, asked in this order:

* :func:`sick`: which unhealthy instances are killed now. When most of a service turns unhealthy at
  once, the observer or something they all share is the likelier cause, and killing all would turn a
  hiccup into an outage: then one at a time, the next when its replacement is ready (the brake).
* :func:`shape`: which instances stop and how many are made, be it to keep the number wanted, to follow
  a change of it, or to replace other revisions.
* :func:`worst_first`: who goes first. What serves nobody before what serves, the idle before the busy
  (Ray #43034, Kubernetes #45509: do not kill the busy one).

What always holds for start-first, and stop-first within its parallelism: an instance that is ready
stops only if, without it, as many are ready as are wanted. It follows from keeping
``wanted - ready new ones`` old instances, the ready ones of them first.

Instances that ended for good (FAILED, COMPLETED) count as they are: their restart policy says that
nobody starts them again. Crash restarts are the agent's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from unisono.control.canary import instances_of
from unisono.control.happenings import happening
from unisono.control.progress import canary_step, opens_at, replaces, replicas_of, rules, wanted_revision
from unisono.control.records import Happening, Instance, Phase, RolloutPhase, Service
from unisono.control.snapshot import Member, ServiceView

BRAKE_WINDOW = 10.0
"""Seconds within which instances turning unhealthy count as turning so together."""

_RANK = {
    phase: rank
    for rank, phases in enumerate(
        (
            (Phase.FAILED,),
            (Phase.PENDING, Phase.BACKOFF),
            (Phase.STARTING,),
            (Phase.UNHEALTHY, Phase.DRAINING, Phase.STOPPING, Phase.STOPPED),
            (Phase.READY, Phase.COMPLETED),
        )
    )
    for phase in phases
}


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What brings a service to its number: who stops and why, and how many of a revision are made."""

    stops: tuple[tuple[Instance, str], ...] = ()
    creates: int = 0
    canaries: int = 0  # of the revision that is tried, beside those of the one that should run


def worst_first(
    members: Iterable[Member], *, stable: int | None, in_flight: Mapping[str, int]
) -> list[Member]:
    """
    Those to stop first at the head: not ready, idle, of an unproven revision, youngest.

    A gateway that says nothing of an instance counts as no requests in work.
    """
    return sorted(
        members,
        key=lambda m: (
            _RANK[m.phase],
            in_flight.get(m.id, 0),
            m.instance.revision == stable,
            -m.instance.created_at,
            m.id,
        ),
    )


def sick(
    view: ServiceView, service: Service, now: float
) -> tuple[Service, tuple[Member, ...], tuple[Happening, ...]]:
    """
    The unhealthy instances to kill now, the service's record with the brake's memory, and the news.

    The brake engages when at least two, and more than half of those there are, turned unhealthy within
    :data:`BRAKE_WINDOW`; it lets go when none is unhealthy any more. A service of one has no mass.
    """
    unhealthy = sorted(
        (m for m in view.running if m.phase is Phase.UNHEALTHY), key=lambda m: (m.status.since, m.id)
    )
    if not unhealthy:
        if service.braked_at is None:
            return service, (), ()
        return replace(service, braked_at=None), (), (_news(service, "brake-released", now, ""),)

    times = [m.status.since for m in unhealthy]
    recent = tuple(t for t in service.unhealthy if t > times[0] - BRAKE_WINDOW)
    turned = _together([*recent, *times])
    whole = max(service.replicas, len(view.running))  # more run while one is scaled down or replaced
    is_mass = whole >= 2 and turned >= 2 and 2 * turned > whole
    engages = service.braked_at is None and is_mass
    told: tuple[Happening, ...] = ()
    if engages:
        message = f"{turned} of {whole} turned unhealthy within {BRAKE_WINDOW:g} s: one at a time"
        told = (_news(service, "brake", now, message),)
        service = replace(service, braked_at=now)
    if service.braked_at is not None:
        others_ready = all(m.is_ready for m in view.running if m.phase is not Phase.UNHEALTHY)
        none_missing = len(view.running) >= service.replicas
        unhealthy = unhealthy[:1] if others_ready and none_missing else []
    if unhealthy:
        service = replace(service, unhealthy=recent + tuple(m.status.since for m in unhealthy))
    replaced = tuple(
        _news(service, "instance-replaced", now, m.status.reason or "unhealthy", m.id) for m in unhealthy
    )
    return service, tuple(unhealthy), told + replaced


def _together(times: Sequence[float]) -> int:
    """
    The most that happened within one window, wherever it lies.

    Not the last window: a controller that comes late must not take an old mass death for single ones.
    """
    return max(sum(start <= t < start + BRAKE_WINDOW for t in times) for start in times)


def shape(
    view: ServiceView,
    service: Service,
    *,
    killed: Sequence[Member],
    now: float,
    in_flight: Mapping[str, int],
) -> Shape:
    """What brings the service to its number and its revision; ``killed`` are as good as gone."""
    gone = {m.id for m in killed}
    running = [m for m in view.running if m.id not in gone]
    if service.rollout is not None and service.rollout.phase is RolloutPhase.CANARY:
        return _with_canaries(view, service, running, killed=killed, now=now, in_flight=in_flight)
    revision = wanted_revision(service)
    wanted = replicas_of(service, view.current_spec)
    if len(running) == wanted and all(m.instance.revision == revision for m in running):
        return Shape()  # nearly always, so that nothing is sorted in vain
    departing = [*view.departing, *killed]
    ordered = worst_first(running, stable=service.stable, in_flight=in_flight)
    return _Shaping(view=view, service=service, ordered=ordered, departing=departing, now=now).shape()


def _with_canaries(
    view: ServiceView,
    service: Service,
    running: Sequence[Member],
    *,
    killed: Sequence[Member],
    now: float,
    in_flight: Mapping[str, int],
) -> Shape:
    """The number of the revision that is proven, as ever, and on top of it those that are tried."""
    tried = [m for m in running if m.instance.revision == service.revision]
    rest = [m for m in running if m.instance.revision != service.revision]
    departing = [*view.departing, *killed]
    ordered = worst_first(rest, stable=service.stable, in_flight=in_flight)
    proven = _Shaping(view=view, service=service, ordered=ordered, departing=departing, now=now).shape()
    step = canary_step(view, service)
    wanted = 0 if step is None else instances_of(step, service.replicas)
    excess = worst_first(tried, stable=service.stable, in_flight=in_flight)[: max(0, len(tried) - wanted)]
    reason = f"more than the {wanted} that are tried"
    return replace(
        proven,
        stops=proven.stops + tuple((m.instance, reason) for m in excess),
        canaries=max(0, wanted - len(tried)),
    )


@dataclass(frozen=True, kw_only=True)
class _Shaping:
    """One service's numbers; ``ordered`` are its running instances, those to stop first at the head."""

    view: ServiceView
    service: Service
    ordered: list[Member]
    departing: list[Member]
    now: float

    def shape(self) -> Shape:
        if not replaces(self.service):
            return self._hold()
        if self._order == "stop-first":
            return self._stop_first()
        return self._start_first()

    @property
    def _revision(self) -> int | None:
        return wanted_revision(self.service)

    @property
    def _wanted(self) -> int:
        return replicas_of(self.service, self.view.spec(self._revision))

    @property
    def _has_own_port(self) -> bool:
        """Whether two instances can't run at once, because the program insists on its port."""
        spec = self.view.spec(self._revision)
        return spec is not None and spec.port is not None

    @property
    def _order(self) -> str:
        return "stop-first" if self._has_own_port else rules(self.view, self.service).order

    @property
    def _parallelism(self) -> int:
        return rules(self.view, self.service).parallelism or max(1, self._wanted)

    @property
    def _old(self) -> list[Member]:
        return [m for m in self.ordered if m.instance.revision != self._revision]

    @property
    def _new(self) -> list[Member]:
        return [m for m in self.ordered if m.instance.revision == self._revision]

    def _is_open(self) -> bool:
        """Whether the next batch may begin; the first one need not wait."""
        return not self._new or self.now >= opens_at(self.view, self.service)

    def _hold(self) -> Shape:
        """Keep the number, whatever the revisions: a paused rollout, or a release command that runs."""
        wanted = replicas_of(self.service, self.view.current_spec)
        excess = self.ordered[: max(0, len(self.ordered) - wanted)]
        creates = 0 if self._revision is None else wanted - len(self.ordered)
        if self._has_own_port:
            creates = min(creates, 1 - len(self.ordered) - len(self.departing))
        return Shape(stops=self._because(excess, f"more than the {wanted} wanted"), creates=max(0, creates))

    def _start_first(self) -> Shape:
        new, old = self._new, self._old
        ready = sum(m.is_ready for m in new)
        keep = max(0, self._wanted - ready)
        stopping = old[: max(0, len(old) - keep)]
        if self.service.stable is None:
            # Nothing has ever been proven: what is not even ready only takes a new one's place.
            stopping += [m for m in old[len(stopping) :] if not m.is_ready]
        excess = new[: max(0, len(new) - self._wanted)]
        left = len(self.ordered) - len(stopping) - len(excess)
        surge = self._parallelism if self._is_open() else 0
        creates = min(self._wanted - len(new), self._wanted + surge - left)
        return Shape(
            stops=self._because(stopping, self._outdated) + self._because(excess, self._too_many),
            creates=max(0, creates),
        )

    def _stop_first(self) -> Shape:
        new, old = self._new, self._old
        excess = max(0, len(self.ordered) - self._wanted)
        surplus = [*old, *new][:excess] if self._has_own_port else self.ordered[:excess]
        surplus_ids = {m.id for m in surplus}
        left_old = [m for m in old if m.id not in surplus_ids]
        ready = sum(m.is_ready for m in new if m.id not in surplus_ids)
        in_change = max(0, self._wanted - ready - len(left_old))
        may_stop = max(0, self._parallelism - in_change) if self._is_open() else 0
        stopping = left_old[:may_stop]
        leaving = [m for m in self.departing if self._has_own_port or m.instance.revision != self._revision]
        occupied = len(self.ordered) - len(surplus) + len(leaving)
        return Shape(
            stops=self._because(surplus, self._too_many) + self._because(stopping, self._outdated),
            creates=max(0, self._wanted - occupied),
        )

    @property
    def _too_many(self) -> str:
        return f"more than the {self._wanted} wanted"

    @property
    def _outdated(self) -> str:
        return f"replaced by revision {self._revision}"

    def _because(self, members: Iterable[Member], reason: str) -> tuple[tuple[Instance, str], ...]:
        return tuple((m.instance, reason) for m in members)


def _news(service: Service, kind: str, now: float, message: str, instance: str = "") -> Happening:
    return happening(
        kind,
        at=now,
        application=service.application,
        service=service.name,
        instance=instance,
        message=message,
    )
