"""
Leases that end with a process of this machine: at once when it dies, not when their time is over.

A lease that names its holder is watched by pidfd. The holder stands in the lease's record with its start
time, so that a node that was started again watches on, and ends what died meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from unisono.node import processes
from unisono.state import leases
from unisono.state.holding import Holder, Lease
from unisono.store.base import Store

MAX_WATCHED = 10_000


def holder(pid: int) -> Holder:
    """
    The process that has this pid now.

    Raises:
        ValueError: There is none.
    """
    started = processes.start_time(pid)
    if started is None:
        raise ValueError(f"pid: there is no process {pid} on this machine")
    return Holder(pid=pid, start_time=started, boot_id=processes.boot_id())


class Holders:
    """Watches the processes that leases are bound to."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._watched: dict[Holder, set[int]] = {}
        self._holder_of: dict[int, Holder] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def watch(self, found: Iterable[Lease]) -> None:
        """
        End these leases when the processes they name die; those of processes that are gone end now.

        Raises:
            ValueError: So many processes are watched already that this one can't be.
        """
        for lease in found:
            if lease.holder is None or lease.holder.boot_id != processes.boot_id():
                continue
            known = self._watched.get(lease.holder)
            if known is None and len(self._watched) >= MAX_WATCHED:
                raise ValueError(
                    f"{MAX_WATCHED} processes are watched already; leave pid out and rely on the ttl"
                )
            self._holder_of[lease.id] = lease.holder
            if known is not None:
                known.add(lease.id)
                continue
            self._watched[lease.holder] = {lease.id}
            task = asyncio.create_task(
                self._end_with(lease.holder), name=f"unisono-holder-{lease.holder.pid}"
            )
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def forget(self, lease: int) -> None:
        """A lease has ended otherwise."""
        holder = self._holder_of.pop(lease, None)
        if holder is not None:
            self._watched.get(holder, set()).discard(lease)

    def close(self) -> None:
        """Watch no more; the leases stay, and end at their time."""
        for task in self._tasks:
            task.cancel()

    async def _end_with(self, holder: Holder) -> None:
        try:
            handle = processes.Handle(holder.pid)
        except ProcessLookupError:
            handle = None
        except OSError:
            self._give_up(holder)  # no file descriptor is left to watch it with: its leases end at their time
            return
        if handle is not None:
            try:
                # The pidfd first, the start time after: no reused pid can slip in between.
                if processes.start_time(holder.pid) == holder.start_time:
                    await handle.ended()
            finally:
                handle.close()
        for lease in self._give_up(holder):
            await leases.revoke(self._store, lease)

    def _give_up(self, holder: Holder) -> set[int]:
        ended = self._watched.pop(holder, set())
        for lease in ended:
            self._holder_of.pop(lease, None)
        return ended
