"""
A participant as a web application: ASGI for FastAPI and Starlette, WSGI for Flask.

Both read one request whole, hand it to the participant and write its answer. A body that is longer than a
call may be, or that breaks off, is no call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from http import HTTPStatus
from typing import Any

from unisono.client.participant.protocol import PAYLOAD_MAX, BadCall, Response, refusal

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
StartResponse = Callable[[str, list[tuple[str, str]]], Any]

Answering = Callable[[str, str, Mapping[str, str], bytes], Response]
AnsweringAsync = Callable[[str, str, Mapping[str, str], bytes], Awaitable[Response]]

TOO_LONG = f"the payload has more than {PAYLOAD_MAX} bytes"


async def serve_asgi(scope: Scope, receive: Receive, send: Send, answering: AnsweringAsync) -> None:
    """Answer one request; ``answering`` gets method, last part of the path, headers and body."""
    if scope["type"] == "lifespan":
        await _live(receive, send)
        return
    if scope["type"] != "http":
        raise RuntimeError(f"a participant speaks HTTP, not {scope['type']}")
    try:
        body = await _body(receive)
        headers = {
            name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]
        }
        op = scope["path"].rpartition("/")[2]
        response = await answering(scope["method"], op, headers, body)
    except BadCall as error:
        response = refusal(error)
    except ConnectionError:
        return  # nobody is there to answer
    headers_out = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in _headers(response)]
    await send({"type": "http.response.start", "status": response.status, "headers": headers_out})
    await send({"type": "http.response.body", "body": response.body})


async def _live(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def _body(receive: Receive) -> bytes:
    parts, length = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError("the caller left before it had said everything")
        parts.append(message.get("body", b""))
        length += len(parts[-1])
        if length > PAYLOAD_MAX:
            raise BadCall(TOO_LONG, 413)
        if not message.get("more_body"):
            return b"".join(parts)


def serve_wsgi(
    environ: Mapping[str, Any], start_response: StartResponse, answering: Answering
) -> Iterable[bytes]:
    """Answer one request, as :func:`serve_asgi`."""
    try:
        body = _read(environ)
        headers = {
            name.removeprefix("HTTP_").replace("_", "-").lower(): value
            for name, value in environ.items()
            if name.startswith("HTTP_")
        }
        op = environ.get("PATH_INFO", "").rpartition("/")[2]
        response = answering(environ["REQUEST_METHOD"], op, headers, body)
    except BadCall as error:
        response = refusal(error)
    phrase = HTTPStatus(response.status).phrase
    start_response(f"{response.status} {phrase}", _headers(response))
    return [response.body]


def _read(environ: Mapping[str, Any]) -> bytes:
    said = environ.get("CONTENT_LENGTH") or ""
    if said:
        if not said.isdigit():
            raise BadCall(f"Content-Length is a number, not {said!r}")
        if int(said) > PAYLOAD_MAX:
            raise BadCall(TOO_LONG, 413)
        body: bytes = environ["wsgi.input"].read(int(said))
        if len(body) < int(said):
            raise BadCall(f"the payload broke off after {len(body)} of {said} bytes")
        return body
    if not environ.get("wsgi.input_terminated"):
        return b""  # without a length the end could not be seen
    body = environ["wsgi.input"].read(PAYLOAD_MAX + 1)
    if len(body) > PAYLOAD_MAX:
        raise BadCall(TOO_LONG, 413)
    return body


def _headers(response: Response) -> list[tuple[str, str]]:
    if response.status == HTTPStatus.NO_CONTENT:
        return list(response.headers)
    return [*response.headers, ("Content-Length", str(len(response.body)))]


async def in_thread(work: Callable[[], Response]) -> Response:
    """
    Run what blocks beside the event loop. Cancelled, it still runs to its end: what a call did is then for
    the coordinator to ask again.
    """
    return await asyncio.shield(asyncio.to_thread(work))
