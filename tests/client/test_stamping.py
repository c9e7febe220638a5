"""The process's clock along requests: middleware for ASGI and WSGI, and headers for one's own calls."""

from __future__ import annotations

import asyncio
import time

import flask
import pytest
from fastapi import FastAPI, Response, WebSocket
from fastapi.testclient import TestClient
from starlette.exceptions import HTTPException

from unisono.client.stamping import HEADER, Clock

AHEAD_MS = 300  # less than the drift that is allowed


@pytest.fixture
def clock() -> Clock:
    """A process's clock."""
    return Clock()


def stamp_in(ms: int) -> int:
    """A stamp so many milliseconds ahead of this machine's time."""
    return (time.time_ns() // 1_000_000 + ms) << 16


def text(stamp: int) -> dict[str, str]:
    return {HEADER: f"{stamp:016x}"}


def fastapi_of(clock: Clock) -> FastAPI:
    """An application that tells with which stamp it would call others."""
    app = FastAPI()

    @app.get("/")
    async def call() -> str:
        await asyncio.sleep(0)  # another task may run
        return clock.headers()[HEADER]

    @app.get("/own")
    async def own(response: Response) -> None:
        response.headers[HEADER] = "0000000000000001"

    @app.get("/missing")
    async def missing() -> None:
        raise HTTPException(404)

    @app.websocket("/talk")
    async def talk(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text(clock.headers()[HEADER])
        await socket.close()

    return app


def flask_of(clock: Clock) -> flask.Flask:
    """The same in Flask."""
    app = flask.Flask(__name__)
    app.add_url_rule("/", view_func=lambda: clock.headers()[HEADER])
    app.add_url_rule("/own", "own", lambda: ("", 200, text(1)))
    app.wsgi_app = clock.wsgi(app.wsgi_app)  # type: ignore[method-assign, assignment]
    return app


def test_an_asgi_application_carries_stamps_on(clock: Clock) -> None:
    """The request's stamp, that of a call made for it, that of the answer: each above the one before."""
    sent = stamp_in(AHEAD_MS)

    answer = TestClient(clock.asgi(fastapi_of(clock))).get("/", headers=text(sent))

    assert sent < int(answer.json(), 16) < int(answer.headers[HEADER], 16)


def test_a_wsgi_application_carries_stamps_on(clock: Clock) -> None:
    """As one of ASGI does."""
    sent = stamp_in(AHEAD_MS)

    answer = flask_of(clock).test_client().get("/", headers=text(sent))

    assert sent < int(answer.text, 16) < int(answer.headers[HEADER], 16)


def test_an_answer_bears_one_stamp_whatever_the_application_says(clock: Clock) -> None:
    """The clock's own."""
    told = [
        TestClient(clock.asgi(fastapi_of(clock))).get("/own").headers.get_list(HEADER),
        flask_of(clock).test_client().get("/own").headers.getlist(HEADER),
    ]

    assert [1, 1] == [len(stamps) for stamps in told]
    assert stamp_in(-60_000) < int(told[0][0], 16) < int(told[1][0], 16)


def test_an_error_is_stamped_too(clock: Clock) -> None:
    """It is an answer."""
    answer = TestClient(clock.asgi(fastapi_of(clock))).get("/missing")

    assert 404 == answer.status_code
    assert int(answer.headers[HEADER], 16) > 0


def test_a_websockets_handshake_carries_stamps(clock: Clock) -> None:
    """As a request and its answer do."""
    sent = stamp_in(AHEAD_MS)

    with TestClient(clock.asgi(fastapi_of(clock))).websocket_connect("/talk", headers=text(sent)) as socket:
        answered: dict[bytes, bytes] = dict(socket.extra_headers or ())
        called = socket.receive_text()

    assert sent < int(answered[HEADER.encode()], 16) < int(called, 16)


def test_lifespan_goes_through(clock: Clock) -> None:
    """An application starts and ends as without the middleware."""
    seen: list[str] = []
    app = FastAPI(on_startup=[lambda: seen.append("up")], on_shutdown=[lambda: seen.append("down")])

    with TestClient(clock.asgi(app)):
        pass

    assert ["up", "down"] == seen


def test_a_stamp_too_far_ahead_is_counted_and_not_followed(clock: Clock) -> None:
    """And the request is answered all the same."""
    sent = stamp_in(60_000)

    answer = TestClient(clock.asgi(fastapi_of(clock))).get("/", headers=text(sent))

    assert 200 == answer.status_code
    assert int(answer.headers[HEADER], 16) < sent
    assert 1 == clock.refused


@pytest.mark.parametrize("given", ["", "12", "00000000000000AB", "0x12345678901234", "ü"])
def test_what_is_no_stamp_is_not_followed(clock: Clock, given: str) -> None:
    """Nor is it counted as one."""
    assert not clock.follow({HEADER: given})
    assert (0, 0) == (clock.last, clock.refused)


def test_the_stamp_of_an_answer_is_followed(clock: Clock) -> None:
    """That of a library of one's own choice."""
    came = stamp_in(AHEAD_MS)

    assert clock.follow(text(came))
    assert clock.now() > came
    assert not clock.follow({})
