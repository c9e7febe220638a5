"""Keys with values: the real store, virtual time."""

from __future__ import annotations

import asyncio
import random

import pytest

from tests.state.virtual import FaultyStore, VirtualStore, kv_of, now
from unisono.state.errors import Fenced, RequestReused
from unisono.state.kv import MAX_OPERATIONS, Kv
from unisono.state.locks import Locks
from unisono.state.requests import REQUEST_TTL
from unisono.store.base import MAX_VALUE_BYTES, Compare, Delete, Field, MaybeDone, NotDone, Put


async def value(kv: Kv, key: str) -> bytes | None:
    entry = (await kv.get(key)).entry
    return None if entry is None else entry.value


# --- keys, values, namespaces


async def test_what_was_put_is_there(kv: Kv) -> None:
    """With the user's own key, and the revisions of the store."""
    written = await kv.put("orders/7", b"new")
    read = await kv.get("orders/7")

    assert read.entry is not None
    assert ("orders/7", b"new", written.revision) == (
        read.entry.key,
        read.entry.value,
        read.entry.modified,
    )


async def test_namespaces_do_not_see_each_other(store: VirtualStore) -> None:
    """Nor does one whose name begins like another's."""
    shop, shop2 = kv_of(store, "shop"), kv_of(store, "shop2")
    await shop.put("k", b"1")
    await shop2.transact(success=[Delete(key="", prefix=True)])

    assert await value(shop, "k") == b"1"
    assert (await shop2.scan()).entries == ()


async def test_a_key_is_not_its_neighbour(kv: Kv) -> None:
    """A key that begins like another is another, for reads, deletes and history."""
    await kv.put("a", b"1")
    await kv.put("ab", b"2")
    await kv.put("a/b", b"3")
    await kv.delete("a")

    assert await value(kv, "a") is None
    assert ["a/b", "ab"] == [entry.key for entry in (await kv.scan("a")).entries]
    assert await kv.history("a") == ()


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("", "empty"),
        ("a\0b", "U\\+0000"),
        ("a\nb", "U\\+000A"),
        ("\ud800", "U\\+D800"),
        ("x" * 513, "513 bytes; at most 512"),
        ("ü" * 257, "514 bytes"),
    ],
)
async def test_what_is_no_key_is_refused(kv: Kv, key: str, says: str) -> None:
    """By every operation, with what was found; nothing changes."""
    for operation in (kv.get(key), kv.put(key, b""), kv.delete(key), kv.history(key)):
        with pytest.raises(ValueError, match=says):
            await operation

    assert (await kv.scan()).entries == ()


@pytest.mark.parametrize("namespace", ["", "Shop", "a/b", "-a", ".", "a" * 65, "ä"])
async def test_what_is_no_namespace_is_refused(store: VirtualStore, namespace: str) -> None:
    """It could reach into another's keys."""
    with pytest.raises(ValueError, match="namespace"):
        kv_of(store, namespace)


async def test_sizes_are_limited(kv: Kv) -> None:
    """Values and transactions: at the limit it goes, beyond it is refused and changes nothing."""
    await kv.put("k", b"x" * MAX_VALUE_BYTES)
    with pytest.raises(ValueError, match=f"{MAX_VALUE_BYTES + 1} bytes"):
        await kv.put("k", b"x" * (MAX_VALUE_BYTES + 1))
    with pytest.raises(ValueError, match="129 operations"):
        await kv.transact(success=[Delete(key=f"{n}") for n in range(MAX_OPERATIONS + 1)])

    read = await kv.get("k")
    assert read.entry is not None
    assert len(read.entry.value) == MAX_VALUE_BYTES


async def test_scan_in_pages_is_one_snapshot(kv: Kv) -> None:
    """Pages at one revision, each after the last key of the one before, show what was then."""
    for n in range(25):
        await kv.put(f"k{n:02}", b"")
    page = await kv.scan("k", limit=10)
    keys = [entry.key for entry in page.entries]
    while page.more:
        await kv.delete("k24")
        page = await kv.scan("k", limit=10, after=keys[-1], revision=page.revision)
        keys += [entry.key for entry in page.entries]

    assert keys == [f"k{n:02}" for n in range(25)]


async def test_history_goes_back_to_the_making(kv: Kv) -> None:
    """The newest first; what was before a removal belongs to another life of the key."""
    await kv.put("k", b"before")
    await kv.delete("k")
    for n in range(3):
        await kv.put("k", b"%d" % n)
        await kv.put("k2", b"other")

    assert [entry.value for entry in await kv.history("k")] == [b"2", b"1", b"0"]
    assert [entry.value for entry in await kv.history("k", limit=2)] == [b"2", b"1"]


async def test_history_ends_at_a_compaction(store: VirtualStore, kv: Kv) -> None:
    """What is no longer kept is left out, without an error."""
    for n in range(5):
        last = await kv.put("k", b"%d" % n)
    await store.compact(last.revision - 1)

    assert [entry.value for entry in await kv.history("k")] == [b"4", b"3"]


# --- transactions


async def test_expected_guards_a_write(kv: Kv) -> None:
    """Only at that revision, or with 0 only if there is none."""
    first = await kv.put("k", b"1", expected=0)
    late = await kv.put("k", b"2", expected=0)
    second = await kv.put("k", b"2", expected=first.revision)
    gone = await kv.delete("k", expected=first.revision)

    assert (True, False, True, False) == tuple(w.succeeded for w in (first, late, second, gone))
    assert await value(kv, "k") == b"2"


async def test_a_transaction_does_one_list_or_the_other(kv: Kv) -> None:
    """All of it, at one revision."""
    a_is_1 = Compare(key="a", field=Field.VALUE, target=b"1")
    lists = {"success": [Put(key="x", value=b"yes")], "failure": [Put(key="x", value=b"no")]}
    no = await kv.transact(compares=[a_is_1], success=lists["success"], failure=lists["failure"])
    was = await value(kv, "x")
    await kv.put("a", b"1")
    yes = await kv.transact(compares=[a_is_1], success=lists["success"], failure=lists["failure"])

    assert (no.succeeded, was, yes.succeeded, await value(kv, "x")) == (False, b"no", True, b"yes")


async def test_trap_37_a_repeated_request_has_one_effect_and_the_first_answer(kv: Kv) -> None:
    """Whatever has happened since, and whether its compares held or not."""
    condition = Compare(key="k", field=Field.CREATED, target=0)
    answers = []
    for request in ("first", "second", "first", "second"):
        answers.append(
            await kv.transact(
                compares=[condition],
                success=[Put(key="k", value=b"")],
                failure=[Put(key="failed", value=b"")],
                request_id=request,
            )
        )
        await kv.delete("k")
        await kv.delete("failed")
        if len(answers) == 1:
            await kv.put("k", b"")

    assert answers[0] == answers[2]
    assert answers[1] == answers[3]
    assert (answers[0].succeeded, answers[1].succeeded) == (True, False)
    assert (await kv.scan()).entries == ()


async def test_trap_37_counting_through_a_bad_connection_counts_each_once(store: VirtualStore) -> None:
    """Eight clients, 25 % faults, late arrivals: each repeats until it knows; the sum is exact."""
    for seed in range(3):
        chance = random.Random(seed)
        connection = FaultyStore(store, chance, faults=0.25)
        namespace = f"seed{seed}"
        kv = kv_of(connection, namespace)

        async def certainly(id: str, compares: list[Compare], put: Put, kv: Kv = kv) -> bool:
            while True:
                try:
                    return (await kv.transact(compares=compares, success=[put], request_id=id)).succeeded
                except (MaybeDone, NotDone):
                    continue

        async def client(number: int, kv: Kv = kv) -> None:
            for step in range(6):
                for attempt in range(1000):
                    entry = (await kv.get("count")).entry
                    at, count = (0, 0) if entry is None else (entry.modified, int(entry.value))
                    unchanged = Compare(key="count", field=Field.MODIFIED, target=at)
                    put = Put(key="count", value=b"%d" % (count + 1))
                    if await certainly(f"{number}/{step}/{attempt}", [unchanged], put):
                        break

        await asyncio.gather(*(client(number) for number in range(8)))
        await connection.close()

        assert await value(kv_of(store, namespace), "count") == b"48", f"seed {seed}"


async def test_a_request_id_is_for_one_request(kv: Kv) -> None:
    """Another request under the same id is refused; leases don't make it another."""
    await kv.put("k", b"1", ttl=10, request_id="r")
    await asyncio.sleep(5)
    repeated = await kv.put("k", b"1", ttl=10, request_id="r")
    with pytest.raises(RequestReused, match="'r'"):
        await kv.put("k", b"2", request_id="r")

    assert repeated.succeeded
    assert await value(kv, "k") == b"1"


async def test_request_ids_are_forgotten_after_their_time(store: VirtualStore, kv: Kv) -> None:
    """So that they do not fill the store."""
    await kv.put("k", b"1", request_id="r")
    await asyncio.sleep(REQUEST_TTL - 1)
    known = len((await store.scan("state/shop/request/")).entries)
    await asyncio.sleep(REQUEST_TTL / 16 + 2)

    assert known == 1
    assert (await store.scan("state/shop/request/")).entries == ()


async def test_trap_38_a_write_with_a_token_that_passed_on_is_refused(store: VirtualStore, kv: Kv) -> None:
    """With and without a request id, in a transaction of either outcome: nothing happens."""
    locks = Locks(store, "shop", clock=now)
    async with locks.lock("l") as old:
        await kv.put("k", b"old", fences=[old.fence])
    async with locks.lock("l") as new:
        await kv.put("k", b"new", fences=[new.fence], request_id="n")
        for request in (None, "r"):
            with pytest.raises(Fenced, match=str(old.token)):
                await kv.put("k", b"stale", fences=[old.fence], request_id=request)
            with pytest.raises(Fenced):
                await kv.transact(
                    compares=[Compare(key="k", field=Field.CREATED, target=0)],
                    failure=[Put(key="k", value=b"stale")],
                    fences=[new.fence, old.fence],
                    request_id=request,
                )

    assert await value(kv, "k") == b"new"


# --- time to live


async def test_a_key_lives_its_time(kv: Kv) -> None:
    """Thirty seconds, and at most a sixteenth more."""
    await kv.put("k", b"", ttl=30)
    await asyncio.sleep(29.9)
    before = await value(kv, "k")
    await asyncio.sleep(2.1)

    assert (before, await value(kv, "k")) == (b"", None)


async def test_a_key_put_anew_without_a_time_stays(kv: Kv) -> None:
    """The last put decides."""
    await kv.put("k", b"1", ttl=30)
    await kv.put("k", b"2")
    await asyncio.sleep(100)

    assert await value(kv, "k") == b"2"
