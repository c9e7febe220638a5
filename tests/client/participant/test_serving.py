"""Participants behind real servers, ASGI and WSGI, tried by the conformance kit; and calls that are none."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, LiteralString
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import httpx
import psycopg
import psycopg_pool
import pytest
import uvicorn
from fastapi import FastAPI
from flask import Flask
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from tests.client.participant.worlds import Caller
from tests.databases import Postgres, wait_for
from tests.ports import free_port
from unisono.client import participant
from unisono.client.conformance import verify


class Account:
    """TCC and saga on one number in SQLite."""

    def try_(self, tx: Any, payload: Any) -> int:
        return int(tx.execute("UPDATE account SET held = held + 1 RETURNING held").fetchone()[0])

    def confirm(self, tx: Any, payload: Any) -> None:
        tx.execute("UPDATE account SET held = held - 1, balance = balance - 1")

    def cancel(self, tx: Any, payload: Any) -> None:
        tx.execute("UPDATE account SET held = held - 1")

    def action(self, tx: Any, payload: Any) -> None:
        tx.execute("UPDATE account SET balance = balance + 1")

    def compensate(self, tx: Any, payload: Any) -> None:
        tx.execute("UPDATE account SET balance = balance - 1")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A SQLite file with an account and a fence."""
    file = tmp_path / "bank.db"
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE account (balance int, held int)")
        connection.execute("INSERT INTO account VALUES (1000, 0)")
    participant.create_fence(file)
    return file


@pytest.mark.parametrize("mode", ["saga", "tcc"])
@pytest.mark.parametrize("framework", ["fastapi", "starlette", "flask"])
def test_participants_on_sqlite_pass_the_conformance_kit(path: Path, mode: str, framework: str) -> None:
    """Mounted as the guide says, behind a real server."""
    branch = getattr(participant, mode)(path)(Account)

    with serving(framework, branch, lambda: read(path)) as url:
        findings = list(verify(f"{url}/branch", mode, state_url=f"{url}/state"))  # type: ignore[arg-type]

    assert [] == [finding for finding in findings if not finding.ok]


@pytest.mark.parametrize(
    "code", ["INSERT INTO xa_account VALUES (1)", "UPDATE xa_account SET n = n + 1 WHERE n >= 0"]
)
def test_xa_participants_pass_the_conformance_kit(postgres: Postgres, code: LiteralString) -> None:
    """With what is prepared counted among the effects, and also where two branches want the same row."""
    postgres.execute("DROP TABLE IF EXISTS xa_account")
    postgres.execute("CREATE TABLE xa_account AS SELECT 0 AS n")
    with psycopg_pool.ConnectionPool(postgres.url(), min_size=1, max_size=12) as pool:
        participant.create_fence(pool)

        @participant.xa(pool, prefix="kit")
        def branch(tx: psycopg.Connection[Any], payload: Any) -> None:
            tx.execute(code)

        def state() -> Any:
            return postgres.execute(
                "SELECT (SELECT sum(n) FROM xa_account),"
                " (SELECT count(*) FROM pg_prepared_xacts WHERE gid LIKE 'kit:%')"
            )[0]

        with serving("starlette", branch, state) as url:
            findings = list(verify(f"{url}/branch", "xa", state_url=f"{url}/state"))

    assert [] == [finding for finding in findings if not finding.ok]


@pytest.mark.parametrize(
    ("changed", "status", "detail"),
    [
        ({"Transaction-Id": "a b"}, 400, "Transaction-Id is 1 to 100 letters"),
        ({"Transaction-Id": "x" * 101}, 400, "Transaction-Id is 1 to 100 letters"),
        ({"Transaction-Branch": ""}, 400, "Transaction-Branch is 1 to 64 letters"),
        (
            {"Transaction-Op": "compensate"},
            400,
            "the path says action, the header Transaction-Op says compensate",
        ),
        ({"Transaction-Epoch": "-1"}, 400, "Transaction-Epoch is a whole number"),
        ({"Transaction-Epoch": str(2**63)}, 400, "Transaction-Epoch is a whole number"),
        ({"Deadline-Ms": "soon"}, 400, "Deadline-Ms is a whole number"),
        ({"Transaction-Began": "1.5"}, 400, "Transaction-Began is a whole number"),
        ({"unisono-clock": "123"}, 400, "unisono-clock is 16 lowercase hexadecimal digits"),
    ],
)
async def test_bad_headers_are_named_and_nothing_is_done(
    path: Path, changed: dict[str, str], status: int, detail: str
) -> None:
    """What was found and what would be right."""
    call = Caller(participant.saga(path)(Account))

    answer = await call("action", **changed)

    assert (status, True) == (answer.status_code, answer.json()["detail"].startswith(detail)), answer.text
    assert (1000, 0) == read(path)


async def test_what_is_no_call_is_told(path: Path) -> None:
    """Other methods, other operations, payloads that are too long or no JSON."""
    transport = httpx.ASGITransport(participant.saga(path)(Account))
    headers = {"Transaction-Id": "t", "Transaction-Branch": "b"}
    async with httpx.AsyncClient(transport=transport, base_url="http://p", headers=headers) as http:
        got = await http.get("/action")
        other = await http.post("/try")
        long = await http.post("/action", content=b'"' + b"x" * (1 << 20) + b'"')
        half = await http.post("/action", content=b'{"half": ')
        deep = await http.post("/action", content=b"[" * 100_000)

    assert [405, 404, 413, 400, 400] == [one.status_code for one in (got, other, long, half, deep)]
    assert "POST" == got.headers["allow"]
    assert "there are action, compensate" in other.json()["detail"]
    assert (1000, 0) == read(path)


def test_code_of_the_wrong_kind_is_refused_at_once(path: Path) -> None:
    """async def on a database without asyncio, missing methods, unknown databases: at the start."""

    class Wrong:
        async def action(self, tx: Any, payload: Any) -> None: ...

        async def compensate(self, tx: Any, payload: Any) -> None: ...

    with pytest.raises(TypeError, match=r"Wrong\.action must be def"):
        participant.saga(path)(Wrong)
    with pytest.raises(TypeError, match="tcc needs a method try_"):
        participant.tcc(path)(Wrong)
    with pytest.raises(TypeError, match="not int"):
        participant.saga(7)(Account)
    with pytest.raises(ValueError, match="prefix is 1 to 32"):
        participant.xa(path, prefix="a:b")


def read(path: Path) -> tuple[int, int]:
    """Balance and held."""
    with sqlite3.connect(path) as connection:
        balance, held = connection.execute("SELECT balance, held FROM account").fetchone()
        return balance, held


@contextmanager
def serving(framework: str, branch: Any, state: Any) -> Iterator[str]:
    """The participant at /branch and its state at /state, behind a server on a port."""
    port = free_port()
    if framework == "flask":
        flask = Flask("bank")
        flask.add_url_rule("/state", view_func=lambda: repr(state()))
        mounted = DispatcherMiddleware(flask.wsgi_app, {"/branch": branch.wsgi})
        flask.wsgi_app = mounted  # type: ignore[method-assign]
        server: Any = make_server("127.0.0.1", port, flask, server_class=_Threads, handler_class=_Quiet)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        stop = server.shutdown
    else:
        app = FastAPI() if framework == "fastapi" else Starlette(routes=[Mount("/branch", branch)])
        if isinstance(app, FastAPI):
            app.mount("/branch", branch)
        app.add_route("/state", lambda request: PlainTextResponse(repr(state())))
        config = uvicorn.Config(app, port=port, log_level="warning", lifespan="off")
        uvicorn_server = uvicorn.Server(config)
        thread = threading.Thread(target=uvicorn_server.run)

        def stop() -> None:
            uvicorn_server.should_exit = True

    thread.start()
    try:
        wait_for(lambda: _answers(port), "the server to answer", lambda: framework)
        yield f"http://127.0.0.1:{port}"
    finally:
        stop()
        thread.join()
        if framework == "flask":
            server.server_close()


def _answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/state").status_code == 200
    except httpx.HTTPError:
        return False


class _Threads(WSGIServer):
    """A WSGI server with a thread for each request."""

    def process_request(self, request: Any, client_address: Any) -> None:
        threading.Thread(target=self._serve, args=(request, client_address), daemon=True).start()

    def _serve(self, request: Any, client_address: Any) -> None:
        self.finish_request(request, client_address)
        self.shutdown_request(request)


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""
