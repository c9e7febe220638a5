"""The API over a real socket: what it answers, refuses and streams."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import stat
from typing import Any

import jsonschema
import pytest

from tests.api.conftest import Served
from tests.api.specs import application, body, service
from unisono.client import NotRunning, Refused
from unisono.control.happenings import happening
from unisono.control.records import encode, event_key
from unisono.store.base import Put


class _Raw(http.client.HTTPConnection):
    """HTTP over the test's socket, for requests that the client would never send."""

    def __init__(self, served: Served) -> None:
        super().__init__("localhost", timeout=10.0)
        self._path = str(served.socket_path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(10.0)
        self.sock.connect(self._path)


async def raw(
    served: Served, method: str, path: str, content: Any = None, headers: dict[str, str] | None = None
) -> tuple[int, str, dict[str, Any]]:
    """Status, content type and JSON of an answer."""

    def ask() -> tuple[int, str, dict[str, Any]]:
        connection = _Raw(served)
        try:
            connection.request(method, path, content, headers or {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.headers["Content-Type"], json.loads(answer.read())
        finally:
            connection.close()

    return await asyncio.to_thread(ask)


@pytest.mark.parametrize(
    ("method", "path", "content", "status"),
    [
        ("GET", "/nowhere", None, 404),
        ("GET", "/v1/applications/shop", None, 404),
        ("POST", "/v1/node", None, 405),
        ("GET", "/v1/events?after=-1", None, 422),
        ("PUT", "/v1/applications/shop", "{", 422),
        ("PUT", "/v1/applications/shop", "[]", 422),
        ("POST", "/v1/applications/shop/services/orders/scale", '{"replicas": 1, "colour": 1}', 422),
        ("POST", "/v1/applications/shop/services/orders/scale", '{"replicas": -1}', 422),
        ("POST", "/v1/applications/shop/services/orders/scale", '{"replicas": true}', 422),
        ("POST", "/v1/applications/shop/services/orders/scale", '{"replicas": "3"}', 422),
        ("DELETE", "/v1/applications/shop", None, 404),
        ("POST", "/v1/applications/shop/services/orders/rollout/undo", None, 404),
        ("GET", "/v1/applications/shop/logs?tail=many", None, 422),
        ("GET", "/v1/applications/shop/logs?tail=100001", None, 422),
        ("GET", "/v1/applications/shop/logs?since=1e30", None, 422),
        ("GET", "/v1/applications/shop/logs?since=nan", None, 422),
        ("GET", "/v1/applications/shop/logs?instance=../../web/web-1", None, 422),
        ("GET", "/v1/applications/shop/logs?instance=*", None, 422),
    ],
)
async def test_error_is_problem(
    served: Served, method: str, path: str, content: str | None, status: int
) -> None:
    """Every error is a problem document that says its status and what was found."""
    found = await raw(served, method, path, content)

    assert found[:2] == (status, "application/problem+json")
    assert found[2]["status"] == status
    assert found[2]["detail"]


@pytest.mark.parametrize(
    "content",
    [
        {"name": "shop", "services": {"web": {"name": "web", "command": [1] * 100_000}}},
        {"name": 1, "x" * 1_000_000: 1},
        {"name": ["shop"], "services": {}, "source": "x" * 1_000_000, "version": "x" * 1_000_000},
    ],
    ids=["faults", "a name", "a value"],
)
async def test_an_error_is_short_however_much_is_wrong(served: Served, content: dict[str, Any]) -> None:
    """The answer names the first faults, and the beginning of what was found."""
    status, _, problem = await raw(served, "PUT", "/v1/applications/shop", json.dumps(content))

    assert status == 422
    assert len(json.dumps(problem)) < 50_000


async def test_an_id_of_an_event_that_is_none_is_passed_over(served: Served) -> None:
    """A header that browsers send by themselves is no reason to refuse."""
    answers = [await asyncio.to_thread(events_after, served, last) for last in ("9" * 5000, "many", "\u00b2")]

    assert [200] * 3 == answers


def events_after(served: Served, last: str) -> int:
    """The status of an answer to a stream that is taken up."""
    connection = _Raw(served)
    try:
        connection.request("GET", "/v1/events", headers={"Last-Event-ID": last})
        return connection.getresponse().status
    finally:
        connection.close()


async def test_form_is_not_taken_for_json(served: Served) -> None:
    """A body of another type is refused, as a page of a browser could send it without being asked."""
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    status, _, problem = await raw(served, "POST", "/v1/applications/shop/restart", "{}", form)

    assert (status, "application/json" in problem["detail"]) == (415, True)


async def test_unknown_parameter_is_named(served: Served) -> None:
    """A parameter of the query that is unknown, or there twice, is refused by name."""
    found = [
        await raw(served, "GET", path) for path in ("/v1/events?colour=red", "/v1/events?after=1&after=2")
    ]

    assert [status for status, _, _ in found] == [422, 422]
    assert ["colour" in found[0][2]["detail"], "after" in found[1][2]["detail"]] == [True, True]


async def test_wrong_method_names_those_there_are(served: Served) -> None:
    """Allow lists all methods of a path, those of each operation."""

    def ask() -> set[str]:
        connection = _Raw(served)
        try:
            connection.request("PATCH", "/v1/applications/shop")
            return set(connection.getresponse().headers["Allow"].split(", "))
        finally:
            connection.close()

    assert await asyncio.to_thread(ask) == {"GET", "HEAD", "PUT", "DELETE"}


@pytest.mark.parametrize("chunked", [False, True])
async def test_body_limit(served: Served, chunked: bool) -> None:
    """A body over the limit is refused, whether its size is declared or not."""
    content: Any = (b" " * 1_000_000 for _ in range(6)) if chunked else b" " * 6_000_000
    status, kind, _ = await raw(served, "PUT", "/v1/applications/shop", content)

    assert (status, kind) == (413, "application/problem+json")


async def test_unknown_field_is_named(served: Served) -> None:
    """A field that the schema does not know is refused by name, however deep it is."""
    wrong = body(application())
    wrong["services"]["orders"]["healthcheck"]["colour"] = "red"

    _, _, problem = await raw(served, "PUT", "/v1/applications/shop", json.dumps(wrong))

    assert problem["errors"] == [{"field": "services.orders.healthcheck.colour", "detail": "unknown field"}]


async def test_refused_apply_changes_nothing(served: Served) -> None:
    """An application that is refused leaves the store as it was."""
    before = (await served.store.scan("")).revision
    with pytest.raises(Refused):
        await asyncio.to_thread(
            served.client.apply, "shop", body(application(service(command=("no-such-command",))))
        )

    assert (await served.store.scan("")).revision == before


async def test_dry_run_changes_nothing(served: Served) -> None:
    """A plan says what would change and writes nothing."""
    before = (await served.store.scan("")).revision
    plan = await asyncio.to_thread(served.client.plan, "shop", body(application()))

    assert [change["kind"] for change in plan["changes"]] == ["create"]
    assert (plan["created"], plan["applied"]) == (True, False)
    assert (await served.store.scan("")).revision == before


async def test_apply_is_seen_at_once(served: Served) -> None:
    """What was acknowledged is in the next answer."""
    for replicas in range(1, 6):
        spec = application(service(replicas=replicas))
        await asyncio.to_thread(served.client.apply, "shop", body(spec))
        view = await asyncio.to_thread(served.client.application, "shop")

        assert view["services"][0]["replicas"] == replicas


async def test_names_must_agree(served: Served) -> None:
    """The application named by the path must be the one in the body."""
    with pytest.raises(Refused, match="the same") as refused:
        await asyncio.to_thread(served.client.apply, "other", body(application()))

    assert refused.value.status == 422


async def test_not_found_names_the_nearest(served: Served) -> None:
    """A name that was mistyped gets the hint of the right one."""
    await asyncio.to_thread(served.client.apply, "shop", body(application()))
    with pytest.raises(Refused, match="did you mean orders") as refused:
        await asyncio.to_thread(served.client.service, "shop", "order")

    assert refused.value.status == 404


async def test_watch_shows_each_change_and_the_end(served: Served) -> None:
    """A watch begins with the present, shows changes, and ends when the node stops."""
    await asyncio.to_thread(served.client.apply, "shop", body(application()))

    seen = []

    def follow() -> None:
        for view in served.client.watch("shop"):
            seen.append(view["services"][0]["replicas"])
            if len(seen) == 1:
                served.client.scale("shop", "orders", 3)
            else:
                served.client.stop_node()

    with pytest.raises(NotRunning):
        await asyncio.to_thread(follow)

    assert seen == [1, 3]


async def test_events_resume(served: Served) -> None:
    """Events after an id are those that came later, without gap or repeat."""
    for number in range(5):
        event = happening("node-started", at=float(number), message=str(number))
        await served.store.transact(success=[Put(key=event_key(event.at, "x"), value=encode(event))])
    everything = await asyncio.to_thread(lambda: list(served.client.events()))
    later = await asyncio.to_thread(lambda: list(served.client.events(after=everything[2]["id"])))

    assert [event["message"] for event in everything] == ["0", "1", "2", "3", "4"]
    assert later == everything[3:]


async def test_events_of_one_transaction_resume_together(served: Served) -> None:
    """Only the last event of a transaction bears its id, so that a cut in between loses none."""
    puts = [
        Put(key=event_key(1.0, name), value=encode(happening("node-started", at=1.0, message=name)))
        for name in ("a", "b")
    ]
    await served.store.transact(success=puts)

    def ask() -> str:
        connection = _Raw(served)
        try:
            connection.request("GET", "/v1/events")
            return connection.getresponse().read().decode()
        finally:
            connection.close()

    text = await asyncio.to_thread(ask)

    assert [line for line in text.splitlines() if line.startswith("id:")] == ["id: 1"]
    assert text.index('"message":"b"') > text.index("id: 1") > text.index('"message":"a"')


async def test_events_follow(served: Served) -> None:
    """Followed events come as they happen."""
    await asyncio.to_thread(served.client.apply, "shop", body(application()))

    def follow() -> list[str]:
        kinds = []
        for event in served.client.events(follow=True, application="shop"):
            kinds.append(event["kind"])
            if len(kinds) == 1:
                served.client.scale("shop", "orders", 2)
            else:
                break
        return kinds

    assert await asyncio.to_thread(follow) == ["application-applied", "service-scaled"]


async def test_openapi_is_valid(served: Served) -> None:
    """The document is OpenAPI 3.1, and every operation says that errors are problems."""
    _, _, document = await raw(served, "GET", "/openapi.json")

    assert document["openapi"].startswith("3.1")
    for path in document["paths"].values():
        for operation in path.values():
            assert "application/problem+json" in operation["responses"]["4XX"]["content"]
    for schema in document["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)


async def test_no_page_from_elsewhere(served: Served) -> None:
    """The pages that would load scripts from elsewhere are not served."""
    statuses = [(await raw(served, "GET", path))[0] for path in ("/docs", "/redoc")]

    assert statuses == [404, 404]


async def test_socket_is_private(served: Served) -> None:
    """Only the owner can connect to the API's socket."""
    assert stat.S_IMODE(served.socket_path.stat().st_mode) == 0o600
