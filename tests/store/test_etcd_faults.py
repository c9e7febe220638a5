"""The store on etcd when answers are lost or late: a real member behind a real wire."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress

import pytest

from tests.store.asking import LIMIT, put, take, write
from tests.store.etcd_server import Etcd, running
from tests.store.etcd_stores import address, opened, until
from tests.store.proxy import Wire, wire
from unisono.state.watching import ResyncingWatch
from unisono.store.addresses import EtcdAddress
from unisono.store.base import (
    Compacted,
    Compare,
    Delete,
    Field,
    LeaseEnded,
    MaybeDone,
    NotDone,
    StoreError,
)
from unisono.store.etcd import EtcdStore, connection


@pytest.fixture(scope="module")
def one() -> Iterator[Etcd]:
    with running() as etcd:
        yield etcd


@pytest.fixture
async def line(one: Etcd) -> AsyncIterator[Wire]:
    async with wire(one.members[0].endpoint) as made:
        yield made


@pytest.fixture
async def far(one: Etcd, line: Wire) -> AsyncIterator[EtcdStore]:
    """A store at the far end of the wire."""
    async with opened(address(one, line.endpoint)) as store:
        yield store


@pytest.fixture
async def near(one: Etcd, far: EtcdStore) -> AsyncIterator[EtcdStore]:
    """The same store, without a wire in between."""
    where = EtcdAddress(endpoints=(one.members[0].endpoint,), prefix=far._address.prefix)
    async with opened(where) as store:
        yield store


def leases(etcd: Etcd) -> set[str]:
    """The leases that live in an etcd, as hexadecimal numbers."""
    return set(etcd.ctl("lease", "list").split()[3:])


async def until_there(store: EtcdStore, key: str) -> int:
    """Wait until a key is there; its revision."""
    async with asyncio.timeout(LIMIT):
        while True:
            entry = await store.get(key)
            if entry is not None:
                return entry.modified
            await asyncio.sleep(0.01)


async def test_a_write_whose_answer_was_lost_is_found_done(
    far: EtcdStore, near: EtcdStore, line: Wire
) -> None:
    """It is not made again: the caller gets the outcome and revision of the one time it was done."""
    await write(far, put("warm"))
    line.deaf = True
    writing = asyncio.create_task(write(far, put("k")))
    done = await until_there(near, "k")
    line.deaf = False
    line.hang_up()

    assert await writing == done
    entry = await near.get("k")
    assert entry is not None
    assert (entry.created, entry.modified) == (done, done)


async def test_trap_37_a_late_copy_of_a_write_does_nothing(one: Etcd, line: Wire) -> None:
    """A write is on its way when its connection ends: it is proven not done, made anew, and arrives."""
    straight = one.members[0].endpoint
    async with opened(address(one, line.endpoint, straight)) as store:
        store._connection._current = 0
        start = await write(store, put("k", b"first"))
        line.hold = True
        writing = asyncio.create_task(write(store, put("k", b"second")))
        await until(lambda: line.holds > 50)
        line.leave_client()
        revision = await writing
        third = await write(store, put("k", b"third"))

        await line.deliver()

        for _ in range(20):
            await write(store, put("later"))
        batches = await take(store.watch("k", after=start), 2)
        entry = await store.get("k")
        assert entry is not None
        assert (entry.value, entry.modified) == (b"third", third)
        assert [batch.revision for batch in batches] == [revision, third]
        line.hold = False


async def test_which_list_ran_is_found_out(far: EtcdStore, near: EtcdStore, line: Wire) -> None:
    """The outcome found out is that of the list that ran."""
    await write(far, put("warm"))
    absent = Compare(key="warm", field=Field.CREATED, target=0)
    line.deaf = True
    writing = asyncio.create_task(far.transact(compares=[absent], success=[put("yes")], failure=[put("no")]))
    done = await until_there(near, "no")
    line.deaf = False
    line.hang_up()

    outcome = await writing
    assert (outcome.succeeded, outcome.revision) == (False, done)


async def test_a_removal_whose_answer_was_lost_is_found_done(
    far: EtcdStore, near: EtcdStore, line: Wire
) -> None:
    """Lists of removals only are recognised, too."""
    made = await write(far, put("k"))
    line.deaf = True
    writing = asyncio.create_task(write(far, Delete(key="k"), Delete(key="other")))
    (removal,) = await take(near.watch("k", after=made), 1)
    line.deaf = False
    line.hang_up()

    assert await writing == removal.revision


async def test_when_nobody_can_tell_the_outcome_is_unknown(
    far: EtcdStore, near: EtcdStore, line: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write that was sent, and then no member answers any more: MaybeDone, and the store goes on later."""
    monkeypatch.setattr(connection, "PATIENCE", 0.3)
    await write(far, put("warm"))
    line.deaf = True
    writing = asyncio.create_task(write(far, put("k")))
    await until_there(near, "k")
    line.cut = True
    line.hang_up()

    with pytest.raises(MaybeDone):
        await writing
    line.deaf = line.cut = False
    monkeypatch.undo()
    await write(far, put("again"))


async def test_what_was_never_sent_is_not_done(
    far: EtcdStore, line: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a connection nothing can have happened, and the error says so; reads and grants likewise."""
    monkeypatch.setattr(connection, "PATIENCE", 0.3)
    await write(far, put("warm"))
    line.cut = True
    line.hang_up()
    with suppress(StoreError):
        await far.get("warm")  # by now it knows that the connection is gone

    for operation in (far.get("k"), far.scan(""), far.grant(10.0)):
        with pytest.raises(NotDone, match="no member of the etcd at"):
            await operation


async def test_trap_41_a_watch_goes_on_where_it_was(far: EtcdStore, near: EtcdStore, line: Wire) -> None:
    """What happens while a watch's connection is gone is told afterwards, once and in order."""
    start = await write(near, put("k"))
    watch = far.watch("k", after=start)
    revisions = [await write(near, put("k"))]
    batches = await take(watch, 1)
    line.cut = True
    line.hang_up()
    revisions += [await write(near, put("k")) for _ in range(5)]
    line.cut = False

    batches += await take(watch, 5)
    revisions.append(await write(near, put("k")))
    batches += await take(watch, 1)

    assert [batch.revision for batch in batches] == revisions
    again = await take(far.watch("k", after=start), 7)
    assert [batch.revision for batch in again] == revisions


async def test_trap_41_compaction_while_a_watch_is_cut_off(
    far: EtcdStore, near: EtcdStore, line: Wire
) -> None:
    """What can't be told any more is not left out in silence: the watch ends with Compacted."""
    start = await write(near, put("k"))
    watch = far.watch("k", after=start)
    await write(near, put("k"))
    await take(watch, 1)
    line.cut = True
    line.hang_up()
    for _ in range(3):
        revision = await write(near, put("k"))
    await near.compact(revision)
    line.cut = False

    with pytest.raises(Compacted) as ended:
        await take(watch, 1)
    assert ended.value.revision == revision
    later = await write(near, put("k"))
    assert [batch.revision for batch in await take(far.watch("k", after=revision), 1)] == [later]


async def test_a_removal_at_the_compacted_revision_is_not_missed(
    far: EtcdStore, near: EtcdStore, line: Wire
) -> None:
    """A resyncing watch that was cut off tells of a removal that etcd has forgotten."""
    await write(near, put("gone"), put("kept"))
    watch = ResyncingWatch(far, "")
    first = await anext(watch)
    line.cut = True
    line.hang_up()
    revision = await write(near, Delete(key="gone"))
    await near.compact(revision)
    line.cut = False

    async with asyncio.timeout(LIMIT):
        second = await anext(watch)

    assert [event.key for event in first.events] == ["gone", "kept"]
    assert ("gone", None) in [(event.key, event.entry) for event in second.events]


async def test_trap_39_loss_of_a_lease_is_known_before_its_keys_go(
    far: EtcdStore, near: EtcdStore, line: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut off from etcd, keep_alive says LeaseEnded by this machine's clock while the key is still there."""
    monkeypatch.setattr(connection, "PATIENCE", 0.2)
    lease = await far.grant(1.2)  # for etcd 2 s
    revision = await write(far, put("held", lease=lease))
    line.cut = True
    line.hang_up()

    with pytest.raises(MaybeDone):
        await far.keep_alive(lease)
    async with asyncio.timeout(LIMIT):
        while True:
            try:
                await far.keep_alive(lease)
            except MaybeDone:
                await asyncio.sleep(0.01)
            except LeaseEnded:
                break

    assert await near.get("held") is not None
    (batch,) = await take(near.watch("held", after=revision), 1)
    assert [(event.key, event.entry) for event in batch.events] == [("held", None)]
    line.cut = False


async def test_a_put_with_a_lease_that_has_ended_here_is_refused(far: EtcdStore, near: EtcdStore) -> None:
    """Though etcd, which gives more time than asked for, would still take it."""
    lease = await far.grant(0.1)
    await write(far, put("held", lease=lease))
    await asyncio.sleep(0.1)

    with pytest.raises(LeaseEnded):
        await write(far, put("more", lease=lease))
    assert (await near.scan("")).entries == ()


async def test_a_grant_whose_answer_was_lost_is_granted_once(one: Etcd, far: EtcdStore, line: Wire) -> None:
    """Asked for again, the same lease is found: none is left behind."""
    await write(far, put("warm"))
    before = leases(one)
    line.deaf = True
    granting = asyncio.create_task(far.grant(60.0))
    await until(lambda: bool(leases(one) - before))
    line.deaf = False
    line.hang_up()

    lease = await granting
    assert leases(one) - before == {f"{lease:016x}"}


async def test_a_record_that_was_removed_costs_a_try(one: Etcd, far: EtcdStore) -> None:
    """Who tidies up too eagerly takes nothing from anybody: the next write finds out and is done."""
    await write(far, put("k", b"1"))
    prefix = far._address.prefix
    assert one.ctl("del", "--prefix", f"{prefix}/write/").strip() == "1"

    revision = await write(far, put("k", b"2"))
    absent = Compare(key="k", field=Field.CREATED, target=0)
    one.ctl("del", "--prefix", f"{prefix}/write/")
    outcome = await far.transact(compares=[absent], success=[put("yes")], failure=[put("no")])

    assert outcome.succeeded is False
    assert [entry.key for entry in (await far.scan("")).entries] == ["k", "no"]
    entry = await far.get("k")
    assert entry is not None
    assert (entry.value, entry.modified) == (b"2", revision)


async def test_old_records_are_swept(one: Etcd) -> None:
    """A client that opens removes what was not written for a week, and leaves what is newer."""
    where = address(one)
    slots = f"{where.prefix}/write"
    one.ctl("put", f"{slots}/gone/1", "y 1600000000")
    async with opened(where) as store:
        await write(store, put("k"))
    async with opened(where):
        pass

    assert f"{slots}/gone/1" not in one.ctl("get", "--prefix", "--keys-only", slots)
    assert slots in one.ctl("get", "--prefix", "--keys-only", slots)


async def test_limits_of_etcd_are_named(far: EtcdStore) -> None:
    """What only larger limits of etcd would take is refused whole, and the error names the flag."""
    compares = [Compare(key=f"k{n}", field=Field.CREATED, target=0) for n in range(300)]
    with pytest.raises(ValueError, match="--max-txn-ops=2048"):
        await far.transact(compares=compares, success=[put("k")])
    with pytest.raises(ValueError, match="--max-request-bytes=9437184"):
        await write(far, put("a", bytes(1024 * 1024)), put("b", bytes(1024 * 1024)))

    assert (await far.scan("")).entries == ()


async def test_a_scan_of_much_comes_in_pages(far: EtcdStore) -> None:
    """More than one page of entries, and more bytes than one answer may have, all of one revision."""
    await write(far, *(put(f"k/{n:04}") for n in range(1000)))
    await write(far, *(put(f"l/{n:04}") for n in range(1000)))

    snapshot = await far.scan("")

    assert [entry.key for entry in snapshot.entries] == [f"{p}/{n:04}" for p in "kl" for n in range(1000)]


async def test_answers_that_are_too_large_come_in_smaller_ones(
    one: Etcd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scan asks for fewer entries at a time when so many don't fit into one answer."""
    small = [option for option in connection._OPTIONS if option[0] != "grpc.max_receive_message_length"]
    monkeypatch.setattr(connection, "_OPTIONS", [*small, ("grpc.max_receive_message_length", 20_000)])
    async with opened(address(one)) as store:
        await write(store, *(put(f"k/{n:03}", bytes(1000)) for n in range(100)))

        assert len((await store.scan("")).entries) == 100


async def test_marks_come_though_others_write_elsewhere(one: Etcd, far: EtcdStore) -> None:
    """Revisions made by others in the same etcd are reached by marks, and not by callers' events."""
    start = await write(far, put("k"))
    watch = far.watch("", after=start, marks=True)
    async with opened(address(one)) as stranger:
        await write(stranger, put("theirs"))
    revision = (await far.scan("")).revision

    batches = []
    while not batches or batches[-1].revision < revision:
        batches += await take(watch, 1)

    assert revision > start
    assert all(batch.events == () for batch in batches)
