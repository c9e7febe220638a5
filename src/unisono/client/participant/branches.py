"""
``saga``, ``tcc`` and ``xa``: the decorators that make a participant of a service's code.

A :class:`Participant` is an ASGI application, for ``app.mount("/pay", Pay)`` in FastAPI and Starlette; its
``wsgi`` is a WSGI application, for Flask. The decision what a call does is the fence's.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, cast

from unisono.client.participant.drivers import driver_of, is_async
from unisono.client.participant.fence import fence
from unisono.client.participant.prepared import PREFIX_MAX, default_prefix, is_looked_at, prepared
from unisono.client.participant.protocol import OPS, Call, Mode, Response, read_call, response
from unisono.client.participant.running import AsyncDriver, Driver, run, run_async
from unisono.client.participant.serving import (
    Receive,
    Scope,
    Send,
    StartResponse,
    in_thread,
    serve_asgi,
    serve_wsgi,
)
from unisono.client.participant.steps import Fence
from unisono.client.participant.sweeping import Sweeps

_METHODS = {"try": "try_"}  # the one operation that Python has as a keyword
_PREFIX = re.compile(rf"[A-Za-z0-9._-]{{1,{PREFIX_MAX}}}")

_current: ContextVar[Call] = ContextVar("unisono_call")


def current_call() -> Call:
    """
    The call that the participant's code is carrying out: gid, branch, epoch, deadline, reply.

    Raises:
        LookupError: No call is being carried out here.
    """
    return _current.get()


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a participant's calls are carried out."""

    external: bool = False
    prefix: str = ""


class Participant:
    """
    One kind of branch, as an ASGI application; made by :func:`saga`, :func:`tcc` and :func:`xa`.

    Args:
        mode: Which operations it has.
        database: As :mod:`unisono.client.participant.drivers` describes.
        code: The code for each operation that has some, called with the connection and the payload.
        settings: How its calls are carried out.
    """

    def __init__(
        self, mode: Mode, database: Any, code: Mapping[str, Callable[..., Any]], settings: Settings
    ) -> None:
        self.mode = mode
        self.driver = driver_of(database)
        self._code = code
        self._settings = settings
        self._is_async = is_async(self.driver)
        _check_colour(code, self._is_async)
        if mode == "xa" and self.driver.dialect.name != "postgresql":
            raise TypeError(
                f"xa needs PostgreSQL, which keeps prepared transactions safely; this is"
                f" {self.driver.dialect.name}: offer tcc or saga there"
            )
        self._prepares = 0  # so far
        self._sweeps = Sweeps(self.driver, settings.prefix) if mode == "xa" else None
        self._sweep()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer an ASGI request."""
        await serve_asgi(scope, receive, send, self._answer_async)

    def wsgi(self, environ: Mapping[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """
        Answer a WSGI request.

        Raises:
            TypeError: The database is one for asyncio.
        """
        if self._is_async:
            raise TypeError("under WSGI a participant needs a database without asyncio")
        return serve_wsgi(environ, start_response, self._answer)

    def _sweep(self) -> None:
        if self._sweeps is not None:
            self._sweeps.begin()

    def _answer(self, method: str, op: str, headers: Mapping[str, str], body: bytes) -> Response:
        self._sweep()
        call = read_call(self.mode, method, op, headers, body)
        return response(run(cast(Driver, self.driver), self._fence(call), self._work))

    async def _answer_async(self, method: str, op: str, headers: Mapping[str, str], body: bytes) -> Response:
        if not self._is_async:
            return await in_thread(lambda: self._answer(method, op, headers, body))
        self._sweep()
        call = read_call(self.mode, method, op, headers, body)
        return response(await run_async(cast(AsyncDriver, self.driver), self._fence(call), self._work_async))

    def _fence(self, call: Call) -> Fence:
        if self.mode == "xa":
            look = is_looked_at(self._prepares)
            self._prepares += call.kind == "forward"
            return prepared(self.driver.dialect, call, self._settings.prefix, look=look)
        return fence(self.driver.dialect, call, external=self._settings.external)

    def _work(self, handle: Any, call: Call) -> Any:
        code = self._code.get(call.op)
        if code is None:
            return None
        token = _current.set(call)
        try:
            return code(handle, call.payload)
        finally:
            _current.reset(token)

    async def _work_async(self, handle: Any, call: Call) -> Any:
        code = self._code.get(call.op)
        if code is None:
            return None
        token = _current.set(call)
        try:
            return await code(handle, call.payload)
        finally:
            _current.reset(token)


def saga(database: Any, *, external: bool = False) -> Callable[[type], Participant]:
    """
    Make a participant of sagas of a class with ``action(tx, payload)`` and ``compensate(tx, payload)``.

    Args:
        database: As :mod:`unisono.client.participant.drivers` describes. With one for asyncio the methods
            are ``async def``, else ``def``.
        external: The action has effects outside the database. Then what it began is recorded first, so it may
            run again after a crash, and compensate may run after an action that failed halfway: both must
            bear that.

    Raises:
        TypeError: The class lacks a method, or has one of the wrong kind; the message names it.
    """
    return _of_class("saga", database, Settings(external=external))


def tcc(database: Any, *, external: bool = False) -> Callable[[type], Participant]:
    """
    Make a TCC participant of a class with ``try_``, ``confirm`` and ``cancel``, each ``(tx, payload)``.

    ``try_`` takes what is needed aside and may refuse; ``confirm`` and ``cancel`` must come to succeed.
    Arguments and errors as for :func:`saga`.
    """
    return _of_class("tcc", database, Settings(external=external))


def xa(database: Any, *, prefix: str | None = None) -> Callable[[Callable[..., Any]], Participant]:
    """
    Make an XA participant of one function ``(tx, payload)``, whose changes PostgreSQL prepares.

    In an instance of a node it also finishes, from its start on and once a minute, what was left prepared
    under its prefix, as the log says (:mod:`unisono.client.participant.sweeping`).

    Args:
        database: One of PostgreSQL, with ``max_prepared_transactions`` set.
        prefix: Begins the names of its prepared transactions, so that two clusters that share a database
            never touch each other's: 1 to 32 letters, digits and . _ -. By default the application's name.

    Raises:
        TypeError: The database is not PostgreSQL, or the function is of the wrong kind.
        ValueError: The prefix is none.
    """
    prefix = prefix or default_prefix()
    if not _PREFIX.fullmatch(prefix):
        raise ValueError(f"prefix is 1 to {PREFIX_MAX} letters, digits and . _ -, not {prefix!r}")

    def decorate(code: Callable[..., Any]) -> Participant:
        return Participant("xa", database, {"prepare": code}, Settings(prefix=prefix))

    return decorate


def _of_class(mode: Mode, database: Any, settings: Settings) -> Callable[[type], Participant]:
    def decorate(kind: type) -> Participant:
        one, code = kind(), {}
        for op in OPS[mode]:
            name = _METHODS.get(op, op)
            method = getattr(one, name, None)
            if not callable(method):
                raise TypeError(f"{mode} needs a method {name}(self, tx, payload) of {kind.__name__}")
            code[op] = method
        return Participant(mode, database, code, settings)

    return decorate


def _check_colour(code: Mapping[str, Callable[..., Any]], wanted: bool) -> None:
    for one in code.values():
        if inspect.iscoroutinefunction(one) != wanted:
            form, database = ("async def", "for asyncio") if wanted else ("def", "without asyncio")
            raise TypeError(f"{one.__qualname__} must be {form}, because its database is one {database}")
