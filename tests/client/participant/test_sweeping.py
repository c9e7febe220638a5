"""What was left prepared is finished by its participant, as a real node's log decides (trap 30)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest

from tests.client.nodes import NodeProcess
from tests.client.participant.test_prepared import listed
from tests.client.participant.worlds import World
from tests.databases import LIMIT
from unisono import client
from unisono.client.participant import Participant, sweeping
from unisono.client.transactions import new_gid


@pytest.fixture
def instance(node: NodeProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process is one of the node, and sweeps at once and often."""
    monkeypatch.setenv("UNISONO_STATE", str(node.state))
    monkeypatch.setenv("UNISONO_APPLICATION", "shop")
    monkeypatch.delenv("UNISONO_API", raising=False)
    for name, seconds in (("FIRST", 0.0), ("EVERY", 0.1), ("YOUNG", 0.0)):
        monkeypatch.setattr(sweeping, name, seconds)


async def test_an_orphan_of_an_aborted_transaction_is_rolled_back_and_others_are_left(
    on_pg: World, node: NodeProcess, instance: None
) -> None:
    """What the log does not know is left, for it is young; what has another prefix is not looked at."""
    aborted, unknown = new_gid(), new_gid()
    await _ended(node, aborted)
    await _left(on_pg, aborted, unknown)

    await _until_swept(on_pg.xa(), lambda: on_pg.row(aborted) is not None)

    assert sorted([f"test:{unknown}:b1", f"theirs:{aborted}:b1"]) == listed(on_pg)
    assert ("fenced", 0, "rollback") == on_pg.row(aborted)


async def test_an_orphan_of_nobody_is_presumed_aborted_when_it_is_old(
    on_pg: World, instance: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No transaction stays undecided for so long."""
    monkeypatch.setattr(sweeping, "GRACE", 0.0)
    gid = new_gid()
    await _left(on_pg, gid)

    await _until_swept(on_pg.xa(), lambda: f"test:{gid}:b1" not in listed(on_pg))

    assert 0 == on_pg.effects(gid=gid)


async def test_a_node_that_can_not_be_asked_leaves_everything(
    on_pg: World, instance: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """No answer is not "unknown"."""
    monkeypatch.setattr(sweeping, "GRACE", 0.0)
    monkeypatch.setenv("UNISONO_STATE", "/nowhere")
    gid = new_gid()
    await _left(on_pg, gid)

    await _until_swept(on_pg.xa(), lambda: "wait for the next sweep: no node answers" in caplog.text)

    assert f"test:{gid}:b1" in listed(on_pg)


async def _ended(node: NodeProcess, gid: str) -> None:
    """An aborted transaction in the node's log, which has no branch."""
    with pytest.raises(KeyError):
        async with client.transaction("xa", gid=gid, **node.where):
            raise KeyError


async def _left(world: World, *gids: str) -> None:
    """Branches that are prepared and that nobody finishes; of the first one, one with another prefix too."""
    for prefix, these in (("test", gids), ("theirs", gids[:1])):
        for gid in these:
            world.read(
                f"BEGIN; INSERT INTO effects VALUES ('{gid}', '{prefix}', 1);"
                f" PREPARE TRANSACTION '{prefix}:{gid}:b1'"
            )


async def _until_swept(_: Participant, is_so: Callable[[], bool]) -> None:
    """Wait, with a participant that is there meanwhile: it sweeps no longer than it is."""
    end = time.monotonic() + LIMIT
    while not await asyncio.to_thread(is_so):
        assert time.monotonic() < end
        await asyncio.sleep(0.05)
