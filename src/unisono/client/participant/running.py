"""
Carries a fence's steps out on a session of a driver, with and without asyncio.

Whatever happens, the session goes back to its pool outside a transaction, or not at all.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, NoReturn, Protocol

from unisono.client.participant.dialects import Dialect
from unisono.client.participant.protocol import Answer, Call, Refused, Unknown
from unisono.client.participant.steps import (
    Begin,
    Commit,
    Fault,
    Fence,
    Result,
    Returned,
    Run,
    Step,
    Why,
    Work,
)

log = logging.getLogger(__name__)


class Session(Protocol):
    """One connection of a database, in autocommit, that begins and ends transactions when told."""

    handle: Any  # what the participant's code gets

    def begin(self, step: Begin) -> None:
        """Begin a transaction."""

    def run(self, step: Run) -> Result:
        """Run one statement, in the transaction or outside of one."""

    def end(self, *, keep: bool) -> None:
        """
        Commit or roll back. Rolling back never fails: where it can't be done the connection is thrown away,
        and where there is no transaction there is nothing to do.
        """

    def fault(self, error: Exception) -> Fault | None:
        """The fault that an exception of the driver is; ``None`` if it is not the driver's."""


class Driver(Protocol):
    """Sessions of a database without asyncio."""

    dialect: Dialect

    @contextmanager
    def session(self) -> Iterator[Session]:
        """A connection for one call."""
        ...

    def wrap(self, handle: Any) -> Session:
        """A session on a connection of the user's, in whatever transaction that is."""


class AsyncSession(Protocol):
    """As :class:`Session`, for asyncio."""

    handle: Any

    async def begin(self, step: Begin) -> None:
        """Begin a transaction."""

    async def run(self, step: Run) -> Result:
        """Run one statement, in the transaction or outside of one."""

    async def end(self, *, keep: bool) -> None:
        """
        Commit or roll back. Rolling back never fails: where it can't be done the connection is thrown away,
        and where there is no transaction there is nothing to do.
        """

    def fault(self, error: Exception) -> Fault | None:
        """The fault that an exception of the driver is; ``None`` if it is not the driver's."""


class AsyncDriver(Protocol):
    """Sessions of a database for asyncio."""

    dialect: Dialect

    @asynccontextmanager
    def session(self) -> AsyncIterator[AsyncSession]:
        """A connection for one call."""
        ...

    def wrap(self, handle: Any) -> AsyncSession:
        """A session on a connection of the user's, in whatever transaction that is."""


def run(driver: Driver, fence: Fence, code: Callable[[Any, Call], Any]) -> Answer:
    """Carry out a fence; ``code`` is the participant's, called with the session's handle and the call."""
    try:
        with driver.session() as session:
            return _run(session, fence, code)
    except Exception as error:
        return unreachable(error)


def _run(session: Session, fence: Fence, code: Callable[[Any, Call], Any]) -> Answer:
    try:
        step = next(fence)
        while True:
            try:
                result = _carry_out(session, step, code)
            except Exception as error:
                fault = told(step, error, session.fault(error))
                step = fence.throw(fault)
            else:
                step = fence.send(result)
    except StopIteration as end:
        answer: Answer = end.value
        return answer
    finally:
        fence.close()


def _carry_out(session: Session, step: Step, code: Callable[[Any, Call], Any]) -> Result | Returned | None:
    if isinstance(step, Run):
        return session.run(step)
    if isinstance(step, Work):
        return Returned(code(session.handle, step.call))
    if isinstance(step, Begin):
        session.begin(step)
    else:
        session.end(keep=isinstance(step, Commit))
    return None


async def run_async(driver: AsyncDriver, fence: Fence, code: Callable[[Any, Call], Awaitable[Any]]) -> Answer:
    """As :func:`run`. Cancelled, it rolls back, or leaves what a lost connection leaves."""
    try:
        async with driver.session() as session:
            return await _run_async(session, fence, code)
    except Exception as error:
        return unreachable(error)


async def _run_async(
    session: AsyncSession, fence: Fence, code: Callable[[Any, Call], Awaitable[Any]]
) -> Answer:
    try:
        step = next(fence)
        while True:
            try:
                result = await _carry_out_async(session, step, code)
            except Exception as error:
                fault = told(step, error, session.fault(error))
                step = fence.throw(fault)
            else:
                step = fence.send(result)
    except StopIteration as end:
        answer: Answer = end.value
        return answer
    finally:
        fence.close()


async def _carry_out_async(
    session: AsyncSession, step: Step, code: Callable[[Any, Call], Awaitable[Any]]
) -> Result | Returned | None:
    if isinstance(step, Run):
        return await session.run(step)
    if isinstance(step, Work):
        return Returned(await code(session.handle, step.call))
    if isinstance(step, Begin):
        await session.begin(step)
    else:
        await session.end(keep=isinstance(step, Commit))
    return None


def told(step: Step, error: Exception, fault: Fault | None) -> Exception:
    """What the fence is told of an error: a fault of the database, a no, or a fault in the code."""
    if isinstance(error, (Refused, Fault)):
        return error
    if fault is not None and (not isinstance(step, Work) or fault.why is not Why.OTHER):
        return fault
    if isinstance(step, Work):
        log.error("%s of %s/%s failed", step.call.op, step.call.gid, step.call.branch, exc_info=error)
        return Fault(Why.CODE, "", f"the participant's code raised {type(error).__name__}")
    return error


def unreachable(error: Exception) -> Unknown:
    """What to answer when no session could be had, or it broke in a way that no driver knows."""
    log.error("the database could not be used", exc_info=error)
    return Unknown(detail=f"the database could not be used: {type(error).__name__}")


def nothing(handle: Any, call: Call) -> NoReturn:
    """The code of a fence that runs none."""
    raise AssertionError(f"{call.op} runs no code")
