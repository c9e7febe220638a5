"""
How a rollout stands: what its records say, and what is wanted meanwhile. Changes nothing.

What follows from it for the record is :mod:`unisono.control.rollout`'s, where the phases and their rules are
told, and for the instances :mod:`unisono.control.repair`'s.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from unisono.control.canary import LOOK_SECONDS
from unisono.control.records import Figures, Goal, Phase, Rollout, RolloutPhase, Service
from unisono.control.snapshot import Member, ServiceView
from unisono.spec.model import ServiceSpec, UpdateConfig
from unisono.spec.requests import Canary

NEXT: dict[RolloutPhase, frozenset[RolloutPhase]] = {
    RolloutPhase.RELEASING: frozenset(
        {RolloutPhase.CANARY, RolloutPhase.ROLLING, RolloutPhase.ROLLING_BACK, RolloutPhase.PAUSED}
    ),
    RolloutPhase.CANARY: frozenset({RolloutPhase.ROLLING, RolloutPhase.ROLLING_BACK, RolloutPhase.PAUSED}),
    RolloutPhase.ROLLING: frozenset(
        {RolloutPhase.MONITORING, RolloutPhase.DONE, RolloutPhase.ROLLING_BACK, RolloutPhase.PAUSED}
    ),
    RolloutPhase.MONITORING: frozenset({RolloutPhase.DONE, RolloutPhase.ROLLING_BACK, RolloutPhase.PAUSED}),
    RolloutPhase.ROLLING_BACK: frozenset({RolloutPhase.ROLLED_BACK, RolloutPhase.PAUSED}),
    RolloutPhase.DONE: frozenset(),
    RolloutPhase.ROLLED_BACK: frozenset(),
    RolloutPhase.PAUSED: frozenset(),
}
"""Where the controller may move a rollout from each phase; commands start anew or turn it back."""

NO_FIGURES = Figures()
_REPLACING = frozenset({RolloutPhase.ROLLING, RolloutPhase.MONITORING, RolloutPhase.ROLLING_BACK})


def wanted_revision(service: Service) -> int | None:
    """The revision of which new instances are made now; None when none may be made."""
    rollout = service.rollout
    if rollout is not None and rollout.phase is RolloutPhase.RELEASING:
        return rollout.source or None
    if rollout is not None and rollout.phase is RolloutPhase.CANARY:
        return rollout.source
    if rollout is not None and rollout.phase is RolloutPhase.PAUSED:
        return service.stable
    return service.revision


def begins_with(source: int, target: int, spec: ServiceSpec) -> RolloutPhase:
    """The first phase of a rollout, once its release command has done its work."""
    # Beside a program that insists on its port there is no room, and with nothing to compare no sense.
    has_canary = bool(spec.update.canary) and spec.port is None and source not in (0, target)
    return RolloutPhase.CANARY if has_canary else RolloutPhase.ROLLING


def canary_step(view: ServiceView, service: Service) -> Canary | None:
    """The step that a rollout's canary is at; None when there is none."""
    rollout = service.rollout
    if rollout is None or rollout.phase is not RolloutPhase.CANARY or service.replicas == 0:
        return None
    return next(iter(rules(view, service).canary[rollout.step :]), None)


def replaces(service: Service) -> bool:
    """Whether instances of other revisions than the wanted one are to make way."""
    return service.rollout is None or service.rollout.phase not in (
        RolloutPhase.RELEASING,
        RolloutPhase.PAUSED,
    )


def is_active(rollout: Rollout | None) -> bool:
    """Whether a rollout is still on its way."""
    return rollout is not None and bool(NEXT[rollout.phase])


def replicas_of(service: Service, spec: ServiceSpec | None) -> int:
    """How many instances are wanted; a program that insists on its port can run only once."""
    return min(service.replicas, 1) if spec and spec.port is not None else service.replicas


def rules(view: ServiceView, service: Service) -> UpdateConfig:
    """How instances are replaced now; what a rollout's target came with holds for the way back too."""
    active = service.rollout if is_active(service.rollout) else None
    spec = view.spec(active.target if active else service.revision)
    return UpdateConfig() if spec is None else spec.update


def opens_at(view: ServiceView, service: Service) -> float:
    """When the next batch may begin (seconds since the epoch): ``delay`` after the last progress."""
    rollout = service.rollout
    if rollout is None or rollout.phase not in _REPLACING:
        return 0.0
    return rollout.progressed_at + rules(view, service).delay


def deadlines(view: ServiceView, now: float) -> Iterator[float]:
    """Times after ``now`` at which a rollout may move on without any record changing (since the epoch)."""
    service = view.service
    if service is None or service.rollout is None or not is_active(service.rollout):
        return
    facts = Facts(view=view, service=service, rollout=service.rollout, now=now)
    if service.rollout.phase is RolloutPhase.MONITORING:
        yield facts.monitored_at
        return
    if service.rollout.phase is RolloutPhase.CANARY and service.rollout.stepped_at is not None:
        yield now + LOOK_SECONDS
        return
    if facts.can_stall:
        yield facts.stalls_at
    yield opens_at(view, service)


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a rollout's next step depends on."""

    view: ServiceView
    service: Service
    rollout: Rollout
    now: float
    figures: Figures = NO_FIGURES  # of the target

    @cached_property
    def update(self) -> UpdateConfig:
        """How it replaces instances."""
        return rules(self.view, self.service)

    @cached_property
    def replicas(self) -> int:
        """How many instances are wanted."""
        return replicas_of(self.service, self.view.current_spec)

    @cached_property
    def new(self) -> list[Member]:
        """Those that run the wanted revision."""
        return [m for m in self.view.running if m.instance.revision == self.service.revision]

    @cached_property
    def is_replaced(self) -> bool:
        """Whether all run the wanted revision and are ready. Those told to stop get no requests."""
        ready = sum(m.is_ready for m in self.new)
        return len(self.new) == len(self.view.running) and ready >= self.replicas

    @cached_property
    def first(self) -> bool:
        """Whether it is a first deployment, with nothing to go back to."""
        return self.rollout.source == 0

    @cached_property
    def job(self) -> Member | None:
        """The run of its release command."""
        return next((m for m in self.view.jobs if m.instance.rollout == self.rollout.serial), None)

    @cached_property
    def failed(self) -> tuple[str, ...]:
        """Ids of instances that failed in the present direction, those known before included."""
        known = self.rollout.failed
        return known + tuple(m.id for m in self._made_by_it() if m.id not in known and _has_failed(m))

    @cached_property
    def has_failed(self) -> bool:
        """Whether more have failed than ``max_failure_ratio`` allows."""
        return len(self.failed) > self.update.max_failure_ratio * max(1, self.replicas)

    @property
    def can_stall(self) -> bool:
        """Whether being late is a verdict; a first deployment keeps trying."""
        return not self.first or self.rollout.phase is RolloutPhase.RELEASING

    @property
    def stalls_at(self) -> float:
        """When it is too late without further progress (since the epoch)."""
        return self.rollout.progressed_at + self.update.delay + self.update.progress_deadline

    @property
    def is_stalled(self) -> bool:
        """Whether it is too late."""
        return self.can_stall and self.now >= self.stalls_at

    @property
    def monitored_at(self) -> float:
        """When a failure no longer counts (since the epoch)."""
        return (self.rollout.replaced_at or 0.0) + self.update.monitor

    def failure_reason(self) -> str:
        """The verdict in words."""
        if not self.has_failed:
            return f"no new instance became ready for {self.update.progress_deadline:g} s"
        reasons = [m.status.reason for m in self.view.members if m.id in self.failed and m.status.reason]
        why = f": {reasons[-1]}" if reasons else ""
        return f"{len(self.failed)} of {self.replicas} instances failed{why}"

    def _made_by_it(self) -> Iterator[Member]:
        for m in self.view.members:
            instance = m.instance
            made = instance.rollout == self.rollout.serial and instance.revision == self.service.revision
            if made and not instance.job:
                yield m


def _has_failed(member: Member) -> bool:
    # KILL is itself the trace of having been unhealthy: it must count even if the write that
    # recorded the failure was lost between two controllers.
    if member.instance.goal is not Goal.RUN:
        return member.instance.goal is Goal.KILL
    return member.status.restarts > 0 or member.phase in (Phase.BACKOFF, Phase.FAILED, Phase.UNHEALTHY)
