"""
The HTTP API of a node, put together: operations, error documents, limits, its OpenAPI document.

``/openapi.json`` describes it; there is no page that renders it, as it would load scripts from elsewhere.
Who listens where is :mod:`unisono.daemon`'s.
"""

from __future__ import annotations

from collections.abc import Sequence

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from unisono.api import applications, history, nodes, openapi, problems, services, transactions
from unisono.api.context import Context
from unisono.api.guard import BodyLimit, IdentityGuard
from unisono.api.operations import Operation, routes
from unisono.api.state import amounts, holdings, kv, time
from unisono.node.identity import Identities

SERVICES_OPERATIONS = (
    *kv.OPERATIONS,  # first, as routes are tried in order and these are asked for most
    *transactions.OPERATIONS,
    *holdings.OPERATIONS,
    *amounts.OPERATIONS,
    *time.OPERATIONS,
)
"""What services may ask as well, each for its own application."""

OPERATIONS = (
    *SERVICES_OPERATIONS,
    *nodes.OPERATIONS,
    *applications.OPERATIONS,
    *services.OPERATIONS,
    *history.OPERATIONS,
)


def create_app(context: Context) -> Starlette:
    """The API over ``context``, as an operator sees it."""
    return _app(context, OPERATIONS)


def create_services_app(context: Context, identities: Identities) -> ASGIApp:
    """What services see of it: state, time and transactions of their own application."""
    return IdentityGuard(_app(context, SERVICES_OPERATIONS), identities)


def _app(context: Context, operations: Sequence[Operation]) -> Starlette:
    async def describe(_: Request) -> JSONResponse:
        return JSONResponse(openapi.document(operations))

    app = Starlette(
        routes=[*routes(operations), Route("/openapi.json", describe, methods=["GET"])],
        middleware=[Middleware(BodyLimit)],
        exception_handlers=problems.HANDLERS,
    )
    app.state.context = context
    return app
