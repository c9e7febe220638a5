"""The timestamp oracle: strictly rising, whatever happens; virtual time, and a wall clock that jumps."""

from __future__ import annotations

import asyncio
import random
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.state.virtual import FaultyStore, VirtualStore, now, opened
from tests.state.wall import HOUR, KEY, Wall, saved_bound
from unisono.state.batching import Batcher
from unisono.state.errors import NotAcquired
from unisono.state.oracle import MAX_COUNT, Oracle, Window
from unisono.store.base import Broken, NotDone, Put, StoreError
from unisono.timestamps.hybrid import COUNTER_BITS, MILLIS_MAX, unpack


def check_real_time_order(history: list[tuple[int, int, int]]) -> None:
    """Of (began, ended, timestamp): all differ, and whoever began is above all that had ended before."""
    assert len({timestamp for _, _, timestamp in history}) == len(history)
    ends = sorted((ended, timestamp) for _, ended, timestamp in history)
    largest, n = 0, 0
    for began, _, timestamp in sorted(history):
        while n < len(ends) and ends[n][0] < began:
            largest = max(largest, ends[n][1])
            n += 1
        assert timestamp > largest


# --- the window: pure


@settings(derandomize=True, database=None)
@given(
    steps=st.lists(
        st.tuples(st.integers(0, MAX_COUNT), st.integers(-HOUR, HOUR), st.booleans()), min_size=1, max_size=60
    )
)
def test_trap_48_a_window_rises_and_stays_below_its_bound(steps: list[tuple[int, int, bool]]) -> None:
    """Any counts, any clock, bounds saved or not: strictly rising, below the saved bound, never repeated."""
    saved = 1 << 56
    window = Window(saved, window_ms=10)
    last = saved - 1
    wall = saved >> COUNTER_BITS
    for count, jump, save in steps:
        wall += jump
        if save:
            bound = window.next_bound(wall)
            assert bound >= saved
            saved = bound
            window.extend(bound)
        first = window.take(count, wall) if count else None
        if first is not None:
            assert last < first
            last = first + count - 1
            assert last < saved


def test_trap_48_more_than_a_millisecond_holds_runs_into_the_next() -> None:
    """Full counters carry; what does not fit below the bound is not given out."""
    window = Window(5 << COUNTER_BITS, window_ms=10)
    window.extend(7 << COUNTER_BITS)
    first, second, third = (window.take(MAX_COUNT - 1, 5) for _ in range(3))

    assert first == 5 << COUNTER_BITS
    assert second == first + MAX_COUNT - 1
    assert third is None
    assert window.take(2, 5) == second + MAX_COUNT - 1
    assert window.take(1, 5) is None


def test_a_mad_clock_is_refused() -> None:
    """Where the layout has no room the oracle says so, before anything is saved."""
    with pytest.raises(Broken, match="clock shows"):
        Window(1).next_bound(MILLIS_MAX)


# --- the oracle


def test_the_checker_finds_a_repeat_and_a_step_back() -> None:
    """Known bad histories are found; a good one with overlaps is not."""
    check_real_time_order([(1, 4, 20), (2, 3, 10), (5, 6, 30)])
    with pytest.raises(AssertionError):
        check_real_time_order([(1, 2, 10), (3, 4, 10)])
    with pytest.raises(AssertionError):
        check_real_time_order([(1, 2, 20), (3, 4, 10)])


async def test_timestamps_follow_the_clock(store: VirtualStore) -> None:
    """Milliseconds of the wall clock, counter 0 where nothing else was asked for in that one."""
    wall = Wall()
    async with Oracle.serve(store, "shop", wall_ms=wall, clock=now) as oracle:
        await asyncio.sleep(5)
        stamps = [unpack(await oracle.take()) for _ in range(2)]

    assert stamps == [(wall(), 0), (wall(), 1)]


async def test_trap_46_rises_over_restarts_and_clock_jumps(tmp_path: Path) -> None:
    """Thirty lives, the clock an hour ahead or back in between and within: strictly rising, within bounds."""
    chance = random.Random(1)
    wall = Wall()
    given_out: list[int] = []
    for _ in range(30):
        async with (
            opened(tmp_path / "store.db") as store,
            Oracle.serve(store, "shop", wall_ms=wall, clock=now, window_ms=50) as oracle,
        ):
            for _ in range(20):
                wall.offset += chance.choice([0, 0, 0, -HOUR, HOUR])
                count = chance.choice([1, 1, 100, MAX_COUNT])
                first = await oracle.take(count)
                given_out += [first, first + count - 1]
                assert given_out[-1] < await saved_bound(store)
                await asyncio.sleep(chance.choice([0, 0.01, 0.2]))

    assert all(a < b or (a == b and n % 2 == 0) for n, (a, b) in enumerate(pairwise(given_out)))


@pytest.mark.parametrize("seed", range(4))
async def test_trap_47_asked_for_later_is_larger(store: VirtualStore, seed: int) -> None:
    """
    Clients with batchers, oracles that come and go, connections that are cut: all timestamps differ, and
    one whose request began after another's had ended is larger.
    """
    chance = random.Random(seed)
    serving: list[Oracle] = []
    history: list[tuple[int, int, int]] = []  # began, ended, timestamp
    moment = 0

    async def fetch(count: int) -> int:
        await asyncio.sleep(chance.expovariate(300))
        if not serving:
            raise NotDone("nobody serves")
        first = await chance.choice(serving).take(count)
        await asyncio.sleep(chance.expovariate(300))
        return first

    async def serve() -> None:
        while True:
            connection = FaultyStore(store, random.Random(chance.random()), faults=0.02)
            wall = Wall()
            wall.offset += chance.randrange(-HOUR, HOUR)
            try:
                async with Oracle.serve(
                    connection, "shop", ttl=1.0, window_ms=100, wall_ms=wall, clock=now
                ) as oracle:
                    serving.append(oracle)  # and stays known to clients when it has been replaced
                    await asyncio.sleep(chance.expovariate(2))
                    connection.cut = chance.random() < 0.7
                    await asyncio.sleep(chance.expovariate(2))
            except StoreError:
                continue

    async def client(batcher: Batcher) -> None:
        nonlocal moment
        while True:
            began = moment = moment + 1
            try:
                timestamp = await batcher.take()
            except StoreError:
                await asyncio.sleep(0.01)
                continue
            moment += 1
            history.append((began, moment, timestamp))

    servers = [asyncio.create_task(serve()) for _ in range(3)]
    async with Batcher(fetch) as one, Batcher(fetch) as other:
        clients = [asyncio.create_task(client(batcher)) for batcher in (one, other) for _ in range(4)]
        await asyncio.sleep(15)
        for task in (*servers, *clients):
            task.cancel()
        await asyncio.gather(*servers, *clients, return_exceptions=True)

    assert len(serving) > 3
    assert len(history) > 300
    check_real_time_order(history)


async def test_trap_47_a_batch_is_for_those_who_asked_before_it_was_sent(store: VirtualStore) -> None:
    """Who asks while a request is under way waits for the next; each request asks for exactly its callers."""
    asked: list[int] = []
    answers = asyncio.Event()

    async def fetch(count: int) -> int:
        asked.append(count)
        await answers.wait()
        return 100 * len(asked)

    async with Batcher(fetch) as batcher:
        first = [asyncio.create_task(batcher.take()) for _ in range(3)]
        await asyncio.sleep(1)
        second = [asyncio.create_task(batcher.take()) for _ in range(5)]
        gave_up = asyncio.create_task(batcher.take())
        await asyncio.sleep(1)
        gave_up.cancel()
        answers.set()
        taken = await asyncio.gather(*first, *second)

    assert asked == [3, 5]
    assert taken == [100, 101, 102, 200, 201, 202, 203, 204]


async def test_a_failed_batch_fails_for_its_callers_only(store: VirtualStore) -> None:
    """The next one is sent as if nothing had been."""
    calls = 0

    async def fetch(count: int) -> int:
        nonlocal calls
        calls += 1
        await asyncio.sleep(1)
        if calls == 1:
            raise NotDone("no")
        return 7

    async with Batcher(fetch) as batcher:
        first = asyncio.create_task(batcher.take())
        await asyncio.sleep(0.5)
        second = asyncio.create_task(batcher.take())
        with pytest.raises(NotDone):
            await first

        assert await second == 7


async def test_many_wait_for_one_save(store: VirtualStore) -> None:
    """A thousand callers whose window is used up share its next bound, in the order they came."""
    wall = Wall()
    async with Oracle.serve(store, "shop", wall_ms=wall, clock=now, window_ms=10) as oracle:
        revision = (await store.scan("")).revision
        taken = await asyncio.gather(*(oracle.take(1000) for _ in range(1000)))
        writes = (await store.scan("")).revision - revision

    assert taken == sorted(taken)
    assert all(b - a >= 1000 for a, b in pairwise(taken))
    assert writes < 10


async def test_asking_in_a_tight_loop_does_not_starve_the_lease(store: VirtualStore) -> None:
    """Others get their turn, the renewal of the oracle's own lease among them."""
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with Oracle.serve(store, "shop", wall_ms=Wall(), clock=now) as oracle:
        task = asyncio.create_task(other())
        for _ in range(10_000):
            await oracle.take()
        task.cancel()

    assert turns > 10


async def test_the_second_one_waits_or_is_refused(store: VirtualStore) -> None:
    """One serves at a time; when it is closed the next one begins above it."""
    wall = Wall()
    async with Oracle.serve(store, "shop", wall_ms=wall, clock=now) as first:
        last = await first.take()
        with pytest.raises(NotAcquired):
            await Oracle.serve(store, "shop", wall_ms=wall, clock=now, wait=0).__aenter__()
    with pytest.raises(NotDone, match="closed"):
        await first.take()
    async with Oracle.serve(store, "shop", wall_ms=wall, clock=now, wait=0) as second:
        assert last < await second.take()


async def test_arguments_out_of_range_are_refused(store: VirtualStore) -> None:
    """Counts and windows are named; a damaged bound is not taken for none."""
    async with Oracle.serve(store, "shop", clock=now) as oracle:
        for count in (0, -1, MAX_COUNT + 1):
            with pytest.raises(ValueError, match=f"count is {count}"):
                await oracle.take(count)
    with pytest.raises(ValueError, match="window_ms is 9"):
        await Oracle.serve(store, "shop", window_ms=9).__aenter__()
    await store.transact(success=[Put(key=KEY, value=b"{}")])
    with pytest.raises(Broken, match="no bound"):
        await Oracle.serve(store, "shop", clock=now).__aenter__()

    assert store.leases() == set()
