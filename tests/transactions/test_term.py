"""A node's terms as a coordinator while its store fails, in virtual time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import pairwise

import pytest

from tests.state.virtual import VirtualLoop, now
from tests.transactions.conftest import Services
from tests.transactions.disk import Disk
from unisono.store.base import Batch, MaybeDone, NotDone
from unisono.transactions import term
from unisono.transactions.calls import HttpCaller
from unisono.transactions.coordinator import Coordinator


class Failing(Disk):
    """A store that grants no lease as often as it is told to; ``asked`` has the times when it was asked."""

    def __init__(self, failures: int) -> None:
        super().__init__()
        self.failures = failures
        self.asked: list[float] = []
        self.cut = asyncio.Event()

    async def grant(self, ttl: float) -> int:
        self.asked.append(now())
        if self.failures:
            self.failures -= 1
            raise NotDone("down") if self.failures % 2 else MaybeDone("silent")
        return await super().grant(ttl)

    async def watch(self, prefix: str, *, after: int, marks: bool = False) -> AsyncIterator[Batch]:
        await self.cut.wait()
        self.cut.clear()
        raise NotDone("cut")
        yield  # an iterator, as every watch is

    def pauses(self) -> list[float]:
        """Between the tries."""
        return [later - earlier for earlier, later in pairwise(self.asked)]


def test_pauses_double_up_to_a_cap_and_are_spread() -> None:
    chance = random.Random(1)
    drawn = {n: [term.pause_before(n, chance) for _ in range(200)] for n in (1, 2, 3, 6, 1000)}

    assert all(term.PAUSE_MIN <= pause <= term.PAUSE_MAX for pauses in drawn.values() for pause in pauses)
    tops = [0.1, 0.2, 0.4, 2.0, 2.0]
    assert tops == pytest.approx([max(pauses) for pauses in drawn.values()], rel=0.05)
    assert [top / 2 for top in tops] == pytest.approx([min(p) for p in drawn.values()], rel=0.05)


def test_a_store_that_does_not_answer_is_asked_ever_less_often() -> None:
    async def work(store: Failing, coordinator: Coordinator) -> list[float]:
        await coordinator.ready.wait()
        return store.pauses()

    pauses = _run(work, failures=12)

    assert 12 == len(pauses)
    for failures, pause in enumerate(pauses, start=1):
        top = min(2.0, 0.05 * 2**failures)
        assert top / 2 <= pause <= top


def test_after_a_term_was_served_the_pauses_begin_anew() -> None:
    async def work(store: Failing, coordinator: Coordinator) -> list[float]:
        await coordinator.ready.wait()
        lost = now()
        store.cut.set()
        while len(store.asked) < 10:  # noqa: ASYNC110 - in virtual time
            await asyncio.sleep(0.01)
        return [store.asked[-1] - lost]

    (pause,) = _run(work, failures=8)

    assert 0.05 <= pause <= 0.1


def test_no_node_waits_as_long_as_another() -> None:
    """Else all that a store which is back has lost come at once."""

    async def work(store: Failing, coordinator: Coordinator) -> list[float]:
        await coordinator.ready.wait()
        return store.pauses()

    assert _run(work, failures=3, seed=1) != _run(work, failures=3, seed=2)


def _run(
    work: Callable[[Failing, Coordinator], Awaitable[list[float]]], *, failures: int, seed: int = 1
) -> list[float]:
    """A coordinator on a store that fails, and what ``work`` says of it."""

    async def coordinate() -> list[float]:
        store, caller = Failing(failures), HttpCaller()
        coordinator = Coordinator(
            store, "n1", caller, Services(), stamp=lambda: 0, chance=random.Random(seed), now=now
        )
        running = asyncio.create_task(coordinator.run())
        try:
            async with asyncio.timeout(60):
                return await work(store, coordinator)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await caller.close()

    loop = VirtualLoop()
    try:
        return loop.run_until_complete(coordinate())
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
