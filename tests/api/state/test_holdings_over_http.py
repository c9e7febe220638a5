"""Leases, locks, semaphores, elections, barriers, quotas, time over HTTP."""

from __future__ import annotations

import asyncio
import base64
import subprocess
import sys
from typing import Any

import httpx
import pytest

from tests.api.state.conftest import Services


async def lease(client: httpx.AsyncClient, ttl_ms: int = 60_000, **more: Any) -> str:
    """The id of a new lease."""
    answer = await client.post("/v1/leases", json={"ttl_ms": ttl_ms, **more})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["lease"])


def asleep() -> subprocess.Popen[bytes]:
    """A process that does nothing until it is killed."""
    return subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)


class TestLocks:
    async def test_one_holds_it_at_a_time_in_order_with_rising_tokens(self, services: Services) -> None:
        """Whoever waits gets it when it is released."""
        first = (await services.orders.post("/v1/locks/job/7:acquire", json={})).json()
        refused = await services.payments.post("/v1/locks/job/7:acquire", json={"wait_ms": 0})
        waiting = asyncio.create_task(
            services.payments.post("/v1/locks/job/7:acquire", json={"wait_ms": 60_000})
        )
        await stand_in_line(services, 2)
        line = (await services.payments.get("/v1/locks/job/7")).json()["members"]
        given = {"lease": first["lease"], "token": first["token"]}
        released = await services.orders.post("/v1/locks/job/7:release", json=given)
        second = (await waiting).json()

        assert (refused.status_code, refused.json()["code"]) == (409, "not-acquired")
        assert released.status_code == 204
        assert [member["token"] for member in line] == [first["token"], second["token"]]
        assert second["token"] > first["token"]

    async def test_a_repeat_with_the_same_lease_is_the_same_holding(self, services: Services) -> None:
        """So that a client whose answer was lost asks again."""
        own = await lease(services.orders)
        first = await services.orders.post("/v1/locks/a:acquire", json={"lease": own})

        assert (await services.orders.post("/v1/locks/a:acquire", json={"lease": own})).json() == first.json()

    async def test_whoever_goes_away_while_waiting_holds_nothing(self, services: Services) -> None:
        """Nor does its lease stay."""
        first = (await services.orders.post("/v1/locks/a:acquire", json={})).json()
        waiting = asyncio.create_task(services.payments.post("/v1/locks/a:acquire", json={"wait_ms": 60_000}))
        await stand_in_line(services, 2)
        waiting.cancel()
        await stand_in_line(services, 1)
        await services.orders.delete(f"/v1/leases/{first['lease']}")

        assert await members(services) == []

    async def test_a_write_with_the_fence_of_a_lock_that_was_lost_is_refused(
        self, services: Services
    ) -> None:
        """Though the writer believes that it holds it."""
        held = (await services.orders.post("/v1/locks/a:acquire", json={})).json()
        fence = {"unisono-fence": held["fence"]}
        before = await services.orders.put("/v1/kv/a", content=b"1", headers=fence)
        await services.orders.delete(f"/v1/leases/{held['lease']}")
        after = await services.orders.put("/v1/kv/a", content=b"2", headers=fence)

        assert (before.status_code, after.status_code, after.json()["code"]) == (200, 409, "fenced")

    async def test_a_lease_of_another_application_can_be_neither_used_nor_ended(
        self, services: Services
    ) -> None:
        """Its id is no secret."""
        own = await lease(services.orders)
        used = await services.stranger.post("/v1/locks/a:acquire", json={"lease": own})
        kept = await services.stranger.post(f"/v1/leases/{own}:keepalive")
        await services.stranger.delete(f"/v1/leases/{own}")

        assert (used.status_code, used.json()["code"], kept.status_code) == (410, "lease-ended", 410)
        assert (await services.orders.post(f"/v1/leases/{own}:keepalive")).status_code == 200

    async def test_what_a_process_holds_is_given_on_when_it_is_killed(self, services: Services) -> None:
        """At once, whatever time its lease still had."""
        with asleep() as process:
            own = await lease(services.orders, pid=process.pid)
            await services.orders.post("/v1/locks/a:acquire", json={"lease": own})
            waiting = asyncio.create_task(
                services.payments.post("/v1/locks/a:acquire", json={"wait_ms": 30_000})
            )
            await asyncio.sleep(0.1)
            process.kill()
            second = await waiting

        assert second.status_code == 200

    async def test_what_died_while_the_node_was_away_is_found_when_it_begins(
        self, services: Services
    ) -> None:
        """The lease's record says which process it was."""
        with asleep() as process:
            own = await lease(services.orders, pid=process.pid)
            await services.orders.post("/v1/locks/a:acquire", json={"lease": own})
            services.served.context.states.holders.close()
            process.kill()
        services.served.context.states.holders._watched.clear()
        await services.served.context.states.begin()
        second = await services.payments.post("/v1/locks/a:acquire", json={"wait_ms": 30_000})

        assert second.status_code == 200

    @pytest.mark.parametrize(
        ("path", "body"),
        [
            ("/v1/locks/a:acquire", {"lease": "x"}),
            ("/v1/locks/a:acquire", {"wait_ms": -1}),
            ("/v1/locks/a:acquire", {"ttl_ms": 1}),
            ("/v1/semaphores/a:acquire", {}),
            ("/v1/leases", {"ttl_ms": 1000, "pid": 4_000_000}),
            ("/v1/elections/a:campaign", {"value": "no base64"}),
        ],
    )
    async def test_what_makes_no_sense_is_refused(
        self, services: Services, path: str, body: dict[str, Any]
    ) -> None:
        """422, and nothing is held."""
        assert (await services.orders.post(path, json=body)).status_code == 422


async def stand_in_line(services: Services, count: int) -> None:
    """Wait until so many stand in line."""
    async with asyncio.timeout(30):
        while len(await members(services)) != count:  # noqa: ASYNC110 - over HTTP there is no event of it
            await asyncio.sleep(0.01)


async def members(services: Services) -> list[str]:
    """The keys of those who stand in line for any lock of the shop."""
    snapshot = await services.served.store.scan("state/shop/lock/")
    return [entry.key for entry in snapshot.entries]


class TestSemaphores:
    async def test_so_many_hold_a_permit_and_no_more(self, services: Services) -> None:
        """In order, as a lock."""
        held = [await services.orders.post("/v1/semaphores/a:acquire", json={"permits": 2}) for _ in range(3)]
        other = await services.orders.post("/v1/semaphores/a:acquire", json={"permits": 3})

        assert [answer.status_code for answer in held] == [200, 200, 409]
        assert "the same number" in other.json()["detail"]


class TestElections:
    async def test_one_leads_and_all_can_read_what_it_says(self, services: Services) -> None:
        """The next leads when it resigns."""
        said = base64.b64encode(b"orders-1").decode()
        won = (await services.orders.post("/v1/elections/a:campaign", json={"value": said})).json()
        leader = (await services.payments.get("/v1/elections/a:leader")).json()
        given = {"lease": won["lease"], "token": won["token"]}
        await services.orders.post("/v1/elections/a:proclaim", json={**given, "value": "YmU="})
        proclaimed = (await services.payments.get("/v1/elections/a:leader")).json()
        await services.orders.post("/v1/elections/a:resign", json=given)
        late = await services.orders.post("/v1/elections/a:proclaim", json={**given, "value": said})

        assert leader == {"value": said, "token": won["token"]}
        assert proclaimed["value"] == "YmU="
        assert (await services.payments.get("/v1/elections/a:leader")).json() == {
            "value": None,
            "token": None,
        }
        assert (late.status_code, late.json()["code"]) == (409, "fenced")


class TestBarriers:
    async def test_all_go_on_when_the_last_has_come(self, services: Services) -> None:
        """Each has an index of its own."""
        body = {"parties": 3, "wait_ms": 30_000}
        passed = await asyncio.gather(
            *(services.orders.post("/v1/barriers/a:wait", json=body) for _ in range(3))
        )

        assert sorted(answer.json()["index"] for answer in passed) == [0, 1, 2]

    async def test_too_few_go_home(self, services: Services) -> None:
        """When the wait is over."""
        alone = await services.orders.post("/v1/barriers/a:wait", json={"parties": 2, "wait_ms": 50})

        assert (alone.status_code, alone.json()["code"]) == (409, "not-acquired")


class TestQuotas:
    async def test_never_more_is_granted_than_there_is(self, services: Services) -> None:
        """The refusal says what is left; the end of a lease gives its grants back."""
        await services.orders.put("/v1/quotas/seats", json={"size": 10})
        own = await lease(services.orders)
        take = {"amount": 7, "lease": own, "request_id": "r-1"}
        first = await services.orders.post("/v1/quotas/seats:acquire", json=take)
        repeat = await services.orders.post("/v1/quotas/seats:acquire", json=take)
        more = await services.payments.post(
            "/v1/quotas/seats:acquire",
            json={**take, "lease": await lease(services.payments), "request_id": "r-2"},
        )
        held = (await services.payments.get("/v1/quotas/seats")).json()
        await services.orders.delete(f"/v1/leases/{own}")
        freed = (await services.payments.get("/v1/quotas/seats")).json()

        assert first.json() == repeat.json()
        assert (more.status_code, more.json()["code"], more.json()["available"]) == (409, "insufficient", 3)
        assert (held["granted"], freed["granted"], freed["size"]) == (7, 0, 10)

    async def test_a_grant_is_given_back_by_its_request(self, services: Services) -> None:
        """Twice is no error."""
        await services.orders.put("/v1/quotas/seats", json={"size": 10})
        take = {"amount": 7, "lease": await lease(services.orders), "request_id": "r-1"}
        await services.orders.post("/v1/quotas/seats:acquire", json=take)
        for _ in range(2):
            given = await services.orders.post("/v1/quotas/seats:release", json={"request_id": "r-1"})
            assert given.status_code == 204

        assert (await services.orders.get("/v1/quotas/seats")).json()["granted"] == 0

    async def test_there_is_no_quota_before_it_has_a_size(self, services: Services) -> None:
        """404."""
        assert (await services.orders.get("/v1/quotas/seats")).status_code == 404


class TestTime:
    async def test_timestamps_only_rise_also_over_a_restart(self, services: Services) -> None:
        """The next to serve begins above all that were given out."""
        first = (await services.orders.post("/v1/tso", json={"count": 1000})).json()
        second = (await services.payments.post("/v1/tso", json={})).json()
        rooms = await services.served.context.states.of("shop")
        await rooms.oracle.close()
        third = (await services.orders.post("/v1/tso", json={})).json()

        assert int(first["first"]) + 1000 <= int(second["first"]) < int(third["first"])

    async def test_trap_49_timestamps_are_strings(self, services: Services) -> None:
        """A reader of JSON that keeps numbers as floats would lose their last bits, above 2**53."""
        taken = (await services.orders.post("/v1/tso", json={})).json()
        clock = (await services.orders.get("/v1/clock")).json()

        assert int(taken["first"]) > 2**53
        assert (str, str) == (type(taken["first"]), type(clock["hlc"]))

    async def test_the_clock_goes_above_what_it_is_shown_unless_that_is_far_ahead(
        self, services: Services
    ) -> None:
        """A clock an hour ahead must not carry everyone along."""
        now = int((await services.orders.get("/v1/clock")).json()["hlc"], 16)
        ahead = now + (100 << 16)
        merged = await services.orders.get("/v1/clock", headers={"unisono-clock": f"{ahead:016x}"})
        hour = now + (3_600_000 << 16)
        refused = await services.orders.get("/v1/clock", headers={"unisono-clock": f"{hour:016x}"})
        after = (await services.orders.get("/v1/clock")).json()

        assert int(merged.json()["hlc"], 16) > ahead
        assert (refused.status_code, refused.json()["code"]) == (422, "clock-ahead")
        assert (int(after["hlc"], 16) < hour, after["refused"]) == (True, 1)
