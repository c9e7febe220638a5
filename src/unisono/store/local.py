"""
What a store can do besides, that lives in one process alone: every commit passes through here.

Who carries reads past the store (:mod:`unisono.api.state.plane`) needs it. One that several nodes write to
can't promise it, and does not have it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

from unisono.store.base import Snapshot, Store
from unisono.store.watching import Change

Follower = Callable[[Sequence[Change], int], None]
"""Told the changes of a batch of commits, in order, and the revision that they lead to."""


@runtime_checkable
class LocalStore(Store, Protocol):
    """A store of this process alone."""

    def follow(self, prefix: str, follower: Follower) -> Snapshot:
        """
        All entries under ``prefix`` now, and from now on each batch of changes, to others as well.

        The follower is called once a batch is durable and before anybody is told so: what it keeps has
        all that was acknowledged, and nothing that could still be lost.
        """

    def unfollow(self, follower: Follower) -> None:
        """Tell it no more."""

    async def put_each(self, puts: Sequence[tuple[str, bytes]]) -> Sequence[int]:
        """
        Set each key to its value at a revision of its own, in this order; their revisions, all durable.

        Raises:
            Broken, MaybeDone, NotDone, ValueError: As of transact, of all of them together.
        """
