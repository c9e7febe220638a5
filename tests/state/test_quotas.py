"""Quotas: never more granted than there is; real store, virtual time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from contextlib import AsyncExitStack, ExitStack
from typing import Any, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tests.state.virtual import FaultyStore, VirtualLoop, VirtualStore, folder, now, opened
from unisono.state.errors import Insufficient, RequestReused
from unisono.state.quotas import Grant, Quota, Quotas
from unisono.state.requests import REQUEST_TTL
from unisono.store.base import MaybeDone, NotDone, Outcome, StoreError

R = TypeVar("R")


async def granted(quotas: Quotas, name: str = "q") -> tuple[int, int]:
    quota = await quotas.get(name)
    assert quota is not None
    return quota.granted, quota.size


@pytest.fixture
async def quotas(store: VirtualStore) -> Quotas:
    quotas = Quotas(store, "shop", clock=now)
    await quotas.resize("q", 10)
    return quotas


async def test_grants_sum_up_to_the_size(store: VirtualStore, quotas: Quotas) -> None:
    """To the last unit, and not one more; the error says what is left."""
    lease = await store.grant(100)
    await quotas.acquire("q", 7, lease=lease)
    with pytest.raises(Insufficient, match="4 asked for, 3 of 10 left") as refused:
        await quotas.acquire("q", 4, lease=lease)
    await quotas.acquire("q", 3, lease=lease)

    assert refused.value.available == 3
    assert await granted(quotas) == (10, 10)


async def test_trap_44_a_grant_ends_with_its_lease(store: VirtualStore, quotas: Quotas) -> None:
    """Whoever dies gives back all it had, and nothing drifts."""
    dead, alive = await store.grant(5.0), await store.grant(100)
    await quotas.acquire("q", 6, lease=dead)
    await quotas.acquire("q", 4, lease=alive)
    await asyncio.sleep(5.1)
    await quotas.acquire("q", 6, lease=alive)

    assert await granted(quotas) == (10, 10)


async def test_trap_44_many_at_once_get_no_more_than_there_is(store: VirtualStore, quotas: Quotas) -> None:
    """Forty ask through four nodes at the same moment: ten get one each."""
    nodes = [Quotas(store, "shop", clock=now) for _ in range(4)]
    lease = await store.grant(100)
    done = await asyncio.gather(
        *(nodes[n % 4].acquire("q", 1, lease=lease) for n in range(40)), return_exceptions=True
    )

    assert [isinstance(each, Grant) for each in done].count(True) == 10
    assert [isinstance(each, Insufficient) for each in done].count(True) == 30
    assert await granted(quotas) == (10, 10)


async def test_trap_44_a_repeated_request_is_granted_once(store: VirtualStore, quotas: Quotas) -> None:
    """The same grant each time, another amount refused, and no second grant after the release."""
    lease = await store.grant(10_000)
    first = await quotas.acquire("q", 6, lease=lease, request_id="r")
    again = await quotas.acquire("q", 6, lease=lease, request_id="r")
    with pytest.raises(RequestReused, match="amount 6 before, now with 5"):
        await quotas.acquire("q", 5, lease=lease, request_id="r")
    await quotas.release(first)
    await quotas.release(first)
    with pytest.raises(RequestReused, match="released"):
        await quotas.acquire("q", 6, lease=lease, request_id="r")
    empty = await granted(quotas)
    await asyncio.sleep(REQUEST_TTL * 17 / 16 + 1)
    later = await quotas.acquire("q", 6, lease=lease, request_id="r")

    assert first == again
    assert empty == (0, 10)
    assert later.token > first.token


async def test_releasing_an_old_grant_leaves_a_new_one(store: VirtualStore, quotas: Quotas) -> None:
    """A release that comes late, twice, or after the lease is for its own grant alone."""
    dead, alive = await store.grant(5.0), await store.grant(100)
    old = await quotas.acquire("q", 6, lease=dead, request_id="r")
    await store.revoke(dead)
    new = await quotas.acquire("q", 6, lease=alive, request_id="r")
    await quotas.release(old)

    assert await granted(quotas) == (6, 10)
    assert new.token > old.token


async def test_a_quota_does_not_shrink_below_what_is_granted(store: VirtualStore, quotas: Quotas) -> None:
    """Refused with how much is in the way; to exactly what is granted it goes, and it can grow."""
    await quotas.acquire("q", 6, lease=await store.grant(100))
    with pytest.raises(Insufficient):
        await quotas.resize("q", 5)
    await quotas.resize("q", 6)
    smallest = await granted(quotas)
    await quotas.resize("q", 20)

    assert (smallest, await granted(quotas)) == ((6, 6), (6, 20))


async def test_trap_44_shrinking_and_granting_at_once(store: VirtualStore, quotas: Quotas) -> None:
    """Through two nodes: whichever comes first, the sum is never above the size."""
    other = Quotas(store, "shop", clock=now)
    lease = await store.grant(1000)
    for _ in range(20):
        await quotas.resize("q", 10)
        done = await asyncio.gather(
            other.acquire("q", 8, lease=lease), quotas.resize("q", 5), return_exceptions=True
        )
        total, size = await granted(quotas)
        assert total <= size
        assert [isinstance(each, StoreError) for each in done].count(True) == 1
        if isinstance(done[0], Grant):
            await quotas.release(done[0])


@pytest.mark.parametrize("seed", range(4))
async def test_trap_44_quotas_are_kept_through_bad_connections(store: VirtualStore, seed: int) -> None:
    """Faults, late arrivals, cut connections, resizes: the sum is never above the size; then all is free."""
    chance = random.Random(seed)
    watcher = Quotas(store, "shop", clock=now)
    await watcher.resize("q", 10)
    connections: list[FaultyStore] = []
    most = 0

    async def client() -> None:
        connection = FaultyStore(store, random.Random(chance.random()), faults=0.1)
        connections.append(connection)
        quotas = Quotas(connection, "shop", clock=now)
        try:
            if chance.random() < 0.15:
                await quotas.resize("q", chance.randrange(6, 12))
                return
            async with quotas.hold("q", chance.randrange(1, 6), ttl=4.0):
                connection.cut = chance.random() < 0.2
                await asyncio.sleep(chance.expovariate(0.5))
        except StoreError:
            return

    async def watch() -> None:
        nonlocal most
        async for _ in store.watch("state/shop/quota/", after=0):
            total, size = await granted(watcher)
            assert total <= size
            most = max(most, total)

    watching = asyncio.create_task(watch())
    async with asyncio.TaskGroup() as group:
        for _ in range(80):
            task = group.create_task(client())
            await asyncio.sleep(chance.expovariate(3))
            if chance.random() < 0.1:
                asyncio.get_running_loop().call_later(chance.expovariate(1), task.cancel)
    await asyncio.sleep(30)
    for connection in connections:
        await connection.close()
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)

    assert watching.cancelled()
    assert most > 5
    assert (await granted(watcher))[0] == 0
    assert store.leases() == set()


async def test_a_quota_that_is_not_there(store: VirtualStore) -> None:
    """Says so, and grants nothing."""
    quotas = Quotas(store, "shop", clock=now)
    with pytest.raises(NotDone, match="no quota 'q'"):
        await quotas.acquire("q", 1, lease=await store.grant(10))

    assert await quotas.get("q") is None


@pytest.mark.parametrize("amount", [0, -1, 2**53 + 1])
async def test_amounts_out_of_range_are_refused(quotas: Quotas, amount: int) -> None:
    """Named, for grants and for sizes."""
    with pytest.raises(ValueError, match=f"amount is {amount}"):
        await quotas.acquire("q", amount, lease=1)
    if amount:
        with pytest.raises(ValueError, match=f"size is {amount}"):
            await quotas.resize("q", amount)


class QuotaMachine(RuleBasedStateMachine):
    """All operations in any order, ends of leases and reopenings in between, against plain arithmetic."""

    requests = st.integers(0, 4).map(str)
    amounts = st.integers(1, 8)
    leases = st.integers(0, 2)

    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualLoop()
        self.folder = ExitStack()
        self.path = self.folder.enter_context(folder()) / "store.db"
        self.stack = AsyncExitStack()
        self.size = 10
        self.lease_ids: list[int] = []
        self.grants: dict[str, Grant] = {}
        self.released: set[str] = set()
        self.run(self.open())
        self.run(self.quotas.resize("q", 10))
        self.lease_ids = [self.run(self.store.grant(1000)) for _ in range(3)]

    def run(self, coroutine: Coroutine[Any, Any, R]) -> R:
        return self.loop.run_until_complete(coroutine)

    async def open(self) -> None:
        self.store = await self.stack.enter_async_context(opened(self.path))
        self.quotas = Quotas(self.store, "shop", clock=now)

    @rule(size=st.integers(0, 20))
    def resize(self, size: int) -> None:
        if size < self.total():
            with pytest.raises(Insufficient):
                self.run(self.quotas.resize("q", size))
        else:
            self.run(self.quotas.resize("q", size))
            self.size = size

    @rule(request=requests, amount=amounts, lease=leases)
    def acquire(self, request: str, amount: int, lease: int) -> None:
        acquire = self.quotas.acquire("q", amount, lease=self.lease_ids[lease], request_id=request)
        existing = self.grants.get(request)
        if existing is not None and existing.amount == amount:
            assert self.run(acquire) == existing
        elif existing is not None or request in self.released:
            with pytest.raises(RequestReused):
                self.run(acquire)
        elif self.total() + amount > self.size:
            with pytest.raises(Insufficient):
                self.run(acquire)
        else:
            self.grants[request] = self.run(acquire)

    @rule(request=requests)
    def release(self, request: str) -> None:
        grant = self.grants.pop(request, None)
        if grant is not None:
            self.run(self.quotas.release(grant))
            self.released.add(request)

    @rule(lease=leases)
    def end_lease(self, lease: int) -> None:
        ended = self.lease_ids[lease]
        self.run(self.store.revoke(ended))
        self.grants = {id: grant for id, grant in self.grants.items() if grant.place.lease != ended}
        self.lease_ids[lease] = self.run(self.store.grant(1000))

    @rule()
    def reopen(self) -> None:
        self.run(self.stack.aclose())
        self.run(self.open())

    @invariant()
    def agrees(self) -> None:
        quota = self.run(self.quotas.get("q"))
        assert isinstance(quota, Quota)
        assert quota.grants == {id: grant.amount for id, grant in self.grants.items()}
        assert quota.size == self.size
        assert quota.granted <= quota.size

    def total(self) -> int:
        return sum(grant.amount for grant in self.grants.values())

    def teardown(self) -> None:
        self.run(self.stack.aclose())
        self.loop.close()
        self.folder.close()


TestQuotaMachine = QuotaMachine.TestCase
TestQuotaMachine.settings = settings(
    max_examples=25, stateful_step_count=30, deadline=None, derandomize=True, database=None
)


async def test_unknown_is_not_a_refusal(store: VirtualStore, quotas: Quotas) -> None:
    """When the store can never tell, the caller is told so, not that nothing happened."""

    class Mute(FaultyStore):
        async def transact(self, **_: Any) -> Outcome:
            raise MaybeDone("the connection broke")

    with pytest.raises(MaybeDone):
        await Quotas(Mute(store, random.Random(1), faults=0), "shop").acquire("q", 1, lease=1)
