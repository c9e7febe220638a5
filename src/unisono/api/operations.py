"""
What the API can be asked: operations, each a method, a path and a handler.

A handler is a coroutine function whose signature says it all, once: ``here`` is the node's
:class:`~unisono.api.context.Context`, ``query`` and ``body`` are dataclasses that the request is checked
against, ``request`` is the request itself, all others come from the path; what it returns is a view, which
is answered as JSON, or a response of its own. The same signatures make the document of
:mod:`unisono.api.openapi`. Types are looked at when they are first needed, not when the node starts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping
from functools import cache, cached_property
from http import HTTPStatus
from typing import Any, cast, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from unisono.api import schemas
from unisono.api.context import Context
from unisono.api.problems import Problem, of_validation


@dataclasses.dataclass(frozen=True)
class Operation:
    """One method of one path. ``status`` is that of an answer that is a view."""

    method: str
    path: str
    handler: Callable[..., Awaitable[Any]]
    status: HTTPStatus = HTTPStatus.OK
    media_type: str = "application/json"

    @cached_property
    def types(self) -> Mapping[str, Any]:
        """The handler's parameters and its return, by name."""
        return get_type_hints(self.handler, include_extras=True)

    async def answer(self, here: Context, request: Request) -> Response:
        """
        Ask the handler.

        Raises:
            Problem: The request does not fit; nothing was done.
        """
        given: dict[str, Any] = dict(request.path_params)
        if "request" in self.types:
            given["request"] = request
        if "query" in self.types:
            given["query"] = _query(self.types["query"], request)
        if "body" in self.types:
            given["body"] = await _body(self.types["body"], request)
        answered = await self.handler(here, **given)
        if isinstance(answered, Response):
            return answered
        return Response(encode(answered), self.status, media_type=self.media_type)


def routes(operations: Iterable[Operation]) -> list[Route]:
    """One route for each path, with all its methods."""
    by_path: dict[str, dict[str, Operation]] = {}
    for operation in operations:
        by_path.setdefault(operation.path, {})[operation.method] = operation
    return [Route(path, _Endpoint(methods), methods=list(methods)) for path, methods in by_path.items()]


def encode(view: object) -> bytes:
    """A view as JSON on one line. It was made by us, so it is not checked against its schema once more."""
    return adapter(cast(Hashable, type(view))).dump_json(view)


@cache
def adapter(kind: Any) -> TypeAdapter[Any]:
    """What reads and writes a type."""
    return TypeAdapter(kind)


class _Endpoint:
    """
    The operations of one path, as an ASGI application: a function would be wrapped by Starlette in two
    coroutines more, which is a twentieth of what a small request costs.
    """

    def __init__(self, methods: Mapping[str, Operation]) -> None:
        self._methods = methods

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Request(scope, receive, send)
        method = "GET" if request.method == "HEAD" else request.method
        response = await self._methods[method].answer(request.app.state.context, request)
        await response(scope, receive, send)


def _query(kind: type[Any], request: Request) -> Any:
    """The query's parameters; those that a field takes several of may be repeated."""
    repeated = _repeated(cast(Hashable, kind))
    given: dict[str, Any] = {}
    for name, value in request.query_params.multi_items():
        if name in repeated:
            given.setdefault(name, []).append(value)
        elif name in given:
            raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, f"{name}: is there more than once; once is right")
        else:
            given[name] = value
    try:
        return schemas.read(kind, given)
    except ValidationError as error:
        raise of_validation(error) from error


@cache
def _repeated(kind: Any) -> frozenset[str]:
    """The fields that take several; asked once, as annotations are compiled each time they are looked at."""
    return frozenset(name for name, hint in get_type_hints(kind).items() if get_origin(hint) is tuple)


async def json_body(request: Request) -> bytes:
    """
    A request's body that says it is JSON.

    Raises:
        Problem: It says something else.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    # No page of a browser can send this without being asked first (CORS): a form is never taken for JSON.
    if media_type != "application/json":
        found = media_type or "of no type"
        raise Problem(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"the body is {found}; JSON with the header Content-Type: application/json is right",
        )
    return await request.body()


async def _body(kind: type[Any], request: Request) -> Any:
    try:
        return schemas.read(kind, await json_body(request))
    except ValidationError as error:
        raise of_validation(error) from error
