"""
The HTTP API of a node, put together: operations, error documents, limits, its OpenAPI document.

``/openapi.json`` describes it; there is no page that renders it, as it would load scripts from elsewhere.
Who listens where is :mod:`unisono.daemon`'s.
"""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from unisono.api import applications, history, nodes, openapi, problems, services, transactions
from unisono.api.context import Context
from unisono.api.guard import BodyLimit
from unisono.api.operations import routes

OPERATIONS = (
    *nodes.OPERATIONS,
    *applications.OPERATIONS,
    *services.OPERATIONS,
    *history.OPERATIONS,
    *transactions.OPERATIONS,
)


def create_app(context: Context) -> Starlette:
    """The API over ``context``."""
    app = Starlette(
        routes=[*routes(OPERATIONS), Route("/openapi.json", _describe, methods=["GET"])],
        middleware=[Middleware(BodyLimit)],
        exception_handlers=problems.HANDLERS,
    )
    app.state.context = context
    return app


async def _describe(_: Request) -> JSONResponse:
    return JSONResponse(openapi.document(OPERATIONS))
