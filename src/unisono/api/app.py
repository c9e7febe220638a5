"""
The HTTP API of a node, put together: endpoints, error documents, limits, its OpenAPI document.

``/openapi.json`` describes it; pages that render it are not served, as they would load scripts from
elsewhere. Who listens where is :mod:`unisono.daemon`'s.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from unisono import __version__
from unisono.api import applications, history, nodes, problems, services
from unisono.api.context import Context
from unisono.api.guard import BodyLimit

_PROBLEM: dict[str, Any] = {
    "description": "A problem (RFC 9457); nothing was changed unless it says so.",
    "content": {problems.MEDIA_TYPE: {"schema": problems.SCHEMA}},
}


def create_app(context: Context) -> FastAPI:
    """The API over ``context``."""
    app = FastAPI(
        title="unisono",
        summary="The API of a node: what should run, what does, and what happened.",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        responses={"4XX": _PROBLEM, "5XX": _PROBLEM, 422: _PROBLEM},
    )
    app.state.context = context
    for router in (nodes.router, applications.router, services.router, history.router):
        app.include_router(router)
    problems.install(app)
    app.add_middleware(BodyLimit)
    return app
