"""
The initiator's side of messages: actions elsewhere happen if a transaction of one's own database committed.

The transaction of one's own writes a row of the fence; nothing else need be sent in time. If the initiator
is killed before it can say that it committed, the coordinator asks at the deadline: the question inserts the
same row, so either it finds that the transaction committed, or the transaction can never commit any more.
Source: DTM's two-phase message.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

from unisono.client.participant.dialects import Dialect
from unisono.client.participant.drivers import driver_of, is_async
from unisono.client.participant.fence import again, begin, insert, is_late, select
from unisono.client.participant.protocol import (
    BadCall,
    Call,
    Done,
    Refused,
    Response,
    Unknown,
    no,
    read_call,
    response,
)
from unisono.client.participant.running import AsyncDriver, Driver, nothing, run, run_async
from unisono.client.participant.serving import (
    Receive,
    Scope,
    Send,
    StartResponse,
    in_thread,
    serve_asgi,
    serve_wsgi,
)
from unisono.client.participant.steps import Commit, Fence, Result, Rollback, Run

BRANCH = "00"  # under which the coordinator asks
QUESTION = "query_prepared"


class Messages:
    """
    Records that a message is to be sent, and answers the coordinator's question whether it is.

    It is an ASGI application; its ``wsgi`` is a WSGI application.

    Mount it, and name any path below as the transaction's ``query_prepared``, say "/asked/back": a mount is
    not found at its own path without a slash.

    Args:
        database: The one in which the initiator's own transactions run, with a fence's table.
    """

    def __init__(self, database: Any) -> None:
        self.driver = driver_of(database)
        self._is_async = is_async(self.driver)

    async def record(self, tx: Any, gid: str) -> None:
        """
        Within a transaction of one's own, before it commits: if it commits, the message ``gid`` goes out.

        Raises:
            Refused: The coordinator has asked already and been told that this never commits: roll back.
            TypeError: The database is one without asyncio; see :meth:`record_sync`.
        """
        if not self._is_async:
            raise TypeError("record_sync() is for a database without asyncio")
        session = cast(AsyncDriver, self.driver).wrap(tx)
        _recorded(await session.run(_record(self.driver.dialect, gid)))

    def record_sync(self, tx: Any, gid: str) -> None:
        """As :meth:`record`, for a database without asyncio."""
        if self._is_async:
            raise TypeError("record() is for a database of asyncio")
        _recorded(cast(Driver, self.driver).wrap(tx).run(_record(self.driver.dialect, gid)))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer an ASGI request."""
        await serve_asgi(scope, receive, send, self._answer_async)

    def wsgi(self, environ: Mapping[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Answer a WSGI request."""
        if self._is_async:
            raise TypeError("under WSGI messages need a database without asyncio")
        return serve_wsgi(environ, start_response, self._answer)

    def _answer(self, method: str, op: str, headers: Mapping[str, str], body: bytes) -> Response:
        fence = asked_back(self.driver.dialect, _read(method, headers, body))
        return response(run(cast(Driver, self.driver), fence, nothing))

    async def _answer_async(self, method: str, op: str, headers: Mapping[str, str], body: bytes) -> Response:
        if not self._is_async:
            return await in_thread(lambda: self._answer(method, op, headers, body))
        fence = asked_back(self.driver.dialect, _read(method, headers, body))
        return response(await run_async(cast(AsyncDriver, self.driver), fence, nothing))


def asked_back(dialect: Dialect, call: Call) -> Fence:
    """Did the transaction of one's own commit? Asked before it did, it never will."""
    return again(lambda: _asked_back(dialect, call))


def _asked_back(dialect: Dialect, call: Call) -> Fence:
    yield begin(call)
    if (yield from insert(dialect, call, "fenced")) is not None:
        if (yield from is_late(call)):
            yield Rollback()
            return Unknown(
                status=500,
                detail="whether the transaction committed has been purged from the fence: decide by hand,"
                " with the commit or the abort of the message",
            )
        yield Commit()
        return no("not-committed", "the transaction did not commit before it was asked for, and never will")
    row = yield from select(dialect, call)
    yield Rollback()
    if row.state == "done":
        return Done()
    return no("not-committed", "the transaction did not commit before it was first asked for")


def _record(dialect: Dialect, gid: str) -> Run:
    call = Call(gid=gid, branch=BRANCH, op="msg", kind="forward")
    step = next(insert(dialect, call, "done"))
    assert isinstance(step, Run), "inserting begins with its statement"  # noqa: S101
    return step


def _recorded(result: Result) -> None:
    if result.count != 1:
        raise Refused("it is too late: the coordinator was told that this never commits", code="fenced")


def _read(method: str, headers: Mapping[str, str], body: bytes) -> Call:
    if headers.get("transaction-branch") != BRANCH:
        raise BadCall(f"Transaction-Branch is {BRANCH} where a message is asked for")
    return read_call("msg", method, QUESTION, headers, body)
