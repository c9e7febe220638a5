"""What the store wants of a node: read whole, then followed event by event to the same."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from unisono.control.records import (
    Goal,
    Instance,
    Phase,
    Revision,
    Service,
    Status,
    encode,
    instance_key,
    revision_key,
    service_key,
    status_key,
)
from unisono.node.wanted import InstanceGone, InstancePut, ServiceChanged, ServiceGone, Wanted
from unisono.spec.model import Dependency, ServiceSpec
from unisono.store.base import Delete, Put
from unisono.store.sqlite import SqliteStore

WEB = ("shop", "web")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    opened = await SqliteStore.open(tmp_path / "store.db")
    yield opened
    await opened.close()


def service(name: str = "web", revision: int = 1) -> Put:
    record = Service(
        application="shop", name=name, revision=revision, stable=None, replicas=1, internal_port=20_000
    )
    return Put(key=service_key("shop", name), value=encode(record))


def revision(number: int, spec: ServiceSpec, digest: str = "d") -> Put:
    record = Revision(
        application="shop", service=spec.name, number=number, digest=digest, spec=spec, created_at=0.0
    )
    return Put(key=revision_key("shop", spec.name, number), value=encode(record))


def instance(id: str = "web-1", node: str = "here", **fields: Any) -> Put:
    record = Instance(application="shop", service="web", id=id, revision=1, node=node, **fields)
    return Put(key=instance_key("shop", "web", id), value=encode(record))


async def followed(store: SqliteStore, wanted: Wanted, *operations: Put | Delete) -> list[object]:
    """What these operations change, as the watch tells of them."""
    before = (await store.scan("")).revision
    await store.transact(success=operations)
    batch = await anext(store.watch("", after=before))
    return [wanted.take(event) for event in batch.events]


async def test_instances_of_other_nodes_are_nothing_to_this_one(store: SqliteStore) -> None:
    """Neither read, nor followed, nor are their statuses."""
    there = Status(phase=Phase.READY, since=0.0)
    key = status_key("shop", "web", "web-2")
    await store.transact(success=(instance(), instance("web-2", "there"), Put(key=key, value=encode(there))))
    wanted = Wanted(store, "here")
    _, statuses = await wanted.load()
    changes = await followed(store, wanted, instance("web-3", "there"))

    assert [("shop", "web", "web-1")] == list(wanted.instances)
    assert ({}, [None]) == (statuses, changes)


async def test_a_status_without_an_instance_is_told(store: SqliteStore) -> None:
    """It is the only trace of a process that has to be ended."""
    left = Status(phase=Phase.READY, since=0.0, pid=7)
    await store.transact(success=(Put(key=status_key("shop", "web", "web-9"), value=encode(left)),))

    _, statuses = await Wanted(store, "here").load()

    assert {("shop", "web", "web-9"): left} == statuses


async def test_each_change_is_told_and_followed(store: SqliteStore) -> None:
    """An instance is put, aimed elsewhere, gone; a service and its revisions change, and go."""
    wanted = Wanted(store, "here")
    await wanted.load()
    key = ("shop", "web", "web-1")

    put = await followed(store, wanted, instance())
    aimed = await followed(store, wanted, instance(goal=Goal.STOP))
    last = wanted.instances[key]
    gone = await followed(store, wanted, Delete(key=instance_key(*key)))
    changed = await followed(store, wanted, service(), revision(1, ServiceSpec(name="web")))
    removed = await followed(store, wanted, Delete(key=service_key(*WEB)))

    assert ([InstancePut(key)], [InstancePut(key)], Goal.STOP) == (put, aimed, last.goal)
    assert [InstanceGone(key, last)] == gone
    assert [ServiceChanged(WEB)] * 2 == changed
    assert ([ServiceGone(WEB)], None) == (removed, wanted.routed(WEB))


async def test_what_was_never_known_is_not_told_gone(store: SqliteStore) -> None:
    """The removal of another node's instance."""
    await store.transact(success=(instance(node="there"),))
    wanted = Wanted(store, "here")
    await wanted.load()

    assert [None] == await followed(store, wanted, Delete(key=instance_key("shop", "web", "web-1")))


@pytest.mark.parametrize(("digest", "period"), [("d", 7.0), ("other", 30.0)])
async def test_a_newer_spec_of_the_same_digest_counts(store: SqliteStore, digest: str, period: float) -> None:
    """It needs no new instance; one of another digest does, and the old one keeps its own."""
    new = ServiceSpec(name="web", drain_period=7.0)
    await store.transact(
        success=(
            service(revision=2),
            revision(1, ServiceSpec(name="web", drain_period=30.0)),
            revision(2, new, digest),
            instance(),
        )
    )
    wanted = Wanted(store, "here")
    await wanted.load()

    spec = wanted.spec_of(wanted.instances["shop", "web", "web-1"])

    assert spec is not None
    assert period == spec.drain_period


async def test_links_lead_to_the_gateway_by_the_names_of_what_is_needed(store: SqliteStore) -> None:
    """A raw service by tcp; one that is not there by nothing."""
    raw = ServiceSpec(name="my-db", mode="tcp")
    await store.transact(success=(service("my-db"), revision(1, raw), service("web")))
    wanted = Wanted(store, "here")
    await wanted.load()
    needs = tuple(Dependency(service=name) for name in ("my-db", "web", "gone"))

    links = wanted.links("shop", ServiceSpec(name="api", depends_on=needs))

    assert {"MY_DB_URL": "tcp://127.0.0.1:20000", "WEB_URL": "http://127.0.0.1:20000"} == links
