"""Elections: a lock that says something."""

from __future__ import annotations

import asyncio

import pytest

from tests.state.virtual import VirtualStore, now
from unisono.state.elections import Elections, Leader
from unisono.state.errors import Fenced
from unisono.state.kv import Kv
from unisono.state.tokens import Tokens
from unisono.store.base import Delete


async def test_one_leads_and_all_can_see_who(store: VirtualStore) -> None:
    """The others wait; when it resigns, the next one leads with a higher token."""
    elections = Elections(store, "shop", clock=now)
    nobody = await elections.leader("e")
    async with elections.campaign("e", b"a") as first:
        second = elections.campaign("e", b"b")
        winning = asyncio.create_task(second.__aenter__())
        await asyncio.sleep(1)
        leader = await elections.leader("e")
        assert not winning.done()
    leading = await winning
    after = await elections.leader("e")
    await second.__aexit__(None, None, None)

    assert nobody is None
    assert leader == Leader(value=b"a", token=first.token)
    assert after == Leader(value=b"b", token=leading.token)
    assert first.token < leading.token


async def test_trap_43_a_deposed_leader_can_not_write(store: VirtualStore) -> None:
    """Neither what it proclaims nor what it fences, though it was never told."""
    elections = Elections(store, "shop", clock=now)
    kv = Kv(store, "shop", Tokens(b"secret" * 4), clock=now)
    async with elections.campaign("e", b"a") as leading:
        await store.transact(success=[Delete(key="state/shop/election/", prefix=True)])
        with pytest.raises(Fenced):
            await leading.proclaim(b"still me")
        with pytest.raises(Fenced):
            await kv.put("k", b"", fences=[leading.fence])

    assert await elections.leader("e") is None


async def test_observers_see_each_leader(store: VirtualStore) -> None:
    """And what it says; the latest each time. A cancelled step loses nothing."""
    elections = Elections(store, "shop", clock=now)
    watch = elections.observe("e")
    seen: list[bytes | None] = []

    async def step() -> None:
        async with asyncio.timeout(1):
            leader = await anext(watch)
            seen.append(None if leader is None else leader.value)

    await step()
    with pytest.raises(TimeoutError):
        await step()
    async with elections.campaign("e", b"a") as leading:
        await step()
        await leading.proclaim(b"a2")
        await step()
    await step()

    assert seen == [None, b"a", b"a2", None]


async def test_what_a_candidate_says_is_limited(store: VirtualStore) -> None:
    """The size is named; no lease stays."""
    with pytest.raises(ValueError, match="65537 bytes"):
        await Elections(store, "shop", clock=now).campaign("e", b"x" * 65537).__aenter__()

    assert store.leases() == set()
