"""
Requests with an id: however often one is sent, it has one effect, and each time the first answer.

The answer is written in the transaction that has the effect, under a lease of REQUEST_TTL; a repeat finds
it. After that time an id is forgotten, and would have its effect again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from unisono.state import guarded
from unisono.state.errors import RequestReused
from unisono.state.guarded import Unmet
from unisono.state.leases import LeasePool
from unisono.state.names import check_request_id
from unisono.store.base import Compare, Delete, Entry, Field, MaybeDone, NotDone, Outcome, Put, Store

REQUEST_TTL = 300.0
"""Seconds for which a repeat is known as one, at least."""

_ATTEMPTS = 3  # at an outcome that is unknown, before the caller is told


@dataclass(frozen=True, kw_only=True)
class Request:
    """A transaction that is done once; keys are the store's."""

    id: str
    guards: Sequence[Compare] = ()
    compares: Sequence[Compare] = ()
    success: Sequence[Put | Delete] = ()
    failure: Sequence[Put | Delete] = ()

    def digest(self) -> str:
        """
        Tells this request from another with the same id.

        Leases do not count: a repeat may well be made under a new one. Nor do guards.
        """
        parts = [*_compared(self.compares), b"success", *_changed(self.success)]
        parts += [b"failure", *_changed(self.failure)]
        digest = hashlib.blake2b(digest_size=16)
        for part in parts:
            digest.update(len(part).to_bytes(8, "big") + part)
        return digest.hexdigest()


class Requests:
    """Does requests of one namespace once; ``prefix`` is where their answers are kept."""

    def __init__(self, store: Store, prefix: str, leases: LeasePool) -> None:
        self._store = store
        self._prefix = prefix
        self._leases = leases

    async def run(self, request: Request) -> Outcome | Unmet:
        """
        The first answer to ``request``, which is now done if it was not before.

        An outcome that is unknown is found out by doing it again, which is safe here. A guard that does
        not hold leaves no answer: the request was not done.

        Raises:
            RequestReused: The id came with another request before.
            MaybeDone: The store could not tell; repeat the same request.
            NotDone: It was not done.
        """
        key = self._prefix + check_request_id(request.id)
        digest = request.digest()
        lease = await self._leases.lease(REQUEST_TTL)
        unknown: MaybeDone | None = None
        fresh = False
        for _ in range(_ATTEMPTS):
            try:
                return await self._run(request, key, digest, lease)
            except MaybeDone as error:
                unknown = error
            except RequestReused:
                raise
            except NotDone:
                if unknown is not None:
                    break  # not done this time, but the time before it may have been
                if fresh:
                    raise
                # One reason may be that the answer's lease has ended, while the store was away.
                lease = await self._leases.lease(REQUEST_TTL, instead_of=lease)
                fresh = True
        raise unknown if unknown is not None else NotDone("it could not be recorded: try again")

    async def _run(self, request: Request, key: str, digest: str, lease: int) -> Outcome | Unmet:
        new = Compare(key=key, field=Field.CREATED, target=0)
        result = await guarded.run(
            self._store,
            guards=[new, *request.guards],
            compares=request.compares,
            success=[*request.success, _answer(key, digest, True, lease)],
            failure=[*request.failure, _answer(key, digest, False, lease)],
        )
        if isinstance(result, Unmet) and result.guard is new and result.entry is not None:
            return _first(request.id, digest, result.entry)
        return result


def _answer(key: str, digest: str, succeeded: bool, lease: int) -> Put:
    value = json.dumps({"digest": digest, "succeeded": succeeded}).encode()
    return Put(key=key, value=value, lease=lease)


def _first(id: str, digest: str, entry: Entry) -> Outcome:
    answer = json.loads(entry.value)
    if answer["digest"] != digest:
        raise RequestReused(f"request id {id!r} came with another request before: use a new id")
    return Outcome(succeeded=answer["succeeded"], revision=entry.created)


def _compared(compares: Sequence[Compare]) -> Iterable[bytes]:
    for compare in compares:
        target = compare.target if isinstance(compare.target, bytes) else b"%d" % compare.target
        yield from (compare.key.encode(), compare.field.encode(), target)


def _changed(operations: Sequence[Put | Delete]) -> Iterable[bytes]:
    for operation in operations:
        if isinstance(operation, Put):
            yield from (b"put", operation.key.encode(), operation.value)
        else:
            yield from (b"delete-prefix" if operation.prefix else b"delete", operation.key.encode())
