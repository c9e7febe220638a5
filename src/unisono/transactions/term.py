"""
A node's term as a coordinator: how it begins, how it is held, and how long to wait for the next.

A term is a key under a lease, ``coordinator/NODE``, and the revision at which it was written, a fencing token
that every write of the log compares. While the key is there nobody takes over what the node coordinates; once
the lease has ended everybody may (:mod:`.takeover`).
"""

from __future__ import annotations

import asyncio
import random

from unisono.store.base import Compare, Field, LeaseEnded, MaybeDone, NotDone, Put, Store
from unisono.transactions import records
from unisono.transactions.log import Deposed, Log

TERM_TTL = 5.0
"""Seconds after which a node that has fallen silent is taken over from."""

PAUSE_MIN, PAUSE_MAX = 0.05, 2.0
"""Bounds of the pause, in seconds, between two tries at a term while the store does not answer."""


async def begin(store: Store, node: str) -> Log:
    """
    Begin a term of ``node``; an earlier one of the same node is over with that.

    Returns:
        The log whose writes it guards; its lease is to be kept (:func:`keep`).

    Raises:
        StoreError: As the store says. A lease that was granted, also when cancelled, ends by itself.
    """
    lease = await store.grant(TERM_TTL)
    own = f"{records.NODES}{node}"
    outcome = await store.transact(success=[Put(key=own, value=b"{}", lease=lease)])
    return Log(store, Compare(key=own, field=Field.MODIFIED, target=outcome.revision), lease)


async def keep(store: Store, lease: int) -> None:
    """
    Renew a term's lease until cancelled.

    Raises:
        Deposed: It has ended: another may coordinate what was this node's.
        Broken: The store can't go on.
    """
    while True:
        await asyncio.sleep(TERM_TTL / 3)
        try:
            await store.keep_alive(lease)
        except LeaseEnded as error:
            raise Deposed(str(error)) from error
        except (NotDone, MaybeDone):
            continue  # if it ends meanwhile, the next write or renewal tells


def pause_before(failures: int, chance: random.Random) -> float:
    """
    Seconds before the next try at a term, after ``failures`` since one was served, at least 1.

    It doubles from try to try, and lies in the upper half of its step, so that the nodes of a store that is
    back do not all come at once.

    Source: Brooker, "Exponential Backoff And Jitter", 2015 ("equal jitter").
    """
    step = min(PAUSE_MAX, PAUSE_MIN * 2.0 ** min(failures, 16))
    return step * chance.uniform(0.5, 1)
