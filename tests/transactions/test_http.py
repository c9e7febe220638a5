"""Transactions over the API: what services and operators may ask, and what is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Any

import httpx
import pytest

from tests.api.conftest import Served, served, store_address
from tests.transactions.conftest import Services, coordinating
from tests.transactions.participants import Asked, Party, Says, serving
from unisono.api.app import create_app, create_services_app
from unisono.api.listeners import unix_listener
from unisono.api.server import Server
from unisono.node.identity import Identities, Identity
from unisono.store.base import Store
from unisono.transactions import records

__all__ = ["served", "store_address"]  # fixtures of the API's tests

ONE = "/v1/transactions"


@dataclass(frozen=True)
class Askers:
    """An operator, a service of the application shop, and one of another; ``party`` is what they call."""

    operator: httpx.AsyncClient
    shop: httpx.AsyncClient
    blog: httpx.AsyncClient
    party: Party
    store: Store

    def saga(self, *ids: str, **more: Any) -> dict[str, Any]:
        branches = [{"id": id, "url": f"http://party/{id}"} for id in ids]
        return {"mode": "saga", "branches": branches, "wait_ms": 20_000, **more}


@pytest.fixture
async def askers(served: Served) -> AsyncIterator[Askers]:
    services = Services()
    identities = Identities(b"secret of this test")
    async with (
        serving() as party,
        coordinating(served.store, services) as coordinator,
        AsyncExitStack() as stack,
    ):
        services.ports["party"] = int(party.url.rpartition(":")[2])
        context = replace(served.context, coordinator=coordinator)
        clients = []
        for name, app, application in (
            ("operator", create_app(context), None),
            ("services", create_services_app(context, identities), "shop"),
            ("others", create_services_app(context, identities), "blog"),
        ):
            path = served.socket_path.with_name(f"{name}.sock")
            server = Server(app, unix_listener(path))
            running = asyncio.create_task(server.run_until_ended())
            await server.listening.wait()
            stack.push_async_callback(asyncio.wait, [running])
            stack.callback(server.end)
            headers = {}
            if application is not None:
                token = identities.make(Identity(application, "orders", "orders-1"))
                headers["authorization"] = f"Bearer {token}"
            client = httpx.AsyncClient(
                transport=httpx.AsyncHTTPTransport(uds=str(path)),
                base_url="http://node",
                headers=headers,
                timeout=30,
            )
            clients.append(await stack.enter_async_context(client))
        yield Askers(clients[0], clients[1], clients[2], party, served.store)
        await context.states.close()


async def test_a_service_runs_a_transaction_of_its_application(askers: Askers) -> None:
    begun = await askers.shop.post(ONE, json=askers.saga("a", "b", gid="g"))
    again = await askers.shop.post(ONE, json=askers.saga("a", "b", gid="g"))

    assert (201, "committed", "shop") == (
        begun.status_code,
        begun.json()["status"],
        begun.json()["namespace"],
    )
    assert (200, "committed") == (again.status_code, again.json()["status"])
    assert 2 == len(askers.party.asked)


async def test_a_service_sees_no_other_applications_transactions(askers: Askers) -> None:
    await askers.shop.post(ONE, json=askers.saga("a", gid="g"))

    assert 404 == (await askers.blog.get(f"{ONE}/g")).status_code
    assert [] == (await askers.blog.get(ONE)).json()["transactions"]
    assert 403 == (await askers.blog.get(f"{ONE}?namespace=shop")).status_code
    assert 1 == len((await askers.operator.get(f"{ONE}?namespace=shop")).json()["transactions"])


async def test_enrol_commit_and_look(askers: Askers) -> None:
    await askers.shop.post(ONE, json={"mode": "tcc", "gid": "g"})
    branch = await askers.shop.post(f"{ONE}/g/branches", json={"id": "a", "url": "http://party/a"})
    decided = await askers.shop.post(f"{ONE}/g:commit")
    late = await askers.shop.post(f"{ONE}/g/branches", json={"id": "b", "url": "http://party/b"})
    other = await askers.shop.post(f"{ONE}/g:abort")
    seen = await askers.shop.get(f"{ONE}/g?wait_ms=1000")

    assert (201, "ready") == (branch.status_code, branch.json()["state"])
    assert (200, "committed") == (decided.status_code, decided.json()["status"])
    assert (412, "not-active") == (late.status_code, late.json()["code"])
    assert (409, "committed") == (other.status_code, other.json()["code"])
    assert ["try", "confirm"] == [call["op"] for call in seen.json()["timeline"]]


async def test_a_branch_that_says_no_is_told_with_its_problem(askers: Askers) -> None:
    async def script(asked: Asked) -> Says:
        if asked.op != "try":
            return Says()
        return Says(409, {"content-type": "application/problem+json"}, b'{"code": "insufficient"}')

    askers.party.script = script
    await askers.shop.post(ONE, json={"mode": "tcc", "gid": "g"})
    refused = await askers.shop.post(f"{ONE}/g/branches", json={"id": "a", "url": "http://party/a"})
    decided = await askers.shop.post(f"{ONE}/g:commit")

    assert (409, "branch-refused") == (refused.status_code, refused.json()["code"])
    assert {"code": "insufficient"} == refused.json()["problem"]
    assert (409, "aborted") == (decided.status_code, decided.json()["code"])


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"mode": "magic"}, "mode"),
        ({"gid": "no spaces"}, "gid"),
        ({"gid": "x" * 101}, "gid"),
        ({"timeout_ms": 0}, "timeout_ms"),
        ({"timeout_ms": 1.5}, "timeout_ms"),
        ({"wait_ms": 60_001}, "wait_ms"),
        ({"colour": "red"}, "colour"),
        ({"query_prepared": "http://party/ask"}, "query_prepared"),
        ({"branches": [{"id": "a", "url": "ftp://party/a"}]}, "branches[0].url"),
        ({"branches": [{"id": "a", "url": "http://party/a?x=1"}]}, "branches[0].url"),
        (
            {"branches": [{"id": "a", "url": "http://party/a", "payload": "x" * 70_000}]},
            "branches[0].payload",
        ),
        ({"branches": [{"id": "a", "url": "http://party/a"}] * 2}, "branches"),
        ({"branches": [{"id": f"b{n}", "url": "http://party/a"} for n in range(101)]}, "branches"),
        ({"branches": [{"id": "a", "url": "http://party/a", "after": ["z"]}]}, "branches[0].after"),
    ],
)
async def test_bad_input_is_named_and_changes_nothing(
    askers: Askers, change: dict[str, Any], field: str
) -> None:
    """Trap 18."""
    refused = await askers.shop.post(ONE, json={**askers.saga("a"), **change})

    assert 422 == refused.status_code
    assert field == refused.json()["errors"][0]["field"]
    assert [] == (await askers.shop.get(ONE)).json()["transactions"]
    assert [] == askers.party.asked


async def test_a_decision_is_read_however_its_body_is_framed(askers: Askers) -> None:
    """In chunks, too: what is wrong with it is not passed over."""

    async def chunks() -> AsyncIterator[bytes]:
        yield b'{"colour": "red"}'

    await askers.shop.post(ONE, json={"mode": "tcc", "gid": "g"})
    json = {"content-type": "application/json"}
    refused = await askers.shop.post(f"{ONE}/g:commit", content=chunks(), headers=json)

    assert (422, "colour") == (refused.status_code, refused.json()["errors"][0]["field"])


async def test_a_circle_is_named_branch_by_branch(askers: Askers) -> None:
    branches: list[dict[str, Any]] = [
        {"id": id, "url": "http://party/x", "after": [after]}
        for id, after in (("a", "c"), ("b", "a"), ("c", "b"))
    ]
    branches[0]["after"].insert(0, "free")  # which is in no circle
    branches.append({"id": "free", "url": "http://party/x"})
    refused = await askers.shop.post(ONE, json={"mode": "saga", "branches": branches})

    assert 422 == refused.status_code
    assert "a after c after b after a" in refused.json()["detail"]


async def test_an_address_outside_the_application_is_refused(askers: Askers) -> None:
    """Trap 18: a coordinator is no way into the network."""
    branches = [{"id": "a", "url": "http://169.254.169.254/latest"}]
    refused = await askers.shop.post(ONE, json={"mode": "saga", "branches": branches})

    assert (403, "url-not-allowed") == (refused.status_code, refused.json()["code"])


@pytest.mark.parametrize("payload", ["NaN", "[-Infinity]", '{"n": 1e400}'])
async def test_what_is_no_json_number_is_refused(askers: Askers, payload: str) -> None:
    """Participants in most languages could not read it, and would be asked until the deadline."""
    branch = f'{{"id": "a", "url": "http://party/a", "payload": {payload}}}'
    body = f'{{"mode": "saga", "branches": [{branch}]}}'
    refused = await askers.shop.post(ONE, content=body, headers={"content-type": "application/json"})

    assert (422, "invalid") == (refused.status_code, refused.json()["code"])
    assert not askers.party.asked


async def test_what_was_taken_on_can_be_read_again(askers: Askers) -> None:
    """As deep as a payload may be, wherever it was said; a record holds it deeper than a request does."""

    def nested(depth: int) -> Any:
        payload: Any = 1
        for number in range(depth):
            payload = [payload] if number % 2 else {"n": payload}
        return payload

    url = "http://party/a"
    await askers.shop.post(ONE, json={"mode": "tcc", "gid": "g"})
    branch = {"id": "a", "url": url, "payload": nested(100)}
    taken = await askers.shop.post(f"{ONE}/g/branches", json=branch)
    refused = await askers.shop.post(f"{ONE}/g/branches", json={**branch, "id": "b", "payload": nested(101)})
    begun = await askers.shop.post(
        ONE, json={"mode": "saga", "branches": [{**branch, "payload": nested(101)}]}
    )
    written = await askers.store.get(f"{records.ROOT}shop/g")

    assert (201, 422, 422) == (taken.status_code, refused.status_code, begun.status_code)
    assert "deeper than 100" in refused.json()["detail"]
    assert written is not None
    assert nested(100) == records.decode(f"{records.ROOT}shop/g", written.value).specs[0].payload


@pytest.mark.parametrize("ask", [("GET", "/g"), ("POST", "/g:retry"), ("POST", "/g:commit"), ("GET", "")])
async def test_a_namespace_that_is_none_is_named(askers: Askers, ask: tuple[str, str]) -> None:
    method, path = ask
    refused = await askers.operator.request(method, f"{ONE}{path}?namespace=../shop")

    assert (422, "invalid") == (refused.status_code, refused.json()["code"])


@pytest.mark.parametrize("gid", [".", ".."])
async def test_a_gid_that_no_address_can_name_is_refused(askers: Askers, gid: str) -> None:
    """Clients and proxies resolve them as parts of a path, so it could never be asked for."""
    refused = await askers.shop.post(ONE, json=askers.saga("a", gid=gid))

    assert (422, "invalid") == (refused.status_code, refused.json()["code"])


async def test_only_an_operator_resolves(askers: Askers) -> None:
    word = {"branches": ["a"], "outcome": "finished", "reason": "by hand", "operator": "ada"}
    await askers.shop.post(ONE, json={"mode": "tcc", "gid": "g"})

    by_service = await askers.shop.post(f"{ONE}/g:resolve", json=word)
    by_operator = await askers.operator.post(f"{ONE}/g:resolve?namespace=shop", json=word)

    assert 403 == by_service.status_code
    assert (409, "not-in-doubt") == (by_operator.status_code, by_operator.json()["code"])
