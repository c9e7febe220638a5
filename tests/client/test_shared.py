"""Timestamps and clocks of the client, and how it is found: nothing to configure in an instance."""

from __future__ import annotations

import asyncio
import itertools
import os
import subprocess
import sys

import pytest

from tests.client.nodes import NodeProcess
from unisono import client
from unisono.client.shared import MAX_TIMESTAMPS
from unisono.client.stamping import Clock


async def test_timestamps_rise_over_many_callers_and_a_restart(own_node: NodeProcess) -> None:
    """What was given out after an answer is above it, and none comes twice."""
    shared = own_node.shared()
    first = await asyncio.gather(*(shared.timestamps(3) for _ in range(200)))
    own_node.kill()
    await asyncio.to_thread(own_node.start)
    second = [await shared.tso() for _ in range(3)]

    given = sorted(itertools.chain.from_iterable(first))
    assert 600 == len(set(given))
    assert [*given, *second] == sorted({*given, *second})


async def test_callers_at_one_time_share_a_request(node: NodeProcess) -> None:
    """Of those who wait, who came first gets the lower ones; who was cancelled holds up nobody."""
    shared = node.shared()
    callers = [asyncio.create_task(shared.timestamps(2)) for _ in range(100)]
    await asyncio.sleep(0)
    callers[50].cancel()

    found = await asyncio.gather(*callers, return_exceptions=True)

    shares = [share for share in found if isinstance(share, range)]
    assert 99 == len(shares)
    assert sorted(shares, key=lambda share: share[0]) == shares
    # The first went alone; all others came while that was under way, and their ranges follow each other.
    assert all(before.stop <= after.start for before, after in itertools.pairwise(shares))
    assert shares[-1].stop - shares[1].start == 2 * len(shares[1:])


async def test_more_than_one_request_can_give_is_refused(node: NodeProcess) -> None:
    """And so is none."""
    for count in (0, MAX_TIMESTAMPS + 1):
        with pytest.raises(ValueError, match=f"count is {count}"):
            await node.shared().timestamps(count)


def test_the_twin_has_timestamps(node: NodeProcess) -> None:
    """Rising, too."""
    shared = node.shared_sync()

    assert shared.tso() < shared.timestamps(5)[0]


async def test_the_nodes_clock_tells_its_limits(node: NodeProcess) -> None:
    """Its stamp lies above one that was taken before, up to the drift."""
    before = await node.shared().node_clock()
    after = node.shared_sync().node_clock()

    assert before.stamp < after.stamp
    assert before.max_drift_ms > 0


def test_a_process_has_one_clock_which_rises() -> None:
    """Also over what it observes."""
    clock = client.clock
    stamp = clock.now()

    assert clock is client.clock
    assert isinstance(clock, Clock)
    assert clock.observe(stamp + 5) > stamp + 5


def test_nothing_is_configured_in_an_instance(node: NodeProcess) -> None:
    """The environment says where the node is, for asyncio and without."""
    code = """
import asyncio
from unisono import client
client.sync.kv.put("configured", b"not at all")
async def main():
    async with client.lock("configured") as held:
        print((await client.kv.get("configured")).value.decode(), held.token > 0)
asyncio.run(main())
"""
    environment = {**node.environment, "UNISONO_APPLICATION": "shop"}

    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )

    assert ("not at all True\n", "") == (done.stdout, done.stderr)


def test_outside_of_an_instance_an_address_is_asked_for() -> None:
    """The error says what is missing."""
    code = "from unisono import client; client.sync.kv.get('a')"
    outside = {name: value for name, value in os.environ.items() if not name.startswith("UNISONO_")}

    done = subprocess.run(
        [sys.executable, "-c", code], env=outside, capture_output=True, text=True, check=False
    )

    assert "NotRunning: this process is no instance of a node" in done.stderr


def test_every_name_is_there_in_both_twins() -> None:
    """The lazily loaded ones, too."""
    for name in client.__all__:
        assert hasattr(client, name) or name in client._SHARED
    for name in client._SHARED:
        assert name in client.sync.__all__
