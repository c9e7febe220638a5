"""
Every error that the API answers, as problem details (RFC 9457): one function per cause.

Handlers raise :class:`Problem`, or the control plane's and the store's own errors; :func:`install`
teaches an application to turn each of them, and the framework's, into one shape. A refusal says what
was found and what would be right, and has changed nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from unisono.control.errors import CommandError, Conflict, Invalid, NotFound
from unisono.store.base import Broken, MaybeDone, NotDone, StoreError

MEDIA_TYPE = "application/problem+json"

SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string", "description": "about:blank: the title says it all"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "what was found, and what would be right"},
        "hint": {"type": "string", "description": "a remedy"},
        "errors": {
            "type": "array",
            "description": "each fault of its own, where there are several",
            "items": {
                "type": "object",
                "properties": {"field": {"type": "string"}, "detail": {"type": "string"}},
            },
        },
    },
}


class Problem(Exception):
    """An answer that is an error."""

    def __init__(
        self,
        status: HTTPStatus,
        detail: str,
        *,
        hint: str | None = None,
        errors: Sequence[dict[str, str]] = (),
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.hint = hint
        self.errors = list(errors)
        self.headers = headers


def document(problem: Problem) -> dict[str, Any]:
    """The problem as RFC 9457 writes it."""
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": problem.status.phrase,
        "status": int(problem.status),
        "detail": problem.detail,
    }
    if problem.hint:
        body["hint"] = problem.hint
    if problem.errors:
        body["errors"] = problem.errors
    return body


def response(problem: Problem) -> JSONResponse:
    """The problem as an HTTP response."""
    return JSONResponse(
        document(problem), int(problem.status), headers=problem.headers, media_type=MEDIA_TYPE
    )


def of_command(error: CommandError) -> Problem:
    """What the control plane refused."""
    statuses: dict[type[CommandError], HTTPStatus] = {
        NotFound: HTTPStatus.NOT_FOUND,
        Conflict: HTTPStatus.CONFLICT,
        Invalid: HTTPStatus.UNPROCESSABLE_ENTITY,
    }
    return Problem(statuses.get(type(error), HTTPStatus.CONFLICT), str(error))


def of_store(error: StoreError) -> Problem:
    """What the store could not do, told apart by whether it may have happened."""
    if isinstance(error, Broken):
        return Problem(HTTPStatus.INSUFFICIENT_STORAGE, f"the store can't go on: {error}")
    if isinstance(error, MaybeDone):
        return Problem(
            HTTPStatus.INTERNAL_SERVER_ERROR,
            f"the outcome is unknown, it may have been done: {error}",
            hint="look at the state before trying again",
        )
    assert isinstance(error, NotDone)  # noqa: S101 - the three branches of StoreError
    return Problem(HTTPStatus.SERVICE_UNAVAILABLE, f"nothing was done: {error}", hint="try again")


def of_http(error: HTTPException) -> Problem:
    """What the framework refused: no such path, no such method."""
    status = HTTPStatus(error.status_code)
    details = {
        HTTPStatus.NOT_FOUND: "there is nothing at this path; /openapi.json lists all paths",
        HTTPStatus.METHOD_NOT_ALLOWED: "this path has no such method; the Allow header lists those it has",
    }
    headers = dict(error.headers) if error.headers else None
    return Problem(status, details.get(status, str(error.detail)), headers=headers)


def of_validation(error: RequestValidationError) -> Problem:
    """A body or query that does not fit its schema; names every fault."""
    errors = [{"field": _path(fault["loc"]), "detail": _words(fault)} for fault in error.errors()]
    first = errors[0]
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    where = f"{first['field']}: " if first["field"] else ""
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, f"{where}{first['detail']}{more}", errors=errors)


def install(app: FastAPI) -> None:
    """Make ``app`` answer every error as a problem."""

    @app.exception_handler(Problem)
    async def on_problem(_: Request, error: Problem) -> JSONResponse:
        return response(error)

    @app.exception_handler(CommandError)
    async def on_command(_: Request, error: CommandError) -> JSONResponse:
        return response(of_command(error))

    @app.exception_handler(StoreError)
    async def on_store(_: Request, error: StoreError) -> JSONResponse:
        return response(of_store(error))

    @app.exception_handler(HTTPException)
    async def on_http(_: Request, error: HTTPException) -> JSONResponse:
        return response(of_http(error))

    @app.exception_handler(RequestValidationError)
    async def on_validation(_: Request, error: RequestValidationError) -> JSONResponse:
        return response(of_validation(error))

    @app.exception_handler(Exception)
    async def on_fault(_: Request, error: Exception) -> JSONResponse:
        # The server logs the traceback; who asked gets the kind of the fault and no more.
        detail = f"the node has a fault ({type(error).__name__}); its log says more"
        return response(Problem(HTTPStatus.INTERNAL_SERVER_ERROR, detail))


def _path(location: Sequence[str | int]) -> str:
    """A fault's place, as a reader of JSON would write it; where in the request it was is left out."""
    return ".".join(str(part) for part in location[1:])


def _words(fault: dict[str, Any]) -> str:
    if fault["type"] == "extra_forbidden":
        return "unknown field"
    if fault["type"] == "json_invalid":
        return f"no valid JSON: {fault.get('ctx', {}).get('error', fault['msg'])}"
    found = fault.get("input")
    if isinstance(found, bytes):
        return "the body is taken for JSON only with the header Content-Type: application/json"
    shown = "" if fault["type"] == "missing" or isinstance(found, dict | list) else f", found {found!r}"
    return f"{fault['msg'][:1].lower()}{fault['msg'][1:]}{shown}"
