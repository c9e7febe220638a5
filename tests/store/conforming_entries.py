"""What any store must do with entries: reads, transactions, limits. Part of the suite in conformance."""

from __future__ import annotations

import asyncio

import pytest

from tests.store.asking import LIMIT, Harness, keys, put, write
from unisono.store.base import (
    MAX_KEY_BYTES,
    MAX_OPERATIONS,
    MAX_TRANSACTION_BYTES,
    MAX_VALUE_BYTES,
    Compare,
    Delete,
    Entry,
    Field,
    Put,
    Store,
)


class Entries:
    """Reads, transactions, limits."""

    # --- get and scan

    async def test_a_missing_key_is_none(self, store: Store) -> None:
        """get() of a key that does not exist is None."""
        assert await store.get("nothing") is None

    async def test_an_entry_remembers_its_revisions(self, store: Store) -> None:
        """created is the revision that made the key, modified the one that last changed it."""
        first = await write(store, put("a", b"1"))
        second = await write(store, put("a", b"2"))

        assert await store.get("a") == Entry(key="a", value=b"2", created=first, modified=second)

    async def test_a_key_made_anew_is_new(self, store: Store) -> None:
        """A key that was removed and put again has a new created."""
        await write(store, put("a"))
        await write(store, Delete(key="a"))
        again = await write(store, put("a"))

        assert await store.get("a") == Entry(key="a", value=b"", created=again, modified=again)

    async def test_scan_is_ordered_and_whole(self, store: Store) -> None:
        """A scan has the keys that begin with the prefix, itself included, in the order of UTF-8."""
        await write(store, *(put(key) for key in ("b", "a/ü", "a/", "a", "a0", "a/\U0010ffff", "a/~", "c")))

        snapshot = await store.scan("a/")

        assert keys(snapshot.entries) == ["a/", "a/~", "a/ü", "a/\U0010ffff"]
        assert keys((await store.scan("")).entries) == [
            "a", "a/", "a/~", "a/ü", "a/\U0010ffff", "a0", "b", "c",
        ]  # fmt: skip

    @pytest.mark.parametrize("prefix", ["\ud7ff", "x\U0010ffff", "\U0010ffff", "\x00"])
    async def test_scan_at_the_edges_of_unicode(self, store: Store, prefix: str) -> None:
        """Prefixes beside the surrogates, at the last code point and at NUL end where they should."""
        await write(store, put(prefix), put(prefix + "y"), put("\ue000"), put("a"), put("x"))

        assert keys((await store.scan(prefix)).entries) == [prefix, prefix + "y"]

    async def test_a_snapshot_carries_the_revision(self, store: Store) -> None:
        """A scan says as of which revision it is, also where it found nothing."""
        revision = await write(store, put("a"))

        assert (await store.scan("b")).revision == revision

    async def test_scan_of_the_past(self, store: Store) -> None:
        """A scan at an older revision shows what was then: put since, changed since, removed since."""
        await write(store, put("k/kept", b"0"), put("k/changed", b"1"), put("other"))
        then = await write(store, put("k/removed", b"2"))
        before = (await store.scan("k/")).entries
        await write(store, put("k/changed", b"3"), Delete(key="k/removed"), put("k/new"))
        await write(store, put("k/removed", b"4"))
        await write(store, put("k/changed", b"5"))

        snapshot = await store.scan("k/", revision=then)

        assert snapshot.revision == then
        assert snapshot.entries == before

    async def test_scan_of_the_future_is_refused(self, store: Store) -> None:
        """A revision that has not been is a ValueError, which names it and the newest."""
        revision = await write(store, put("a"))

        with pytest.raises(ValueError, match=f"revision {revision + 1} .* {revision}"):
            await store.scan("", revision=revision + 1)

    # --- transactions

    async def test_revisions_rise_by_one(self, store: Store) -> None:
        """Each transaction that changes something has the next revision, however much it changes."""
        first = await write(store, put("a"))

        assert await write(store, put("b"), put("c"), Delete(key="a")) == first + 1
        assert await write(store, put("b")) == first + 2

    async def test_changing_nothing_leaves_the_revision(self, store: Store) -> None:
        """Removing what does not exist, or doing nothing, is no change."""
        revision = await write(store, put("a"))

        assert await write(store, Delete(key="b"), Delete(key="c", prefix=True)) == revision
        assert await write(store) == revision

    async def test_putting_the_same_value_is_a_change(self, store: Store) -> None:
        """A put counts even if the value is what it was."""
        revision = await write(store, put("a", b"1"))

        assert await write(store, put("a", b"1")) == revision + 1

    @pytest.mark.parametrize(
        ("field", "offset", "holds"),
        [("created", 0, True), ("created", 1, False), ("modified", 1, True), ("modified", 0, False)],
    )
    async def test_compare_revisions(self, store: Store, field: str, offset: int, holds: bool) -> None:
        """A compare of created or modified holds when it is that revision, and only then."""
        created = await write(store, put("a"))
        await write(store, put("a"))
        compare = Compare(key="a", field=Field(field), target=created + offset)

        outcome = await store.transact(compares=[compare], success=[put("yes")], failure=[put("no")])

        assert outcome.succeeded is holds
        assert (await store.get("yes") is not None, await store.get("no") is not None) == (holds, not holds)

    async def test_compare_values(self, store: Store) -> None:
        """A compare of a value holds when it is that value, and only then."""
        await write(store, put("a", b"1"))

        for value, holds in ((b"1", True), (b"2", False), (b"", False)):
            compare = Compare(key="a", field=Field.VALUE, target=value)
            assert (await store.transact(compares=[compare])).succeeded is holds

    async def test_compare_a_missing_key(self, store: Store) -> None:
        """A key that does not exist has created and modified 0, and no value, not even an empty one."""
        for field, target, holds in (
            (Field.CREATED, 0, True),
            (Field.MODIFIED, 0, True),
            (Field.CREATED, 1, False),
            (Field.VALUE, b"", False),
        ):
            compare = Compare(key="nothing", field=field, target=target)
            assert (await store.transact(compares=[compare])).succeeded is holds

    async def test_all_compares_must_hold(self, store: Store) -> None:
        """One compare that does not hold is enough for failure, and success then leaves no trace."""
        revision = await write(store, put("a", b"1"), put("b", b"2"))
        compares = [
            Compare(key="a", field=Field.VALUE, target=b"1"),
            Compare(key="b", field=Field.VALUE, target=b"1"),
        ]

        outcome = await store.transact(compares=compares, success=[put("a", b"9"), put("c")])

        assert (outcome.succeeded, outcome.revision) == (False, revision)
        assert (await store.scan("")).entries == (
            Entry(key="a", value=b"1", created=revision, modified=revision),
            Entry(key="b", value=b"2", created=revision, modified=revision),
        )

    async def test_a_prefix_is_removed_whole(self, store: Store) -> None:
        """Delete with prefix removes what begins with it, at one revision, and nothing else."""
        await write(store, put("a/1"), put("a/2"), put("b"), put("a"))

        revision = await write(store, Delete(key="a/", prefix=True))

        snapshot = await store.scan("")
        assert (snapshot.revision, keys(snapshot.entries)) == (revision, ["a", "b"])

    async def test_many_keys_at_once(self, store: Store) -> None:
        """As many puts as are allowed at one revision, scanned in order and removed at one revision."""
        names = [f"k/{(number * 7919) % MAX_OPERATIONS:04}" for number in range(MAX_OPERATIONS)]
        revision = await write(store, *(put(name) for name in names))

        assert keys((await store.scan("k/")).entries) == sorted(names)
        assert await write(store, Delete(key="k/", prefix=True)) == revision + 1
        assert (await store.scan("")).entries == ()

    async def test_transactions_queue_up_one_after_the_other(self, store: Store) -> None:
        """Transactions sent at once each find the state left by the one before: no update is lost."""

        async def add_one() -> None:
            while True:
                entry = await store.get("sum")
                compare = Compare(key="sum", field=Field.MODIFIED, target=entry.modified if entry else 0)
                value = b"%d" % (int(entry.value) + 1 if entry else 1)
                if (await store.transact(compares=[compare], success=[put("sum", value)])).succeeded:
                    return

        async with asyncio.timeout(LIMIT):
            await asyncio.gather(*(add_one() for _ in range(20)))

        entry = await store.get("sum")
        assert entry is not None
        assert entry.value == b"20"

    async def test_only_one_of_many_creates(self, store: Store) -> None:
        """Of many that want to make one key only if it does not exist, exactly one does."""
        absent = Compare(key="leader", field=Field.CREATED, target=0)

        outcomes = await asyncio.gather(
            *(store.transact(compares=[absent], success=[put("leader", b"%d" % n)]) for n in range(30))
        )

        winners = [n for n, outcome in enumerate(outcomes) if outcome.succeeded]
        entry = await store.get("leader")
        assert entry is not None
        assert [entry.value] == [b"%d" % n for n in winners]

    async def test_a_removal_queued_sees_puts_queued(self, store: Store) -> None:
        """Sent at once, a removal by prefix takes what the put before it made."""
        await write(store, put("a/old"))

        await asyncio.gather(
            write(store, put("a/new")),
            write(store, Delete(key="a/", prefix=True)),
            write(store, put("a/last")),
        )

        assert keys((await store.scan("")).entries) == ["a/last"]

    async def test_cancelling_disturbs_no_other(self, store: Store) -> None:
        """Of transactions sent at once every third is cancelled: the others are answered and hold."""
        tasks = [asyncio.create_task(write(store, put(f"k{n}"))) for n in range(30)]
        await asyncio.sleep(0)
        for task in tasks[::3]:
            task.cancel()

        results = await asyncio.gather(*tasks, return_exceptions=True)

        done = {f"k{n}" for n, result in enumerate(results) if isinstance(result, int)}
        assert len(done) == 20
        assert done <= set(keys((await store.scan("")).entries))

    # --- limits

    @pytest.mark.parametrize(
        ("key", "says"),
        [
            ("", "empty"),
            ("x" * (MAX_KEY_BYTES + 1), f"{MAX_KEY_BYTES + 1} bytes; at most {MAX_KEY_BYTES}"),
            ("ü" * (MAX_KEY_BYTES // 2 + 1), f"at most {MAX_KEY_BYTES}"),
            ("\ud800", "surrogate"),
            (b"bytes", "found bytes"),
        ],
        ids=["empty", "long", "long in UTF-8", "surrogate", "bytes"],
    )
    async def test_bad_keys_are_refused(self, store: Store, key: str, says: str) -> None:
        """What can't be a key is a ValueError in every place that takes one, and changes nothing."""
        revision = (await store.scan("")).revision

        with pytest.raises(ValueError, match=says):
            await store.get(key)
        with pytest.raises(ValueError, match=says):
            await write(store, put("good"), put(key))
        with pytest.raises(ValueError, match=says):
            await write(store, Delete(key=key))
        with pytest.raises(ValueError, match=says):
            await store.transact(compares=[Compare(key=key, field=Field.CREATED, target=0)])
        assert (await store.scan("")).revision == revision

    async def test_the_longest_key_and_value_are_kept(self, store: Store, harness: Harness) -> None:
        """Keys and values at their limits come back as they were, also after reopening."""
        key, value = "ü" * (MAX_KEY_BYTES // 2), bytes(range(256)) * (MAX_VALUE_BYTES // 256)
        revision = await write(store, put(key, value))

        again = await harness.reopen()

        assert await again.get(key) == Entry(key=key, value=value, created=revision, modified=revision)

    async def test_a_value_over_its_limit_is_refused(self, store: Store) -> None:
        """One byte more than allowed is a ValueError that names key, size and limit."""
        with pytest.raises(
            ValueError, match=f"'a' has {MAX_VALUE_BYTES + 1} bytes; at most {MAX_VALUE_BYTES}"
        ):
            await write(store, put("a", b"x" * (MAX_VALUE_BYTES + 1)))

    async def test_a_transaction_over_its_limits_is_refused(self, store: Store) -> None:
        """Too many operations, or too many bytes, are a ValueError."""
        with pytest.raises(ValueError, match=f"{MAX_OPERATIONS + 1} operations; at most {MAX_OPERATIONS}"):
            await write(store, *(put(f"k{n}") for n in range(MAX_OPERATIONS + 1)))
        count = MAX_TRANSACTION_BYTES // MAX_VALUE_BYTES + 1
        with pytest.raises(ValueError, match=f"at most {MAX_TRANSACTION_BYTES}"):
            await write(store, *(put(f"k{n}", b"x" * MAX_VALUE_BYTES) for n in range(count)))

    @pytest.mark.parametrize(
        "operations",
        [
            [put("a"), put("a")],
            [put("a"), Delete(key="a")],
            [put("a/x"), Delete(key="b"), Delete(key="a/", prefix=True)],
            [Delete(key="a", prefix=True), Delete(key="ab", prefix=True)],
            [Delete(key="", prefix=True), put("a")],
        ],
        ids=["put put", "put delete", "put under prefix", "prefix in prefix", "all"],
    )
    async def test_changing_a_key_twice_is_refused(
        self, store: Store, operations: list[Put | Delete]
    ) -> None:
        """One list may change a key once only, in whatever order; success and failure may both."""
        with pytest.raises(ValueError, match="twice"):
            await store.transact(success=operations)
        with pytest.raises(ValueError, match="twice"):
            await store.transact(failure=operations)
        await store.transact(success=operations[:1], failure=operations[:1])

    async def test_values_of_a_wrong_type_are_refused(self, store: Store) -> None:
        """A value is bytes, and what is compared has the type of its field."""
        with pytest.raises(ValueError, match="must be bytes, found str"):
            await write(store, put("a", "text"))  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="must be bytes, found int"):
            await store.transact(compares=[Compare(key="a", field=Field.VALUE, target=1)])
        with pytest.raises(ValueError, match="whole number, found bytes"):
            await store.transact(compares=[Compare(key="a", field=Field.CREATED, target=b"")])
