"""
Every error that the API answers, as problem details (RFC 9457): one function per cause.

Handlers raise :class:`Problem`, or the control plane's and the store's own errors; :data:`HANDLERS` turn
each of them, and the framework's, into one shape. A refusal says what was found and what would be right,
and has changed nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse

from unisono.control.errors import CommandError, Conflict, Invalid, NotFound
from unisono.state.errors import Fenced, Insufficient, Lost, NotAcquired, RequestReused
from unisono.store.base import Broken, Compacted, LeaseEnded, MaybeDone, StoreError
from unisono.transactions import errors as transactions
from unisono.transactions.errors import Elsewhere, TransactionError

MEDIA_TYPE = "application/problem+json"

_ERRORS_MAX = 100  # faults of one request that are named: an answer is not to be larger than what was asked
_SHOWN_MAX = 200  # characters of what was found

_OF_TRANSACTIONS: dict[type[TransactionError], HTTPStatus] = {
    transactions.Invalid: HTTPStatus.UNPROCESSABLE_ENTITY,
    transactions.UrlNotAllowed: HTTPStatus.FORBIDDEN,
    transactions.Unknown: HTTPStatus.NOT_FOUND,
    transactions.Reused: HTTPStatus.UNPROCESSABLE_ENTITY,
    transactions.NotActive: HTTPStatus.PRECONDITION_FAILED,
    transactions.Decided: HTTPStatus.CONFLICT,
    transactions.NotInDoubt: HTTPStatus.CONFLICT,
    transactions.Expired: HTTPStatus.GONE,
    transactions.Elsewhere: HTTPStatus.MISDIRECTED_REQUEST,
    transactions.TooMany: HTTPStatus.TOO_MANY_REQUESTS,
}

_OF_STATE: dict[type[StoreError], tuple[HTTPStatus, str]] = {
    Compacted: (HTTPStatus.GONE, "compacted"),
    LeaseEnded: (HTTPStatus.GONE, "lease-ended"),
    Lost: (HTTPStatus.GONE, "lost"),
    NotAcquired: (HTTPStatus.CONFLICT, "not-acquired"),
    Insufficient: (HTTPStatus.CONFLICT, "insufficient"),
    Fenced: (HTTPStatus.CONFLICT, "fenced"),
    RequestReused: (HTTPStatus.UNPROCESSABLE_ENTITY, "request-reused"),
}

SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string", "description": "about:blank: the title says it all"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "what was found, and what would be right"},
        "code": {"type": "string", "description": "the cause, for programs; it does not change"},
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
        code: str | None = None,
        more: Mapping[str, Any] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.hint = hint
        self.errors = list(errors)
        self.code = code
        self.more = dict(more or {})
        self.headers = headers


def document(problem: Problem) -> dict[str, Any]:
    """The problem as RFC 9457 writes it."""
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": problem.status.phrase,
        "status": int(problem.status),
        "detail": problem.detail,
    }
    if problem.code:
        body["code"] = problem.code
    if problem.hint:
        body["hint"] = problem.hint
    if problem.errors:
        body["errors"] = problem.errors
    return body | problem.more


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
    """What the store, or the state on it, could not do: told apart by whether it may have happened."""
    if isinstance(error, Broken):
        return Problem(HTTPStatus.INSUFFICIENT_STORAGE, f"the store can't go on: {error}", code="broken")
    if isinstance(error, MaybeDone):
        return Problem(
            HTTPStatus.INTERNAL_SERVER_ERROR,
            f"the outcome is unknown, it may have been done: {error}",
            hint="look at the state before trying again, or repeat it with the same request id",
            code="maybe-done",
        )
    for kind, (status, code) in _OF_STATE.items():
        if isinstance(error, kind):
            more = {name: getattr(error, name) for name in ("revision", "available") if hasattr(error, name)}
            return Problem(status, str(error), code=code, more=more)
    return Problem(
        HTTPStatus.SERVICE_UNAVAILABLE, f"nothing was done: {error}", hint="try again", code="not-done"
    )


def of_transaction(error: TransactionError) -> Problem:
    """What the coordinator refused."""
    status = _OF_TRANSACTIONS.get(type(error), HTTPStatus.CONFLICT)
    errors = (
        [{"field": error.field, "detail": error.detail}] if isinstance(error, transactions.Invalid) else []
    )
    more = {"node": error.node} if isinstance(error, Elsewhere) else None
    return Problem(status, str(error), errors=errors, code=error.code, more=more)


def of_http(error: HTTPException) -> Problem:
    """What the framework refused: no such path, no such method."""
    status = HTTPStatus(error.status_code)
    details = {
        HTTPStatus.NOT_FOUND: "there is nothing at this path; /openapi.json lists all paths",
        HTTPStatus.METHOD_NOT_ALLOWED: "this path has no such method; the Allow header lists those it has",
    }
    headers = dict(error.headers) if error.headers else None
    return Problem(status, details.get(status, str(error.detail)), headers=headers)


def of_validation(error: ValidationError) -> Problem:
    """A body or query that does not fit its schema; names every fault, of very many the first ones."""
    faults = error.errors(include_url=False)
    errors = [
        {"field": _short(".".join(map(str, fault["loc"]))), "detail": _words(fault)}
        for fault in faults[:_ERRORS_MAX]
    ]
    first = errors[0]
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    where = f"{first['field']}: " if first["field"] else ""
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, f"{where}{first['detail']}{more}", errors=errors)


def of_fault(error: Exception) -> Problem:
    """What should not happen. The server logs the traceback; who asked gets the kind of it and no more."""
    detail = f"the node has a fault ({type(error).__name__}); its log says more"
    return Problem(HTTPStatus.INTERNAL_SERVER_ERROR, detail)


def _handler(problem_of: Callable[[Any], Problem]) -> Callable[[Request, Exception], Awaitable[JSONResponse]]:
    async def handle(_: Request, error: Exception) -> JSONResponse:
        return response(problem_of(error))

    return handle


HANDLERS: Mapping[Any, Callable[[Request, Exception], Awaitable[JSONResponse]]] = {
    Problem: _handler(lambda problem: problem),
    CommandError: _handler(of_command),
    StoreError: _handler(of_store),
    TransactionError: _handler(of_transaction),
    HTTPException: _handler(of_http),
    # Nobody reads this answer; without it the log would tell of a fault.
    ClientDisconnect: _handler(lambda _: Problem(HTTPStatus.BAD_REQUEST, "the request broke off")),
    Exception: _handler(of_fault),
}


def _words(fault: ErrorDetails) -> str:
    if fault["type"] == "extra_forbidden":
        return "unknown field"
    if fault["type"] == "json_invalid":
        return f"no valid JSON: {fault.get('ctx', {}).get('error', fault['msg'])}"
    found = fault.get("input")
    is_shown = fault["type"] != "missing" and not isinstance(found, dict | list)
    shown = f", found {_short(repr(found))}" if is_shown else ""
    return f"{fault['msg'][:1].lower()}{fault['msg'][1:]}{shown}"


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN_MAX else f"{text[:_SHOWN_MAX]}… ({len(text)} characters)"
