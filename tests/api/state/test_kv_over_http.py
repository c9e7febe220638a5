"""Keys and values over HTTP: what is answered, refused, and who sees what."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from tests.api.state.conftest import Services


def b64(value: bytes) -> str:
    """As a value stands in JSON."""
    return base64.b64encode(value).decode()


@asynccontextmanager
async def events(client: httpx.AsyncClient, path: str, **headers: str) -> AsyncIterator[AsyncIterator[Any]]:
    """The server-sent events of a path: kind, id and data of each."""
    async with client.stream("GET", path, headers=headers) as answer:
        assert answer.status_code == 200, await answer.aread()

        async def parsed() -> AsyncIterator[Any]:
            said: dict[str, str] = {}
            async for line in answer.aiter_lines():
                if line:
                    name, _, value = line.partition(": ")
                    said[name] = value
                elif "data" in said:
                    yield said["event"], int(said["id"]), json.loads(said["data"])
                    said = {}

        yield parsed()


class TestReadAndWrite:
    async def test_what_one_service_puts_another_of_its_application_gets(self, services: Services) -> None:
        """Bytes as they are, with the revision as ETag."""
        put = await services.orders.put("/v1/kv/stock/book", content=b"\x00\xff7")
        got = await services.payments.get("/v1/kv/stock/book")

        assert (put.status_code, got.status_code, got.content) == (200, 200, b"\x00\xff7")
        assert got.headers["etag"] == put.headers["etag"] == f'"{put.json()["revision"]}"'

    async def test_another_application_has_keys_of_its_own(self, services: Services) -> None:
        """The token says whose they are."""
        await services.orders.put("/v1/kv/a", content=b"shop's")

        assert (await services.stranger.get("/v1/kv/a")).status_code == 404
        assert (await services.stranger.get("/v1/kv/a?namespace=shop")).status_code == 403

    async def test_without_a_token_nothing_is_answered(self, services: Services) -> None:
        """Not even whether a path exists."""
        for path in ("/v1/kv/a", "/nowhere"):
            assert (await services.nobody.get(path)).status_code == 401
        forged = {"authorization": "Bearer u1.c2hvcC9hL2I.AAAA"}
        assert (await services.nobody.get("/v1/kv/a", headers=forged)).status_code == 401

    async def test_services_are_not_offered_what_operators_do(self, services: Services) -> None:
        """State, time and transactions are all they have."""
        assert (await services.orders.get("/v1/applications")).status_code == 404

    async def test_an_operator_says_whose_state_is_meant(self, services: Services) -> None:
        """Through the node's own socket."""
        await services.orders.put("/v1/kv/a", content=b"1")

        assert (await services.operator.get("/v1/kv/a?namespace=shop")).content == b"1"
        assert (await services.operator.get("/v1/kv/a")).json()["code"] == "invalid"

    async def test_a_write_can_ask_that_nothing_changed(self, services: Services) -> None:
        """If-Match and If-None-Match, 412 otherwise, and nothing is written then."""
        first = await services.orders.put("/v1/kv/a", content=b"1", headers={"if-none-match": "*"})
        again = await services.orders.put("/v1/kv/a", content=b"2", headers={"if-none-match": "*"})
        etag = first.headers["etag"]
        changed = await services.orders.put("/v1/kv/a", content=b"3", headers={"if-match": etag})
        late = await services.orders.delete("/v1/kv/a", headers={"if-match": etag})

        assert [answer.status_code for answer in (first, again, changed, late)] == [200, 412, 200, 412]
        assert late.json()["code"] == "precondition-failed"
        assert (await services.orders.get("/v1/kv/a")).content == b"3"

    async def test_a_repeat_with_the_same_idempotency_key_has_one_effect(self, services: Services) -> None:
        """Else a client whose answer was lost could not know."""
        headers = {"idempotency-key": "order-1"}
        first = await services.orders.put("/v1/kv/a", content=b"1", headers=headers)
        await services.orders.put("/v1/kv/a", content=b"2")
        repeat = await services.orders.put("/v1/kv/a", content=b"1", headers=headers)
        other = await services.orders.put("/v1/kv/a", content=b"other", headers=headers)

        assert repeat.json() == first.json()
        assert (other.status_code, other.json()["code"]) == (422, "request-reused")
        assert (await services.orders.get("/v1/kv/a")).content == b"2"

    async def test_a_conditional_get_is_spared_the_value(self, services: Services) -> None:
        """304 as long as it is as it was."""
        put = await services.orders.put("/v1/kv/a", content=b"1")
        got = await services.orders.get("/v1/kv/a", headers={"if-none-match": put.headers["etag"]})

        assert (got.status_code, got.content) == (304, b"")

    async def test_an_old_revision_is_read_and_history_is_told(self, services: Services) -> None:
        """As long as they are kept."""
        first = await services.orders.put("/v1/kv/a", content=b"1")
        await services.orders.put("/v1/kv/a", content=b"2")
        old = await services.orders.get(f"/v1/kv/a?revision={first.json()['revision']}")
        history = (await services.orders.get("/v1/kv:history?key=a")).json()["entries"]

        assert old.content == b"1"
        assert [entry["value"] for entry in history] == [b64(b"2"), b64(b"1")]

    async def test_a_scan_goes_by_key_page_by_page(self, services: Services) -> None:
        """At one revision."""
        for key in ("b", "a/2", "a/1", "c"):
            await services.orders.put(f"/v1/kv/{key}", content=key.encode())
        first = (await services.orders.get("/v1/kv?limit=2")).json()
        await services.orders.delete("/v1/kv/c")
        rest = (
            await services.orders.get(
                f"/v1/kv?after={first['entries'][-1]['key']}&revision={first['revision']}"
            )
        ).json()
        below = (await services.orders.get("/v1/kv?prefix=a/")).json()

        keys = [entry["key"] for entry in first["entries"] + rest["entries"]]
        assert (keys, first["more"], rest["more"]) == (["a/1", "a/2", "b", "c"], True, False)
        assert [entry["key"] for entry in below["entries"]] == ["a/1", "a/2"]


class TestConsistency:
    async def test_a_token_passed_on_makes_another_service_see_what_this_one_wrote(
        self, services: Services
    ) -> None:
        """Read your writes, across services, though the other has an older answer at hand."""
        await services.orders.put("/v1/kv/a", content=b"old")
        session = "/v1/kv/a?consistency=eventual"
        await services.payments.get(session)
        token = (await services.orders.put("/v1/kv/a", content=b"new")).headers["consistency-token"]
        stale = await services.payments.get(session)
        got = await services.payments.get(
            "/v1/kv/a?consistency=session", headers={"consistency-token": token}
        )

        assert (stale.content, got.content) == (b"old", b"new")

    async def test_a_token_of_another_application_is_refused(self, services: Services) -> None:
        """It says nothing about this one's state."""
        token = (await services.stranger.put("/v1/kv/a", content=b"1")).headers["consistency-token"]
        got = await services.orders.get("/v1/kv/a?consistency=session", headers={"consistency-token": token})

        assert (got.status_code, got.json()["code"]) == (422, "invalid")
        assert "not of namespace 'shop'" in got.json()["detail"]

    @pytest.mark.parametrize(
        ("path", "said"),
        [
            ("/v1/kv/a?consistency=bounded", "needs it"),
            ("/v1/kv/a?consistency=strong", "linearizable"),
            ("/v1/kv/a?consistency=bounded&max_staleness_ms=-1", "greater than or equal to 0"),
            ("/v1/kv/" + "k" * 600, "512"),
            ("/v1/kv/a%00b", "control characters"),
            ("/v1/kv?limit=0", "greater than or equal to 1"),
        ],
    )
    async def test_what_makes_no_sense_is_refused_with_what_would_be_right(
        self, services: Services, path: str, said: str
    ) -> None:
        """422, and nothing happens."""
        got = await services.orders.get(path)

        assert (got.status_code, said in got.json()["detail"]) == (422, True), got.json()


class TestTransactions:
    async def test_several_keys_change_at_one_revision_or_not_at_all(self, services: Services) -> None:
        """Compared first; the other list is done when a compare fails."""
        await services.orders.put("/v1/kv/a", content=b"1")
        body = {
            "compare": [{"key": "a", "value": b64(b"1")}, {"key": "b", "created": 0}],
            "success": [{"put": "a", "value": b64(b"2")}, {"put": "b", "value": b64(b"2")}],
            "failure": [{"delete": "a"}],
        }
        done = (await services.orders.post("/v1/kv:txn", json=body)).json()
        failed = (await services.orders.post("/v1/kv:txn", json=body)).json()

        assert (done["succeeded"], failed["succeeded"]) == (True, False)
        assert (await services.orders.get("/v1/kv/a")).status_code == 404
        assert (await services.orders.get("/v1/kv/b")).headers["etag"] == f'"{done["revision"]}"'

    async def test_a_repeat_with_the_same_request_id_has_one_effect(self, services: Services) -> None:
        """And gets the first answer."""
        body = {"success": [{"put": "a", "value": b64(b"1")}], "request_id": "r-1"}
        first = (await services.orders.post("/v1/kv:txn", json=body)).json()
        await services.orders.delete("/v1/kv/a")

        assert (await services.orders.post("/v1/kv:txn", json=body)).json() == first
        assert (await services.orders.get("/v1/kv/a")).status_code == 404

    @pytest.mark.parametrize(
        "body",
        [
            {"success": [{"put": "a", "value": "no base64"}]},
            {"success": [{"put": "a", "delete": "b"}]},
            {"success": [{"delete": "a", "value": b64(b"1")}]},
            {"success": [{"delete": "a", "ttl_ms": 1000}]},
            {"success": [{}]},
            {"compare": [{"key": "a"}]},
            {"compare": [{"key": "a", "created": 0, "modified": 0}]},
            {"success": [{"put": f"k{i}"} for i in range(129)]},
            {"succes": []},
        ],
    )
    async def test_one_that_makes_no_sense_changes_nothing(
        self, services: Services, body: dict[str, Any]
    ) -> None:
        """422."""
        assert (await services.orders.post("/v1/kv:txn", json=body)).status_code == 422
        assert (await services.orders.get("/v1/kv")).json()["entries"] == []


class TestWatch:
    async def test_a_watch_goes_on_where_the_last_one_ended_without_gap_or_repeat(
        self, services: Services
    ) -> None:
        """By the id of the last event."""
        await services.orders.put("/v1/kv/a", content=b"1")
        async with events(services.payments, "/v1/watch") as seen:
            kind, last, data = await anext(seen)
        await services.orders.put("/v1/kv/a", content=b"2")
        await services.orders.delete("/v1/kv/a")
        async with events(services.payments, "/v1/watch", **{"last-event-id": str(last)}) as seen:
            rest = [await anext(seen), await anext(seen)]

        assert (kind, [change["value"] for change in data["changes"]]) == ("resync", [b64(b"1")])
        assert [(kind, data["changes"][0]["kind"]) for kind, _, data in rest] == [
            ("changes", "put"),
            ("changes", "delete"),
        ]
        assert rest[0][1] == last + 1

    async def test_an_id_that_is_none_is_passed_over(self, services: Services) -> None:
        """As if no event had been seen: all there is comes first."""
        await services.orders.put("/v1/kv/a", content=b"1")
        async with events(services.orders, "/v1/watch", **{"last-event-id": "9" * 5000}) as seen:
            kind, _, data = await anext(seen)

        assert (kind, len(data["changes"])) == ("resync", 1)

    async def test_after_compaction_all_there_is_comes_first(self, services: Services) -> None:
        """What is lost is never passed over in silence."""
        first = (await services.orders.put("/v1/kv/a", content=b"1")).json()["revision"]
        last = (await services.orders.put("/v1/kv/b", content=b"2")).json()["revision"]
        await services.served.store.compact(last)
        async with events(services.orders, f"/v1/watch?after={first - 1}") as seen:
            kind, id, data = await anext(seen)

        assert (kind, id, len(data["changes"])) == ("resync", last, 2)

    async def test_it_shows_only_the_prefix_and_only_the_own_application(self, services: Services) -> None:
        """Others' changes move the revision and nothing else."""
        last = (await services.orders.put("/v1/kv/before", content=b"1")).json()["revision"]
        async with events(services.orders, f"/v1/watch?prefix=a/&after={last}") as seen:
            await services.stranger.put("/v1/kv/a/1", content=b"1")
            await services.orders.put("/v1/kv/b", content=b"1")
            await services.orders.put("/v1/kv/a/1", content=b"mine")
            async with asyncio.timeout(10):
                _, _, data = await anext(seen)

        assert [change["value"] for change in data["changes"]] == [b64(b"mine")]
