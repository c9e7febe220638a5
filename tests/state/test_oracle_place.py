"""An oracle that loses its place, and the one that follows it: no timestamp is given twice."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from tests.state.virtual import FaultyStore, VirtualStore, now
from tests.state.wall import HOUR, KEY, Wall, saved_bound
from unisono.state.errors import Fenced, Lost, NotAcquired
from unisono.state.line import Line
from unisono.state.oracle import MAX_COUNT, Oracle
from unisono.store.base import MaybeDone, Outcome, Put, StoreError


async def test_trap_46_a_deposed_oracle_is_refused_at_saving_and_stops(store: VirtualStore) -> None:
    """Even one whose clock stands still, so that it does not know that its lease has ended."""
    wall = Wall()

    async with Oracle.serve(store, "shop", wall_ms=wall, clock=lambda: 0.0) as old:
        await old.take()
        for lease in store.leases():
            await store.revoke(lease)
        async with Oracle.serve(store, "shop", wall_ms=wall, clock=now) as new:
            before = await new.take()
            bound = await saved_bound(store)
            wall.offset += 10 * HOUR  # so that the old one needs a new bound
            with pytest.raises(Fenced, match="another oracle"):
                await old.take()
            wall.offset -= 10 * HOUR
            with pytest.raises(Fenced):
                await old.take()

            assert before < await new.take()
            assert bound == await saved_bound(store)


async def test_trap_46_an_oracle_whose_place_is_gone_stops_though_nobody_followed(
    store: VirtualStore,
) -> None:
    """The record is still its own, but another may take over from it at any moment."""
    wall = Wall()

    async with Oracle.serve(store, "shop", wall_ms=wall, clock=lambda: 0.0) as oracle:
        await oracle.take()
        for lease in store.leases():
            await store.revoke(lease)
        wall.offset += HOUR  # so that it needs a new bound
        with pytest.raises(Fenced, match="another oracle"):
            await oracle.take()


async def test_an_oracle_that_died_holds_up_the_next_one_of_its_name_no_longer(store: VirtualStore) -> None:
    """What is left of it is a lease of a minute; another's is waited for."""
    line = Line(store, "state/shop/", "oracle-line", "timestamps")
    await line.enter(await store.grant(60.0), b"node-1")

    with pytest.raises(NotAcquired):
        async with Oracle.serve(store, "shop", owner="node-2", wait=1.0, wall_ms=Wall(), clock=now):
            pass
    async with Oracle.serve(store, "shop", owner="node-1", wait=1.0, wall_ms=Wall(), clock=now) as oracle:
        assert await oracle.take() > 0


async def test_trap_37_an_oracle_goes_on_from_a_save_that_was_done_unseen(store: VirtualStore) -> None:
    """The next save is refused because of the one before, which was its own: no reason to stop."""

    class Unsure(FaultyStore):
        unseen = 0

        async def transact(self, **arguments: Any) -> Outcome:
            outcome = await super().transact(**arguments)
            if any(isinstance(done, Put) and done.key == KEY for done in arguments["success"]):
                self.unseen += 1
                if self.unseen == 2:
                    raise MaybeDone("the connection broke after all was done")
            return outcome

    connection = Unsure(store, random.Random(1), faults=0)
    wall = Wall()

    async with Oracle.serve(connection, "shop", ttl=60, wall_ms=wall, clock=now) as oracle:
        first = await oracle.take()
        wall.offset += HOUR  # so that it needs a new bound
        second = await oracle.take()
        saved = await saved_bound(store)

    assert connection.unseen > 2
    assert first < second < saved


async def test_trap_46_an_oracle_that_was_stopped_gives_none_when_it_goes_on(store: VirtualStore) -> None:
    """Though it has room below its bound, and no timer could run yet: another may serve by now."""
    pause = 0.0

    async def serve() -> None:
        nonlocal pause
        async with Oracle.serve(
            store, "shop", ttl=3.0, wall_ms=Wall(), clock=lambda: now() + pause
        ) as oracle:
            await oracle.take()
            pause = 3.0
            with pytest.raises(Fenced, match="serves no more"):
                await oracle.take()

    with pytest.raises(Lost):
        await serve()


async def test_trap_46_a_late_save_never_lowers_the_bound(store: VirtualStore) -> None:
    """Saves that time out and arrive much later: what is durable is never below what is given out."""
    for seed in range(5):
        chance = random.Random(seed)
        connection = FaultyStore(store, chance, faults=0.3)
        wall = Wall()
        last = 0
        try:
            async with Oracle.serve(
                connection, f"seed{seed}", ttl=60, wall_ms=wall, clock=now, window_ms=20
            ) as oracle:
                for _ in range(40):
                    first = await oracle.take(MAX_COUNT)
                    assert first > last
                    last = first + MAX_COUNT - 1
                    entry = await store.get(f"state/seed{seed}/oracle")
                    assert entry is not None
                    assert last < int(entry.value.split(b'"')[3])
                    await asyncio.sleep(0.05)
        except StoreError:
            pass  # the connection was too bad to begin
        await connection.close()
        entry = await store.get(f"state/seed{seed}/oracle")
        assert entry is None or last < int(entry.value.split(b'"')[3])


async def test_an_oracle_that_is_cut_off_stops_before_the_next_one_begins(store: VirtualStore) -> None:
    """It gives none once its lease may end; the next one takes over within the lease's time."""
    wall = Wall()
    connection = FaultyStore(store, random.Random(1), faults=0)
    took: list[tuple[float, str]] = []

    async def serve(name: str, connection: FaultyStore | VirtualStore) -> None:
        async with Oracle.serve(connection, "shop", ttl=3.0, wall_ms=wall, clock=now) as oracle:
            while True:
                try:
                    await oracle.take()
                except Fenced:
                    await asyncio.sleep(3600)
                took.append((now(), name))
                await asyncio.sleep(0.01)

    first = asyncio.create_task(serve("first", connection))
    await asyncio.sleep(2)
    second = asyncio.create_task(serve("second", store))
    await asyncio.sleep(2)
    connection.cut = True
    cut_at = now()
    await asyncio.sleep(10)
    second.cancel()
    await asyncio.gather(first, second, return_exceptions=True)

    assert isinstance(first.exception(), Lost)
    firsts = [at for at, name in took if name == "first"]
    seconds = [at for at, name in took if name == "second"]
    assert max(firsts) < min(seconds)
    assert min(seconds) < cut_at + 3.1
