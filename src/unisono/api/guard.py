"""
What stands before the API's first handler: the token of the TCP address, the tokens of services, and the
limit of a body.

All are plain ASGI middlewares, so that they also guard paths that do not exist. The operator's Unix socket
needs no token: its file is its owner's alone (mode 0600). Where tokens are kept: :mod:`unisono.api.tokens`,
how a service's is made: :mod:`unisono.node.identity`.
"""

from __future__ import annotations

import hmac
from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from unisono.api.problems import Problem, response
from unisono.node.identity import Identities, Identity

CALLER = "unisono.caller"
"""Where in an ASGI scope it stands who calls; missing for an operator."""

_KNOWN_MAX = 10_000  # tokens whose signature was checked

MAX_BODY_BYTES = 4 * 1024 * 1024  # far above any file of services; the store bounds each record itself


class TokenGuard:
    """Lets pass who presents ``token`` as a bearer token (RFC 6750)."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._expected = f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, or the server's start and end."""
        if scope["type"] != "http" or self._knows(scope):
            await self._app(scope, receive, send)
            return
        problem = Problem(
            HTTPStatus.UNAUTHORIZED,
            "this address asks for the node's token, in the header Authorization: Bearer TOKEN",
            headers={"WWW-Authenticate": "Bearer"},
        )
        await response(problem)(scope, receive, send)

    def _knows(self, scope: Scope) -> bool:
        given = dict(scope["headers"]).get(b"authorization", b"")
        # Compared in constant time: the time it takes tells nothing of how much was right.
        return hmac.compare_digest(given, self._expected)


class IdentityGuard:
    """Lets pass instances, by the token that each was given, and tells those behind it who calls."""

    def __init__(self, app: ASGIApp, identities: Identities) -> None:
        self._app = app
        self._identities = identities
        self._known: dict[bytes, Identity] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, or the server's start and end."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        caller = self._known.get(given) or self._read(given)
        if caller is None:
            problem = Problem(
                HTTPStatus.UNAUTHORIZED,
                "this address asks for an instance's token, which it has in $UNISONO_TOKEN, in the header "
                "Authorization: Bearer TOKEN",
                headers={"WWW-Authenticate": "Bearer"},
            )
            await response(problem)(scope, receive, send)
            return
        scope[CALLER] = caller
        await self._app(scope, receive, send)

    def _read(self, given: bytes) -> Identity | None:
        kind, _, token = given.decode("latin-1").partition(" ")
        caller = self._identities.read(token) if kind.lower() == "bearer" else None
        if caller is not None:
            if len(self._known) >= _KNOWN_MAX:
                self._known.clear()
            self._known[given] = caller
        return caller


def caller_of(request: Request) -> Identity | None:
    """The instance that asks; ``None`` for an operator."""
    caller: Identity | None = request.scope.get(CALLER)
    return caller


class BodyLimit:
    """Refuses a request whose body is larger than ``limit`` bytes, declared or not."""

    def __init__(self, app: ASGIApp, limit: int = MAX_BODY_BYTES) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, or the server's start and end."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > self._limit:
            refusal = Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, self._detail())
            await response(refusal)(scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._limit:
                # The framework's own error: any other is taken for a body that is no JSON.
                raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, self._detail())
            return message

        await self._app(scope, counted, send)

    def _detail(self) -> str:
        return f"the body is larger than {self._limit} bytes, the most that is read"
