"""The gateway's word: what it sees of an instance is looked into at once, and ends nobody by itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Literal

from tests.node.world import python, spec_of, world
from unisono.control.records import Phase, Status
from unisono.gateway.errors import Unreachable
from unisono.gateway.link import GatewayEvent
from unisono.node.hearing import TOLD_SECONDS, Hearing
from unisono.spec.model import HealthCheck

RARELY = HealthCheck(kind="http", interval=3600.0, timeout=5.0, retries=1)
TURNS_ILL = """
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(500 if os.path.exists("ill") else 200); self.end_headers()
    def log_message(self, *args): pass
http.server.HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""


def event(
    kind: Literal["target-suspect", "target-ejected", "target-returned", "no-target"],
    generation: int = 1,
    instance: str | None = "web-1",
) -> GatewayEvent:
    return GatewayEvent(
        kind=kind, service="shop/web", instance=instance, generation=generation, reason="5 failures"
    )


async def test_what_the_gateway_suspects_is_probed_at_once(tmp_path: Path) -> None:
    """Not when the next probe would be due: that is in an hour."""
    work = tmp_path / "work"
    work.mkdir()
    async with world(tmp_path / "node") as node:
        await node.start_agent()
        await node.want(spec_of(python(TURNS_ILL), healthcheck=RARELY, working_dir=str(work)), "web-1")
        ready = await node.until_phase("web-1", Phase.READY)
        (work / "ill").touch()

        node.gateway.told.put_nowait(event("target-ejected", ready.generation))

        status = await node.until_phase("web-1", Phase.UNHEALTHY)
        assert "http / answered 500" in status.reason


async def test_one_that_answers_its_probes_lives_on(tmp_path: Path) -> None:
    """However often it is ejected; `ps` says so until it gets requests again."""
    async with world(tmp_path / "node") as node:
        await node.start_agent()
        await node.want(spec_of(healthcheck=RARELY), "web-1")
        ready = await node.until_phase("web-1", Phase.READY)

        for _ in range(3):
            node.gateway.told.put_nowait(event("target-ejected", ready.generation))
        ejected = await node.until("web-1", lambda status: "gets no requests: 5 failures" in status.reason)
        node.gateway.told.put_nowait(event("target-returned", ready.generation))
        returned = await node.until("web-1", lambda status: not status.reason)

        assert (ejected.phase, returned.phase) == (Phase.READY, Phase.READY)
        assert (returned.pid, returned.restarts) == (ready.pid, 0)


async def test_a_word_about_an_earlier_run_is_not_meant(tmp_path: Path) -> None:
    """What was wrong with the process before says nothing of this one."""
    async with world(tmp_path / "node") as node:
        await node.start_agent()
        await node.want(spec_of(healthcheck=RARELY), "web-1")
        ready = await node.until_phase("web-1", Phase.READY)

        node.gateway.told.put_nowait(event("target-ejected", ready.generation - 1))
        node.gateway.told.put_nowait(event("target-ejected", ready.generation))
        seen: list[Status] = [await node.until("web-1", lambda status: bool(status.reason))]

        assert seen[0].reason == "gets no requests: 5 failures"
        assert node.gateway.told.empty()


class Script:
    """A gateway that tells what it is given and is gone then, once."""

    def __init__(self, *events: GatewayEvent) -> None:
        self.given = list(events)
        self.calls = 0

    async def events(self) -> AsyncGenerator[GatewayEvent, None]:
        self.calls += 1
        while self.given:
            yield self.given.pop(0)
        if self.calls == 1:
            raise Unreachable("gone")
        await asyncio.Event().wait()


async def heard(script: Script, times: list[float]) -> tuple[list[GatewayEvent], list[str]]:
    """What was heeded and what was told, until a second listening waits for more."""
    heeded: list[GatewayEvent] = []
    told: list[str] = []
    hearing = Hearing(
        script,
        heed=heeded.append,
        tell=lambda kind, event: told.append(kind),
        clock=lambda: times.pop(0),
    )
    task = asyncio.create_task(hearing.run())
    async with asyncio.timeout(20):
        while script.calls < 2:  # noqa: ASYNC110 - the script tells nobody that it is listened to
            await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return heeded, told


async def test_the_same_is_written_down_once_in_a_while() -> None:
    """All of it is heeded; people are told what they can read."""
    same = [event("target-suspect") for _ in range(3)]

    heeded, told = await heard(Script(*same), [0.0, TOLD_SECONDS - 0.1, TOLD_SECONDS])

    assert heeded == same
    assert told == ["instance-suspect", "instance-suspect"]


async def test_different_things_are_each_written_down() -> None:
    """Of one instance or of the whole service; a gateway that comes back is listened to again."""
    events = [event("target-ejected"), event("target-returned"), event("no-target", instance=None)]

    _, told = await heard(Script(*events), [0.0, 0.0, 0.0])

    assert told == ["instance-ejected", "instance-returned", "service-unserved"]
