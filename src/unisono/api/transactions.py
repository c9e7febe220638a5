"""
Endpoints of transactions: begin, enrol, decide, look, retry, resolve; the contract is
docs/reference/transactions-api.md.

A service asks at the services' face, and its transactions are those of its application; an operator asks at
the node's own socket, names the application, and may call any address. What happens is the coordinator's
(:mod:`unisono.transactions.coordinator`).

Bodies are read by :mod:`unisono.transactions.submission` and not by a schema, and views are encoded as they
are: this is the one part of the API that is called thousands of times a second.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any

from pydantic import Field
from pydantic_core import from_json, to_json
from starlette.requests import Request
from starlette.responses import Response

from unisono.api.context import Context
from unisono.api.guard import caller_of
from unisono.api.operations import Operation, json_body
from unisono.api.problems import Problem
from unisono.state.names import namespace_prefix
from unisono.store.base import NotDone
from unisono.transactions.coordinator import Coordinator
from unisono.transactions.errors import Invalid
from unisono.transactions.states import State, Status
from unisono.transactions.submission import BranchSpec, Submission, check_ms
from unisono.transactions.views import stored_view

MAX_BODY_BYTES = 1024 * 1024
MAX_WAIT_MS = 60_000
_DEFAULT_WAIT_MS = 30_000

_STATUSES = frozenset({"", "open", "final", "heuristic", *Status})
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


@dataclass(frozen=True, kw_only=True)
class Where:
    """Whose transactions: for an operator, the application's name; a service's are those of its own."""

    namespace: str = ""


@dataclass(frozen=True, kw_only=True)
class Look:
    """Which transaction, and how long to wait for its end."""

    namespace: str = ""
    wait_ms: Annotated[int, Field(ge=0, le=MAX_WAIT_MS)] = 0


@dataclass(frozen=True, kw_only=True)
class Find:
    """Which transactions: ``status`` is one of theirs, ``open``, ``final`` or ``heuristic``."""

    namespace: str = ""
    status: str = ""
    limit: Annotated[int, Field(ge=1, le=1000)] = 100


async def begin_transaction(here: Context, request: Request) -> Response:
    """Take a transaction on; the answer comes when it is durable, or with ``wait_ms`` when it is final."""
    query = request.query_params
    application, trusted = _whose(request, query.get("namespace", ""))
    given = await _object(request)
    wait = check_ms(given.pop("wait_ms", 0), "wait_ms", 0, MAX_WAIT_MS) / 1000
    trace = request.headers.get("traceparent", "")
    begun = await _coordinator(here).begin(
        application,
        Submission.of(given),
        trusted=trusted,
        traceparent=trace if _TRACEPARENT.fullmatch(trace) else None,
    )
    running = begun.running
    if running is not None:
        view = await _coordinator(here).wait(running, wait)
    else:
        view = stored_view(begun.record)
        if wait and view["ended_at"] is None:
            view = await _coordinator(here).get(application, begun.record.gid, wait=wait)
    return _answer(view, HTTPStatus.CREATED if begun.created else HTTPStatus.OK)


async def enrol_branch(here: Context, gid: str, request: Request, query: Where) -> Response:
    """Add a branch to an active transaction and call it forward; the answer comes with the branch's own."""
    application, _ = _whose(request, query.namespace)
    given = await _object(request)
    wait = check_ms(given.pop("wait_ms", _DEFAULT_WAIT_MS), "wait_ms", 0, MAX_WAIT_MS) / 1000
    new, branch = await _coordinator(here).enrol(application, gid, BranchSpec.of(given, ""), wait=wait)
    if branch["state"] == State.REFUSED:
        raise Problem(
            HTTPStatus.CONFLICT,
            f"the branch {branch['id']} said no",
            code="branch-refused",
            more={"problem": branch["problem"], "status_of_transaction": branch["status"]},
        )
    pending = branch["state"] in (State.IDLE, State.FORWARD)
    status = HTTPStatus.CREATED if new else HTTPStatus.OK
    return _answer(branch, HTTPStatus.ACCEPTED if pending else status)


async def commit_transaction(here: Context, gid: str, request: Request, query: Where) -> Response:
    """Decide to commit, and wait until it is so."""
    return await _decide(here, gid, request, query, commit=True)


async def abort_transaction(here: Context, gid: str, request: Request, query: Where) -> Response:
    """Decide to abort, and wait until all is undone."""
    return await _decide(here, gid, request, query, commit=False)


async def get_transaction(here: Context, gid: str, request: Request, query: Look) -> Response:
    """How a transaction stands, with its timeline."""
    application, _ = _whose(request, query.namespace)
    return _answer(await _coordinator(here).get(application, gid, wait=query.wait_ms / 1000))


async def list_transactions(here: Context, request: Request, query: Find) -> Response:
    """Transactions, the newest first, without their branches. Without an application an operator sees all."""
    all_of_them = caller_of(request) is None and not query.namespace
    application = None if all_of_them else _whose(request, query.namespace)[0]
    if query.status not in _STATUSES:
        right = ", ".join(sorted(filter(None, _STATUSES)))
        raise Invalid("status", f"{right} are right, found {query.status!r}")
    found = await _coordinator(here).find(application, status=query.status, limit=query.limit)
    return _answer({"transactions": found})


async def retry_transaction(here: Context, gid: str, request: Request, query: Where) -> Response:
    """Call at once what waits for its next try."""
    application, _ = _whose(request, query.namespace)
    return _answer({"called": await _coordinator(here).retry(application, gid)}, HTTPStatus.ACCEPTED)


async def resolve_transaction(here: Context, gid: str, request: Request, query: Where) -> Response:
    """An operator's word on branches that can't be finished or undone; for operators alone."""
    application, trusted = _whose(request, query.namespace)
    if not trusted:
        raise Problem(HTTPStatus.FORBIDDEN, "only an operator may resolve", code="not-yours")
    given = await _object(request)
    branches = given.get("branches")
    if not isinstance(branches, list) or not branches or not all(isinstance(id, str) for id in branches):
        raise Invalid("branches", "a list of at least one branch id is right")
    for name in given:
        if name not in ("branches", "outcome", "reason", "operator"):
            raise Invalid(name, "unknown field")
    if given.get("outcome") not in ("finished", "undone"):
        raise Invalid("outcome", f"finished or undone is right, found {given.get('outcome')!r}")
    words = {name: _word(given, name) for name in ("reason", "operator")}
    view = await _coordinator(here).resolve(
        application, gid, outcome=given["outcome"], branches=branches, **words
    )
    return _answer(view)


async def _decide(here: Context, gid: str, request: Request, query: Where, *, commit: bool) -> Response:
    application, _ = _whose(request, query.namespace)
    given = await _object(request) if await request.body() else {}
    wait = check_ms(given.pop("wait_ms", _DEFAULT_WAIT_MS), "wait_ms", 0, MAX_WAIT_MS) / 1000
    for name in given:
        raise Invalid(name, "unknown field")
    view = await _coordinator(here).decide(application, gid, commit=commit, wait=wait)
    final = view["ended_at"] is not None
    location = {} if final else {"Location": f"/v1/transactions/{gid}"}
    return _answer(view, HTTPStatus.OK if final else HTTPStatus.ACCEPTED, headers=location)


def _whose(request: Request, named: str) -> tuple[str, bool]:
    """
    The application whose transaction it is, and whether an operator asks.

    Raises:
        Invalid: An operator names none; Problem: a service names one.
    """
    caller = caller_of(request)
    if caller is not None:
        own = caller.application
        if named and named != own:
            raise Problem(HTTPStatus.FORBIDDEN, f"the token is of {own}, not of {named}", code="not-yours")
        return own, False
    if not named:
        raise Invalid("namespace", "say whose transaction it is: ?namespace=APPLICATION")
    try:
        namespace_prefix(named)
    except ValueError as error:
        raise Invalid("namespace", str(error)) from error
    return named, True


def _coordinator(here: Context) -> Coordinator:
    if here.coordinator is None:
        raise NotDone("this node coordinates no transactions")
    return here.coordinator


async def _object(request: Request) -> dict[str, Any]:
    body = await json_body(request)
    if len(body) > MAX_BODY_BYTES:
        raise Problem(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"the body has {len(body)} bytes; {MAX_BODY_BYTES} is the most",
        )
    try:
        given = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise Invalid("", f"no valid JSON: {error}") from error
    if not isinstance(given, dict):
        raise Invalid("", f"an object is right, found {type(given).__name__}")
    return given


def _word(given: dict[str, Any], name: str) -> str:
    word = given.get(name)
    if not isinstance(word, str) or not 0 < len(word) <= 500:
        raise Invalid(name, "text of 1 to 500 characters is right")
    return word


def _answer(
    view: dict[str, Any], status: HTTPStatus = HTTPStatus.OK, *, headers: dict[str, str] | None = None
) -> Response:
    return Response(to_json(view), status, headers=headers, media_type="application/json")


_ALL = "/v1/transactions"
_ONE = _ALL + "/{gid}"

OPERATIONS = (
    Operation("POST", _ALL, begin_transaction, HTTPStatus.CREATED),
    Operation("GET", _ALL, list_transactions),
    Operation("POST", _ONE + "/branches", enrol_branch, HTTPStatus.CREATED),
    Operation("POST", _ONE + ":commit", commit_transaction),
    Operation("POST", _ONE + ":abort", abort_transaction),
    Operation("POST", _ONE + ":retry", retry_transaction, HTTPStatus.ACCEPTED),
    Operation("POST", _ONE + ":resolve", resolve_transaction),
    Operation("GET", _ONE, get_transaction),
)
