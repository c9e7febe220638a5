"""
Whose state a request is about, and what stands behind it: one set of rooms for each namespace.

A service sees the namespace of its application and no other. Who comes through the operator's socket, or with
the node's own token, says which one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import cached_property
from http import HTTPStatus

from starlette.requests import Request

from unisono.api.guard import caller_of
from unisono.api.problems import Problem
from unisono.api.state.holders import Holders
from unisono.api.state.plane import Plane
from unisono.state.barriers import Barriers
from unisono.state.elections import Elections
from unisono.state.holding import Holdings, every_lease
from unisono.state.kv import Kv
from unisono.state.oracle import Oracle
from unisono.state.quotas import Quotas
from unisono.state.tokens import Tokens
from unisono.store.base import NotDone, Store, StoreError

_NAMESPACES_MAX = 1024  # whose rooms are kept; making them anew costs no more than their caches
_TURN_SECONDS = 5.0  # how long a request waits for the oracle to serve


class Rooms:
    """What one namespace has."""

    def __init__(self, store: Store, namespace: str, tokens: Tokens, node: str) -> None:
        self.namespace = namespace
        self.kv = Kv(store, namespace, tokens)
        self.holdings = Holdings(store, namespace)
        self.elections = Elections(store, namespace)
        self.barriers = Barriers(store, namespace)
        self.quotas = Quotas(store, namespace)
        self._store = store
        self._node = node

    @cached_property
    def oracle(self) -> ServedOracle:
        """Its timestamps."""
        return ServedOracle(self._store, self.namespace, self._node)


class ServedOracle:
    """The oracle of a namespace, which this node begins to serve when it is first asked."""

    def __init__(self, store: Store, namespace: str, node: str) -> None:
        self._store = store
        self._namespace = namespace
        self._node = node
        self._serving: asyncio.Task[None] | None = None
        self._oracle: asyncio.Future[Oracle] | None = None

    async def take(self, count: int) -> int:
        """
        The first of ``count`` timestamps in a row.

        Raises:
            NotDone: Another node serves them, or none can yet.
            ValueError: ``count`` is out of range.
        """
        if self._serving is None or self._serving.done():
            self._oracle = asyncio.get_running_loop().create_future()
            self._serving = asyncio.create_task(self._serve(self._oracle), name="unisono-oracle-served")
        assert self._oracle is not None  # noqa: S101 - both are made together
        if not self._oracle.done():
            done, _ = await asyncio.wait([self._oracle], timeout=_TURN_SECONDS)
            if not done:
                raise NotDone("another node serves the timestamps: ask there, or try again")
        return await self._oracle.result().take(count)

    async def close(self) -> None:
        """Serve no more; whoever serves next begins above all that was given out."""
        if self._serving is not None:
            self._serving.cancel()
            await asyncio.wait([self._serving])

    async def _serve(self, oracle: asyncio.Future[Oracle]) -> None:
        try:
            async with Oracle.serve(self._store, self._namespace, owner=self._node) as served:
                oracle.set_result(served)
                await served.ended()
        except StoreError as error:
            if not oracle.done():
                oracle.set_exception(error)
        finally:
            oracle.cancel()


class States:
    """The rooms of all namespaces, made when they are first asked for; ``node`` is this node's name."""

    def __init__(self, store: Store, node: str) -> None:
        self._store = store
        self._node = node
        self._tokens: Tokens | None = None
        self._rooms: dict[str, Rooms] = {}
        self.holders = Holders(store)
        self.plane: Plane | None = None
        """What answers plain requests before they come to the API; who opens it sets it."""

    async def of(self, namespace: str) -> Rooms:
        """
        The rooms of a namespace.

        Raises:
            ValueError: It is no namespace.
            StoreError: The store failed.
        """
        found = self._rooms.get(namespace)
        if found is None:
            if self._tokens is None:
                self._tokens = await Tokens.load(self._store)
            found = self._rooms.setdefault(namespace, Rooms(self._store, namespace, self._tokens, self._node))
            if len(self._rooms) > _NAMESPACES_MAX:
                oldest = next(iter(self._rooms))
                with suppress(StoreError):
                    await self._rooms.pop(oldest).oracle.close()
        return found

    async def timestamps(self, namespace: str, count: int) -> int:
        """
        The first of ``count`` timestamps in a row, of a namespace.

        Raises:
            StoreError: As of :meth:`ServedOracle.take`, or the store failed.
        """
        return await (await self.of(namespace)).oracle.take(count)

    async def of_caller(self, request: Request, named: str | None) -> Rooms:
        """
        The rooms that a request may use; ``named`` is the namespace that it asks for.

        Raises:
            Problem: A service names another application's, or an operator none.
            ValueError, StoreError: As of :meth:`of`.
        """
        caller = caller_of(request)
        if caller is None:
            if named is None:
                raise Problem(
                    HTTPStatus.UNPROCESSABLE_ENTITY,
                    "namespace: is missing; say whose state is meant, as in ?namespace=shop",
                    code="invalid",
                )
            return await self.of(named)
        if named not in (None, caller.application):
            raise Problem(
                HTTPStatus.FORBIDDEN,
                f"namespace: found {named!r}, but this token is of the application {caller.application!r}",
                code="forbidden",
            )
        return await self.of(caller.application)

    async def begin(self) -> None:
        """Watch the processes that older leases are bound to; those of the dead end now."""
        self.holders.watch(await every_lease(self._store))

    async def close(self) -> None:
        """Let go of what is served."""
        self.holders.close()
        for rooms in self._rooms.values():
            if "oracle" in rooms.__dict__:
                await rooms.oracle.close()


@asynccontextmanager
async def understood() -> AsyncIterator[None]:
    """Turns what the state can't make sense of into an answer that says so."""
    try:
        yield
    except ValueError as error:
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, str(error), code="invalid") from error
