"""
Tables in shared memory, kept as the store is: what instances of this machine read without asking anyone.

Each table mirrors the keys of one namespace that begin with one prefix, through the store's watch, so all
changes come in order and none is missed; a compaction that overtakes the watch leads to a new table, which
takes the old one's place as a whole. A value bears the revision that set it, and the stamp of this node's
clock at which it came here.

A table says two things of itself: up to which revision all is in it (so a session knows whether it is new
enough), and as of when that was all there was (so a reader knows how old it can be). The second is learned
by asking the store for its revision: once the table is there, it held at the time of the question all that
had been acknowledged. A table whose store can't be reached, or whose node is gone, grows old.

Where the file lies and who gets to read it are others'; the table itself is ``engine/src/shared``.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from unisono._engine import SharedWriter
from unisono.state.names import END, namespace_prefix
from unisono.store.base import Broken, Compacted, Entry, Event, Store, StoreError

BEAT_SECONDS = 0.05
"""A table that is kept is at most so much older than its last change, and the time that the store takes."""

_AT_ONCE = 512  # entries that are put before others get their turn
_RETRY_SECONDS = 1.0
_BEAT_KEY = "state-beat"  # of no entry: a scan for it tells the store's revision

_log = logging.getLogger("unisono.shared")


class Clock(Protocol):
    """What stamps values."""

    def now(self) -> int:
        """A stamp above all before."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """What to mirror: keys of ``namespace`` beginning with ``prefix``, in ``size`` bytes at ``path``."""

    namespace: str
    prefix: str
    path: Path
    size: int

    def __str__(self) -> str:
        return f"{self.namespace}/{self.prefix}"


class SharedMemory:
    """
    Keeps the tables that are wanted while :meth:`run` runs; the one process that writes them. They lie in
    folders of ``folder``, which must exist while any is wanted.

    ``tell`` hears of what an operator should know: ``shared-memory-full`` when a table has no room for all
    that there is, ``shared-memory-failed`` when it can't be made.
    """

    def __init__(self, store: Store, folder: Path, clock: Clock, tell: Callable[[str, str], None]) -> None:
        self._store = store
        self._folder = folder
        self._clock = clock
        self._tell = tell
        self._wanted: frozenset[Table] = frozenset()
        self._kept: dict[Table, asyncio.Task[None]] = {}
        self._filled: set[_Filled] = set()
        self._any_filled = asyncio.Event()
        self._told = False  # what is wanted
        self._wake = asyncio.Event()

    def want(self, tables: Collection[Table]) -> None:
        """From now on keep these, and no others; the files of those that are left out go."""
        wanted = frozenset(tables)
        if wanted != self._wanted or not self._told:
            self._wanted = wanted
            self._told = True
            self._wake.set()

    async def run(self) -> None:
        """
        Until cancelled. Then the tables that are wanted stay and grow old, until the next node's take their
        place; all others go.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._beat(), name="shared-memory: beat")
                while True:
                    await self._wake.wait()
                    self._wake.clear()
                    await self._end(self._kept.keys() - self._wanted)
                    self._clean()
                    for table in self._wanted - self._kept.keys():
                        work = self._keep(table)
                        self._kept[table] = tasks.create_task(work, name=f"shared-memory: {table}")
        finally:
            if self._told:
                self._clean()

    async def _end(self, tables: Collection[Table]) -> None:
        for table in tables:
            task = self._kept.pop(table)
            task.cancel()
            await asyncio.wait((task,))

    def _clean(self) -> None:
        """Take away what is not wanted, be it this node's or left by one before."""
        wanted = {table.path for table in self._wanted}
        for path in self._folder.glob("*/*"):
            if path.suffix == "" and path not in wanted:
                try:
                    SharedWriter.remove(path)
                except OSError as error:
                    _log.warning("the table %s can't be removed: %s", path, error)
        for folder in (*self._folder.glob("*"), self._folder):
            if not any(path.is_relative_to(folder) for path in wanted):
                with suppress(OSError):  # it is not empty, or not there
                    folder.rmdir()

    async def _keep(self, table: Table) -> None:
        told = ""
        while True:
            try:
                await self._follow(table)
                return  # the store was closed
            except Compacted:
                continue  # too far behind: a new table, filled anew
            except Broken:
                raise
            except (StoreError, OSError) as error:
                if str(error) != told:
                    told = str(error)
                    _log.warning("the table of %s can't be kept: %s", table, error)
                    # One that is busy is just being let go of.
                    if isinstance(error, OSError) and not isinstance(error, BlockingIOError):
                        self._tell("shared-memory-failed", f"{table}: {error}")
            await asyncio.sleep(_RETRY_SECONDS)

    async def _follow(self, table: Table) -> None:
        home = f"{namespace_prefix(table.namespace)}kv/"
        table.path.parent.mkdir(mode=0o700, exist_ok=True)
        # In a thread: the memory is taken, and cleared, here.
        writer = await asyncio.to_thread(SharedWriter, table.path, table.size)
        filled = _Filled(table, writer, len(home), self._clock, self._tell)
        try:
            asked = time.monotonic_ns()
            found = await self._store.scan(home + table.prefix)
            for begin in range(0, len(found.entries), _AT_ONCE):
                for entry in found.entries[begin : begin + _AT_ONCE]:
                    filled.put(entry)
                await asyncio.sleep(0)
            filled.publish(found.revision, asked)
            self._filled.add(filled)
            self._any_filled.set()
            async for batch in self._store.watch(home + table.prefix, after=found.revision, marks=True):
                filled.take(batch.events, batch.revision)
        finally:
            self._filled.discard(filled)
            if not self._filled:
                self._any_filled.clear()
            writer.close()

    async def _beat(self) -> None:
        while True:
            await self._any_filled.wait()  # a node without tables is not woken
            await asyncio.sleep(BEAT_SECONDS)
            asked = time.monotonic_ns()
            try:
                revision = (await self._store.scan(_BEAT_KEY)).revision
            except StoreError:
                continue  # the tables grow old, as they should
            for filled in self._filled:
                filled.ask(revision, asked)


class _Filled:
    """A table with what has come so far. ``begin``: where a user's key begins in the store's."""

    def __init__(
        self,
        table: Table,
        writer: SharedWriter,
        begin: int,
        clock: Clock,
        tell: Callable[[str, str], None],
    ) -> None:
        self._table = table
        self._writer = writer
        self._begin = begin
        self._clock = clock
        self._tell = tell
        self._revision = 0
        self._as_of = 0
        self._asked: tuple[int, int] | None = None  # a revision of the store, and a time when it had no later
        self._full = False

    def publish(self, revision: int, asked: int) -> None:
        self._revision, self._as_of = revision, asked
        self._writer.publish(revision, asked)

    def take(self, events: Collection[Event], revision: int) -> None:
        """All that changed at ``revision``; before it, all is here."""
        for event in events:
            if event.entry is None:
                self._writer.delete(event.key[self._begin :].removesuffix(END))
            else:
                self.put(event.entry)
        self._revision = revision
        self._progress()

    def ask(self, revision: int, asked: int) -> None:
        """At the time ``asked`` the store had nothing after ``revision``."""
        # An earlier question comes first: under load each new one would be out of reach in its turn.
        if self._asked is None or self._asked[0] <= self._revision:
            self._asked = (revision, asked)
            self._progress()

    def _progress(self) -> None:
        if self._asked is not None and self._asked[0] <= self._revision:
            self._as_of = self._asked[1]
            self._asked = None
        self._writer.progress(self._revision, self._as_of)

    def put(self, entry: Entry) -> None:
        key = entry.key[self._begin :].removesuffix(END)
        try:
            self._writer.put(key, entry.value, entry.modified, self._clock.now())
        except MemoryError as error:
            # Not the old value either. Readers of this key, and of those that aren't there, ask the node.
            self._writer.leave_out(key)
            if not self._full:
                self._full = True
                _log.warning("the table of %s is full: %s", self._table, error)
                self._tell("shared-memory-full", f"{self._table}: {error}; give it more under shared:")
