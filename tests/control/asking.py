"""Asking for changes of a real store, and looking at what came of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.control.factories import APP
from unisono.control import commands
from unisono.control.plan import ChangeKind, Plan
from unisono.control.records import (
    Rollout,
    RolloutPhase,
    Service,
    decode,
    encode,
)
from unisono.control.snapshot import Snapshot
from unisono.spec.model import ApplicationSpec
from unisono.store.base import Put
from unisono.store.sqlite import SqliteStore


def lowest(taken: Any) -> int:
    """The lowest internal port that is free."""
    return min(set(range(20000, 21000)) - taken)


async def apply(store: SqliteStore, asked: ApplicationSpec) -> Plan:
    """Apply with ports from the bottom."""
    return await commands.apply(store, asked, allocate_port=lowest)


async def service_of(store: SqliteStore, name: str = "web", app: str = APP) -> Service:
    """A service's record."""
    entry = await store.get(f"service/{app}/{name}")
    assert entry is not None
    return decode(Service, entry.value)


async def finish(store: SqliteStore, name: str = "web", app: str = APP) -> Service:
    """Let a service's rollout be done, as the controller would."""
    service = await service_of(store, name, app)
    assert service.rollout is not None
    history = service.history + ((service.stable,) if service.stable else ())
    done = replace(
        service,
        stable=service.revision,
        history=history,
        rollout=replace(service.rollout, phase=RolloutPhase.DONE),
    )
    await store.transact(success=(Put(key=f"service/{app}/{name}", value=encode(done)),))
    return done


async def rewrite(store: SqliteStore, service: Service) -> None:
    """Change a record behind the commands' back."""
    key = f"service/{service.application}/{service.name}"
    await store.transact(success=(Put(key=key, value=encode(service)),))


async def state(store: SqliteStore) -> Snapshot:
    """All that is known."""
    return Snapshot.of(await store.scan(""))


def kinds(plan: Plan) -> dict[str, ChangeKind]:
    """What happens to each service."""
    return {change.service: change.kind for change in plan.changes}


def rollout_of(service: Service) -> Rollout:
    """A service's rollout."""
    assert service.rollout is not None
    return service.rollout
