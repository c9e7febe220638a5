"""What any store must do with leases, and with what is there when it is opened again. Part of the suite."""

from __future__ import annotations

import asyncio

import pytest

from tests.store.asking import Harness, gone, keys, put, take, write
from unisono.store.base import (
    MAX_TTL,
    Broken,
    LeaseEnded,
    NotDone,
    Store,
)


class Leases:
    """Leases, closing and reopening."""

    # --- leases

    async def test_a_lease_takes_its_keys_with_it(self, store: Store, harness: Harness) -> None:
        """When the time of a lease is up its keys go, all at one revision, and no others."""
        lease = await store.grant(2.0)
        await write(store, put("l/1", lease=lease), put("plain"))
        revision = await write(store, put("l/2", lease=lease))

        await harness.pass_time(2.0)

        batch = await gone(store, "l/", revision)
        assert [(event.key, event.entry) for event in batch.events] == [("l/1", None), ("l/2", None)]
        assert keys((await store.scan("")).entries) == ["plain"]

    async def test_an_entry_names_its_lease(self, store: Store) -> None:
        """An entry put with a lease says so."""
        lease = await store.grant(60.0)
        await write(store, put("k", lease=lease))

        entry = await store.get("k")
        assert entry is not None
        assert entry.lease == lease

    async def test_keeping_alive_prolongs(self, store: Store, harness: Harness) -> None:
        """A lease kept alive lives on past its first time."""
        lease = await store.grant(4.0)
        await write(store, put("k", lease=lease))
        for _ in range(3):
            await harness.pass_time(2.0)
            await store.keep_alive(lease)

        assert await store.get("k") is not None

    async def test_an_ended_lease_is_refused(self, store: Store, harness: Harness) -> None:
        """keep_alive of, or a put with, a lease that has ended is NotDone, and changes nothing."""
        lease = await store.grant(2.0)
        await harness.pass_time(2.0)
        revision = (await store.scan("")).revision

        with pytest.raises(LeaseEnded, match=f"lease {lease} "):
            await store.keep_alive(lease)
        with pytest.raises(LeaseEnded, match=f"lease {lease} "):
            await write(store, put("good"), put("k", lease=lease))
        assert (await store.scan("")).revision == revision

    async def test_an_unknown_lease_is_refused(self, store: Store) -> None:
        """A lease that never was is NotDone, but only if the list that names it is the one that runs."""
        with pytest.raises(LeaseEnded, match="lease 12345 "):
            await write(store, put("k", lease=12345))
        with pytest.raises(LeaseEnded, match="lease 12345 "):
            await store.keep_alive(12345)
        await store.transact(success=[put("k")], failure=[put("k", lease=12345)])

    async def test_revoking_removes_at_once(self, store: Store) -> None:
        """After revoke() the keys are gone; revoking again, or an unknown one, is no error."""
        lease = await store.grant(60.0)
        await write(store, put("a", lease=lease), put("b", lease=lease), put("c"))

        await asyncio.gather(store.revoke(lease), store.revoke(lease))
        await store.revoke(lease)
        await store.revoke(12345)

        assert keys((await store.scan("")).entries) == ["c"]

    async def test_revoking_what_is_just_ending_waits_for_it(self, store: Store) -> None:
        """A second revoke() returns no earlier than the keys are gone."""
        lease = await store.grant(60.0)
        await write(store, put("k", lease=lease))
        first = asyncio.create_task(store.revoke(lease))
        await asyncio.sleep(0)

        await store.revoke(lease)

        assert await store.get("k") is None
        await first

    async def test_a_put_queued_behind_a_revoke_is_refused(self, store: Store) -> None:
        """Sent right after revoke(), a put with that lease does not outlive it."""
        lease = await store.grant(60.0)

        _, late = await asyncio.gather(
            store.revoke(lease), write(store, put("k", lease=lease)), return_exceptions=True
        )

        assert isinstance(late, NotDone)
        assert await store.get("k") is None

    async def test_a_put_queued_before_a_revoke_goes_with_it(self, store: Store) -> None:
        """Sent right before revoke(), a put with that lease does not outlive it either."""
        lease = await store.grant(60.0)

        await asyncio.gather(write(store, put("k", lease=lease)), store.revoke(lease))

        assert await store.get("k") is None

    async def test_a_key_follows_its_last_put(self, store: Store) -> None:
        """A key put again without the lease, or with another, no longer goes with it."""
        first, second = await store.grant(60.0), await store.grant(60.0)
        await write(store, *(put(key, lease=first) for key in ("freed", "moved", "kept")))
        await write(store, put("freed"), put("moved", lease=second))

        await store.revoke(first)

        assert keys((await store.scan("")).entries) == ["freed", "moved"]

    async def test_leases_are_never_given_twice(self, store: Store, harness: Harness) -> None:
        """An id is not used again, also not after its lease has ended and the store was reopened."""
        first = await store.grant(60.0)
        await store.revoke(first)
        again = await harness.reopen()

        assert await again.grant(60.0) != first

    @pytest.mark.parametrize("ttl", [0.0, -1.0, float("nan"), float("inf"), MAX_TTL + 1])
    async def test_bad_times_are_refused(self, store: Store, ttl: float) -> None:
        """A lease has a time above 0 and within the limit."""
        with pytest.raises(ValueError, match="lease of"):
            await store.grant(ttl)

    # --- closing and reopening

    async def test_everything_is_there_after_reopening(self, store: Store, harness: Harness) -> None:
        """Entries, revision, history and leases are as they were."""
        lease = await store.grant(60.0)
        first = await write(store, put("a", b"1"), put("b", lease=lease))
        revision = await write(store, put("a", b"2"), put("ü", b"\x00\xff"))
        before = (await store.scan("")).entries

        again = await harness.reopen()

        assert await again.scan("") == await again.scan("", revision=revision)
        assert (await again.scan("")).entries == before
        assert [batch.revision for batch in await take(again.watch("", after=first), 1)] == [revision]
        await again.revoke(lease)
        assert keys((await again.scan("")).entries) == ["a", "ü"]

    async def test_closing_finishes_what_was_accepted(self, store: Store, harness: Harness) -> None:
        """Transactions sent before close() are answered and kept."""
        tasks = [asyncio.create_task(write(store, put(f"k{n:02}"))) for n in range(50)]
        await asyncio.sleep(0)

        again = await harness.reopen()

        revisions = await asyncio.gather(*tasks)
        assert len(set(revisions)) == 50
        assert keys((await again.scan("")).entries) == [f"k{n:02}" for n in range(50)]

    async def test_a_closed_store_says_so(self, store: Store, harness: Harness) -> None:
        """Every operation on a closed store is Broken; closing again is no error."""
        await harness.reopen()

        await store.close()
        for operation in (
            store.get("a"),
            store.scan(""),
            store.transact(),
            store.grant(1.0),
            store.keep_alive(1),
            store.revoke(1),
            store.compact(0),
        ):
            with pytest.raises(Broken, match="closed"):
                await operation
        with pytest.raises(Broken, match="closed"):
            await take(store.watch("", after=0), 1)
