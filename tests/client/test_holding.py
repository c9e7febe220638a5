"""What is held through the client, against a real node that is killed and paused, and holders that die."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from contextlib import aclosing

import pytest

from tests.client.nodes import NodeProcess
from tests.databases import LIMIT
from unisono import client
from unisono.client.leases import Term, clock
from unisono.client.shared import Shared

HOLDER = """
import sys, time
from unisono.client.sync import connect
with connect(sys.argv[1], namespace="shop").lock(sys.argv[2], ttl=600) as held:
    print(held.token, flush=True)
    time.sleep(600)
"""


async def test_one_holder_at_a_time_with_rising_tokens(node: NodeProcess) -> None:
    """However many ask at once."""
    shared = node.shared()
    inside, most, tokens = 0, 0, []

    async def work() -> None:
        nonlocal inside, most
        async with shared.lock("one", wait=LIMIT) as held:
            inside += 1
            most = max(most, inside)
            tokens.append(held.token)
            await asyncio.sleep(0.01)
            inside -= 1

    await asyncio.gather(*(work() for _ in range(8)))

    assert 1 == most
    assert sorted(set(tokens)) == tokens


async def test_a_wait_that_is_over_holds_nothing(node: NodeProcess) -> None:
    """NotAcquired, and the lock goes to who asks later."""
    shared = node.shared()

    async with shared.lock("busy"):
        with pytest.raises(client.NotAcquired):
            async with shared.lock("busy", wait=0.1):
                pass
    async with shared.lock("busy", wait=0) as held:
        assert held.remaining > 0


async def test_who_is_cancelled_while_it_waits_leaves_the_line(node: NodeProcess) -> None:
    """The next in line need not wait for its time to live."""
    shared = node.shared()
    async with shared.lock("line"):
        waiting = asyncio.create_task(_hold(shared, "line", ttl=600))
        await asyncio.sleep(0.2)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    async with asyncio.timeout(LIMIT), shared.lock("line", wait=LIMIT):
        pass


async def test_a_body_that_is_cancelled_gives_back(node: NodeProcess) -> None:
    """At once; and the cancellation goes on."""
    shared = node.shared()
    entered = asyncio.Event()
    holding = asyncio.create_task(_hold(shared, "given", ttl=600, entered=entered))
    await entered.wait()
    holding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await holding

    async with shared.lock("given", wait=0):
        pass


async def test_a_lock_is_kept_while_its_block_runs(node: NodeProcess) -> None:
    """Longer than its time to live."""
    shared = node.shared()
    async with shared.lock("kept", ttl=0.5) as held:
        await asyncio.sleep(1.2)
        with pytest.raises(client.NotAcquired):
            async with shared.lock("kept", wait=0):
                pass
        held.check()


async def test_a_block_is_cancelled_when_its_lease_can_not_be_renewed(own_node: NodeProcess) -> None:
    """The node is paused and says nothing: the holder's own clock ends the block."""
    with pytest.raises(client.Lost, match="not renewed") as caught:
        await _hold_while_paused(own_node)

    assert isinstance(caught.value.__cause__, asyncio.CancelledError)


async def test_a_block_does_not_begin_with_a_lease_that_is_nearly_over(own_node: NodeProcess) -> None:
    """The node is paused while it is asked for one: what it grants then may end before the block does."""
    entered = asyncio.Event()
    own_node.signal(signal.SIGSTOP)
    holding = asyncio.create_task(_hold(own_node.shared(), "late", ttl=1.0, entered=entered))
    await asyncio.sleep(0.9)
    own_node.signal(signal.SIGCONT)

    with pytest.raises(client.Lost):
        await asyncio.wait_for(holding, LIMIT)
    assert not entered.is_set()


def test_nor_does_one_of_a_thread(own_node: NodeProcess) -> None:
    """Which nothing would cancel."""
    own_node.signal(signal.SIGSTOP)
    going_on = threading.Timer(0.9, own_node.signal, (signal.SIGCONT,))
    going_on.start()

    with pytest.raises(client.Lost):
        _enter(own_node)
    going_on.join()


def test_loss_is_announced_before_the_lease_can_end() -> None:
    """A fifth of the time to live before, counted from before the renewal was asked for."""
    term = Term(ttl=10.0, asked=clock())

    assert 7.0 < term.remaining() <= 8.0
    assert Term(ttl=10.0, asked=clock() - 8.0).remaining() <= 0


async def test_a_lock_outlasts_a_restart_of_the_node(own_node: NodeProcess) -> None:
    """It is kept alive by whoever answers next; nobody else gets it."""
    shared = own_node.shared()
    async with shared.lock("restart", ttl=20) as held:
        await asyncio.to_thread(own_node.kill)
        await asyncio.to_thread(own_node.start)
        with pytest.raises(client.NotAcquired):
            async with shared.lock("restart", wait=0.2):
                pass

        held.check()


async def test_waiting_outlasts_a_restart_of_the_node(own_node: NodeProcess) -> None:
    """Who waits is still in line, and gets what is given back."""
    shared = own_node.shared()
    entered = asyncio.Event()
    async with shared.lock("wait", ttl=30):
        waiting = asyncio.create_task(_hold(shared, "wait", ttl=30, entered=entered))
        await asyncio.sleep(0.3)
        await asyncio.to_thread(own_node.kill)
        await asyncio.to_thread(own_node.start)
    async with asyncio.timeout(LIMIT):
        await entered.wait()

    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_what_a_killed_process_held_is_given_on_at_once(node: NodeProcess) -> None:
    """Long before the ten minutes of its time to live are over, and with a higher token."""
    holder = subprocess.Popen(  # noqa: ASYNC220 - it returns at once
        [sys.executable, "-c", HOLDER, node.api, "killed"], stdout=subprocess.PIPE, env=dict(os.environ)
    )
    assert holder.stdout is not None
    first = int(await asyncio.to_thread(holder.stdout.readline))
    holder.kill()
    holder.wait(LIMIT)

    async with node.shared().lock("killed", wait=LIMIT) as held:
        assert held.token > first


async def test_a_write_with_the_fence_of_a_lost_lock_is_refused(node: NodeProcess) -> None:
    """The holder before can't overwrite what the one after wrote."""
    shared = node.shared()
    async with shared.lock("fence") as before:
        await shared.kv.put("guarded", b"1", fence=before.fence)
    async with shared.lock("fence") as after:
        await shared.kv.put("guarded", b"2", fence=after.fence)

        with pytest.raises(client.Fenced):
            await shared.kv.put("guarded", b"1 again", fence=before.fence)

    found = await shared.kv.get("guarded")
    assert found is not None
    assert b"2" == found.value


def test_threads_hold_one_after_the_other(node: NodeProcess) -> None:
    """The twin without asyncio, from several threads."""
    shared = node.shared_sync()
    tokens: list[int] = []

    def work() -> None:
        with shared.lock("threads", wait=LIMIT) as held:
            held.check()
            tokens.append(held.token)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)

    assert sorted(set(tokens)) == tokens
    assert 4 == len(tokens)


def test_a_thread_learns_of_loss(own_node: NodeProcess) -> None:
    """It can't be cancelled: the event is set, check() raises, and so does leaving the block."""
    with pytest.raises(client.Lost):
        _learn_of_loss(own_node)


async def test_a_semaphore_lets_as_many_in_as_it_has_permits(node: NodeProcess) -> None:
    """And no more."""
    shared = node.shared()
    async with shared.semaphore("two", permits=2), shared.semaphore("two", permits=2):
        with pytest.raises(client.NotAcquired):
            async with shared.semaphore("two", permits=2, wait=0):
                pass


async def test_who_leads_can_be_asked_for(node: NodeProcess) -> None:
    """With what the leader says; nobody leads after it resigned."""
    shared = node.shared()
    async with shared.election("chief", b"a") as leading:
        first = await shared.leader("chief")
        await leading.proclaim(b"b")
        second = await shared.leader("chief")

    assert client.Leader(value=b"a", token=leading.token) == first
    assert client.Leader(value=b"b", token=leading.token) == second
    assert await shared.leader("chief") is None


async def test_leaders_are_followed_over_a_restart_of_the_node(own_node: NodeProcess) -> None:
    """Nobody, then each leader and what it says; a node that is asked anew repeats nothing."""
    shared = own_node.shared()
    async with asyncio.timeout(LIMIT), aclosing(shared.leaders("chief")) as leaders:
        seen = [await anext(leaders)]
        async with shared.election("chief", b"a", ttl=LIMIT) as leading:
            seen.append(await anext(leaders))
            own_node.kill()
            await asyncio.to_thread(own_node.start)
            await leading.proclaim(b"b")
            seen.append(await anext(leaders))
        seen.append(await anext(leaders))

    assert [None, b"a", b"b", None] == [found and found.value for found in seen]


def test_leaders_are_followed_without_asyncio(node: NodeProcess) -> None:
    """The same, in a thread's loop."""
    shared = node.shared_sync()
    leaders = shared.leaders("sub-chief")
    seen = [next(leaders)]
    with shared.election("sub-chief", b"a") as leading:
        seen.append(next(leaders))
    seen.append(next(leaders))

    assert [None, client.Leader(value=b"a", token=leading.token), None] == seen


async def test_a_leader_that_may_not_be_asked_for_is_refused_at_once(node: NodeProcess) -> None:
    """A name that no election can have is not asked for again and again."""
    with pytest.raises(client.Refused):
        await anext(node.shared().leaders("a//" * 400))


async def test_a_barrier_lets_all_go_together(node: NodeProcess) -> None:
    """Each has an index of its own."""
    shared = node.shared()

    found = await asyncio.gather(*(shared.barrier("all", 3, wait=LIMIT) for _ in range(3)))

    assert [0, 1, 2] == sorted(found)


async def test_a_barrier_to_which_too_few_come_lets_nobody_pass(node: NodeProcess) -> None:
    """NotAcquired, when the wait is over."""
    with pytest.raises(client.NotAcquired):
        await node.shared().barrier("few", 2, wait=0.1)


async def test_a_quota_is_never_exceeded(node: NodeProcess) -> None:
    """What is held for a block is left again after it."""
    shared = node.shared()
    await shared.resize_quota("seats", 10)

    async with shared.quota("seats", 7):
        with pytest.raises(client.Insufficient) as caught:
            async with shared.quota("seats", 4):
                pass

    assert 3 == caught.value.available
    assert client.Quota(size=10, granted=0) == await shared.look_at_quota("seats")
    assert await shared.look_at_quota("none") is None


async def test_a_time_to_live_that_is_none_is_refused(node: NodeProcess) -> None:
    """Before anything is asked of the node."""
    with pytest.raises(ValueError, match=r"ttl is 0\.01 s"):
        async with node.shared().lock("x", ttl=0.01):
            pass


async def _hold(shared: Shared, name: str, *, ttl: float, entered: asyncio.Event | None = None) -> None:
    async with shared.lock(name, ttl=ttl, wait=LIMIT):
        if entered is not None:
            entered.set()
        await asyncio.sleep(LIMIT)


async def _hold_while_paused(node: NodeProcess) -> None:
    async with node.shared().lock("paused", ttl=2.0):
        node.signal(signal.SIGSTOP)
        try:
            await asyncio.sleep(LIMIT)
        finally:
            node.signal(signal.SIGCONT)


def _enter(node: NodeProcess) -> None:
    with node.shared_sync().lock("late", ttl=1.0):
        pytest.fail("the block has begun")


def _learn_of_loss(node: NodeProcess) -> None:
    with node.shared_sync().lock("thread", ttl=1) as held:
        node.signal(signal.SIGSTOP)
        try:
            assert held.lost.wait(LIMIT)
        finally:
            node.signal(signal.SIGCONT)
        with pytest.raises(client.Lost):
            held.check()
