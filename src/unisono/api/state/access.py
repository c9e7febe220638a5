"""
Who may do what with which name: asked before every request to the shared state of an application.

An operator may do everything. A service may do what the word ``access`` of its spec lets it, as the newest
revision says it (:mod:`unisono.spec.access`); one that is not there any more may do nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus

from starlette.requests import Request

from unisono.api.context import Context
from unisono.api.guard import caller_of
from unisono.api.problems import Problem
from unisono.api.state.rooms import Rooms
from unisono.control.snapshot import ServiceView
from unisono.node.identity import Identity
from unisono.spec.access import Access
from unisono.spec.model import ServiceSpec


async def rooms_for(
    here: Context,
    request: Request,
    namespace: str | None,
    *,
    read: Iterable[str] = (),
    write: Iterable[str] = (),
) -> Rooms:
    """
    The rooms of ``namespace``, or of the caller's own, to read and write these names in.

    A prefix stands for all names that begin with it.

    Raises:
        Problem: The caller may not; nothing was done.
        ValueError: It is no namespace.
        StoreError: The store failed.
    """
    rooms = await here.states.of_caller(request, namespace)
    caller = caller_of(request)
    access = None if caller is None else await access_of(here, caller)
    if caller is not None and access is None and here.states.plane is not None:
        # In one step with the look at the spec: what changes after that makes the plane forget.
        here.states.plane.learn(request.headers["authorization"], caller.application)
    if access is not None and caller is not None:
        for name in read:
            if not access.may_read(name):
                raise _forbidden(caller, "read", name, (*access.read, *access.write))
        for name in write:
            if not access.may_write(name):
                raise _forbidden(caller, "write", name, access.write)
    return rooms


async def access_of(here: Context, caller: Identity) -> Access | None:
    """
    What a service may do; ``None``: everything in its application.

    Raises:
        Problem: There is no such service any more.
        StoreError: The store failed.
    """
    key = (caller.application, caller.service)
    spec = _spec(here.informer.latest.services.get(key))
    if spec is None:
        # It may be so new that the informer has not heard of it.
        await here.informer.now()
        spec = _spec(here.informer.latest.services.get(key))
    if spec is None:
        raise Problem(
            HTTPStatus.FORBIDDEN,
            f"this token is of the service {caller.service!r} of {caller.application!r}, which is no more",
            code="forbidden",
        )
    return spec.access


def _spec(view: ServiceView | None) -> ServiceSpec | None:
    return None if view is None else view.current_spec


def _forbidden(caller: Identity, what: str, name: str, allowed: tuple[str, ...]) -> Problem:
    prefixes = " or ".join(map(repr, allowed))
    right = f"names that begin with {prefixes}" if allowed else "nothing"
    return Problem(
        HTTPStatus.FORBIDDEN,
        f"{name!r}: the service {caller.service!r} may {what} {right}",
        code="forbidden",
        hint=f"access of {caller.service} in the file of services says what it may do",
    )
