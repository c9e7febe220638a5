"""The snapshot: what a scan and a watch make of the store's entries. See also the simulation."""

from __future__ import annotations

import random

import pytest

from tests.control.factories import APP, Scene
from unisono.control.actions import Forget
from unisono.control.decide import decide
from unisono.control.garbage import EVENTS_MAX
from unisono.control.placement import choose_node
from unisono.control.records import NodeRecord, Phase, Status, encode, event_key
from unisono.control.snapshot import Snapshot
from unisono.store.base import Batch, Entry, Event
from unisono.store.base import Snapshot as Stored


def entry(key: str, value: bytes, revision: int = 2) -> Entry:
    """An entry, changed at ``revision``."""
    return Entry(key=key, value=value, created=1, modified=revision)


def test_follows_a_change() -> None:
    """A batch changes what it names, and leaves the view of every other service as it is."""
    before = Scene().service().instance("web-1").service("db").snapshot()
    key = "status/shop/web/web-1"
    changed = entry(key, encode(Status(phase=Phase.BACKOFF, since=1.0)))

    after = before.after([Batch(revision=2, events=(Event(key=key, revision=2, entry=changed),))])

    assert after.revision == 2
    assert [m.phase for m in after.services[APP, "web"].members] == [Phase.BACKOFF]
    assert [m.phase for m in before.services[APP, "web"].members] == [Phase.READY]
    assert after.services[APP, "db"] is before.services[APP, "db"]


def test_an_instance_without_status_is_pending() -> None:
    """What its agent has not spoken of yet is pending since it was made."""
    members = (
        Scene().service().instance("web-1", None, created_at=7.0).snapshot().services[APP, "web"].members
    )

    assert [(m.phase, m.status.since) for m in members] == [(Phase.PENDING, 7.0)]


def test_names_a_damaged_record() -> None:
    """A record that can't be read is named, not skipped: deciding without it could do harm."""
    stored = Stored(revision=1, entries=(entry("service/shop/web", b'{"name": 5}'),))

    with pytest.raises(ValueError, match="service/shop/web is no Service"):
        Snapshot.of(stored)


def test_ignores_rooms_that_it_does_not_know() -> None:
    """Keys of other rooms are none of its business."""
    stored = Stored(revision=1, entries=(entry("lock/x/y", b"?"), entry("leader", b"?")))

    assert Snapshot.of(stored).services == {}


def test_old_happenings_go_in_batches() -> None:
    """A fifth too many may gather; then the oldest go, down to the number kept."""

    def forgotten(count: int) -> int:
        keys = [event_key(float(n), "x") for n in range(count)]
        stored = Stored(revision=1, entries=tuple(entry(key, b"{}") for key in keys))
        actions = decide(Snapshot.of(stored), random.Random(1))
        assert [a.key for a in actions if isinstance(a, Forget)] == keys[: len(actions)]
        return len(actions)

    assert (forgotten(EVENTS_MAX * 6 // 5), forgotten(EVENTS_MAX * 6 // 5 + 1)) == (0, EVENTS_MAX // 5 + 1)


def test_places_on_the_emptiest_node() -> None:
    """Of several nodes the one with the fewest instances gets the next, the first by id among equals."""
    nodes = {id: NodeRecord(id=id, host=id, version="0", started_at=0.0) for id in ("b", "a", "c")}

    assert choose_node(nodes, ["a", "c", "c", "elsewhere"]) == "b"
    assert choose_node(nodes, []) == "a"
