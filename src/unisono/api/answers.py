"""How handlers come by their context, and how a view becomes an answer."""

from __future__ import annotations

from collections.abc import Hashable
from functools import cache
from typing import Annotated, Any, cast

from fastapi import Depends, Request
from pydantic import TypeAdapter
from starlette.responses import Response

from unisono.api.context import Context


def _context(request: Request) -> Context:
    context: Context = request.app.state.context
    return context


Here = Annotated[Context, Depends(_context)]


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def encode(view: Any) -> bytes:
    """A view as JSON on one line."""
    return _adapter(cast(Hashable, type(view))).dump_json(view)


def answer(view: object) -> Response:
    """A view as an answer. It was made by us, so it is not checked against its schema once more."""
    return Response(encode(view), media_type="application/json")
