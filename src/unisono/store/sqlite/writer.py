"""
Group commit: one thread that owns the file and does all jobs that wait for it in one commit.

However many clients write, the disk is asked to make sure (fsync) once per batch; while it does, the next
batch gathers by itself. What a job means for memory is decided on the event loop (``applied``), for a whole
batch in one step. Which jobs exist is the store's to know; how they reach the disk is the file's.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from unisono.store.base import Broken, NotDone, StoreError
from unisono.store.sqlite.entries import Change
from unisono.store.sqlite.file import Contents, Failure, File

_BATCH_JOBS_MAX = 4096
_BATCH_BYTES_MAX = 16 * 1024 * 1024


class Job:
    """
    Changes to append, or other work on the file, and what follows once it is durable.

    ``era`` counts failed commits as the loop knew them when the job was decided.
    """

    __slots__ = ("applied", "changes", "era", "future", "result", "size", "work")

    def __init__(
        self,
        *,
        era: int,
        future: asyncio.Future[Any],
        applied: Callable[[Any], Any],
        changes: Sequence[Change] = (),
        size: int = 0,
        work: Callable[[File], Any] | None = None,
    ) -> None:
        self.era = era
        self.future = future
        self.applied = applied  # on the loop, with the work's result; returns the operation's
        self.changes = changes
        self.size = size  # bytes
        self.work = work
        self.result: Any = None


@dataclass(frozen=True, slots=True)
class Ended:
    """
    How a batch ended: durable, or failed as ``fails`` tells for each of its jobs.

    ``resets``: whatever was decided since was decided on changes that never were. ``stopped``: no later
    batch will succeed.
    """

    jobs: Sequence[Job]
    fails: Callable[[], StoreError] | None = None
    resets: bool = False
    stopped: bool = False


class Writer:
    """
    The thread, from :meth:`start` to the end of :meth:`close`. All methods belong to the event loop.

    ``acknowledge`` is called on the loop for each batch, in the order of commits.
    """

    def __init__(self, path: Path, acknowledge: Callable[[Ended], None]) -> None:
        self._path = path
        self._acknowledge = acknowledge
        self._loop = asyncio.get_running_loop()
        self._queue: SimpleQueue[Job | None] = SimpleQueue()  # None: no more will come
        self._opened: asyncio.Future[Contents] = self._loop.create_future()
        self._closed: asyncio.Future[None] = self._loop.create_future()
        # A daemon: a program that dies of an error is not held back by a thread that waits for jobs.
        self._thread = threading.Thread(target=self._run, name="unisono-store", daemon=True)
        # The thread's own:
        self._failed_era = -1
        self._broken: str | None = None

    async def start(self) -> Contents:
        """
        Open the file and read it.

        Raises:
            Broken: It can't be opened.
        """
        self._thread.start()
        try:
            return await asyncio.shield(self._opened)
        except asyncio.CancelledError:
            self._queue.put(None)
            raise

    def submit(self, job: Job) -> None:
        """Queue a job; it is acknowledged after all before it."""
        self._queue.put(job)

    async def close(self) -> None:
        """Finish all jobs, then close the file."""
        self._queue.put(None)
        await asyncio.shield(self._closed)
        self._thread.join()

    def _run(self) -> None:
        try:
            try:
                file = File(self._path)
            except Exception as error:
                self._tell(_set_exception, self._opened, error)
                return
            try:
                contents = file.load()
            except Exception as error:
                file.close()
                self._tell(_set_exception, self._opened, error)
                return
            self._tell(_set_result, self._opened, contents)
            self._work(file)
            file.close()
        finally:
            self._tell(_set_result, self._closed, None)

    def _work(self, file: File) -> None:
        more = True
        while more:
            jobs, more = self._take()
            stale = [job for job in jobs if job.era <= self._failed_era]
            if stale:
                self._end(Ended(stale, _undermined))
                jobs = [job for job in jobs if job.era > self._failed_era]
            if jobs:
                self._end(self._commit(file, jobs))

    def _take(self) -> tuple[list[Job], bool]:
        """All that waits, up to a limit, and whether more may come."""
        job = self._queue.get()
        jobs: list[Job] = []
        size = 0
        while job is not None:
            jobs.append(job)
            size += job.size
            if len(jobs) >= _BATCH_JOBS_MAX or size >= _BATCH_BYTES_MAX:
                return jobs, True
            try:
                job = self._queue.get_nowait()
            except Empty:
                return jobs, True
        return jobs, False

    def _commit(self, file: File, jobs: Sequence[Job]) -> Ended:
        if self._broken is not None:
            return Ended(jobs, partial(Broken, self._broken), resets=True, stopped=True)
        committing = False
        try:
            file.begin()
            file.append(change for job in jobs for change in job.changes)
            for job in jobs:
                if job.work is not None:
                    job.result = job.work(file)
            committing = True
            file.commit()
        except Exception as error:
            return self._failed(file, jobs, file.failure(error, committing=committing))
        return Ended(jobs)

    def _failed(self, file: File, jobs: Sequence[Job], failure: Failure) -> Ended:
        self._failed_era = jobs[0].era  # the same for all: the loop makes the next one when it hears of this
        try:
            file.roll_back()
        except Exception as error:
            self._broken = f"{failure.message}; nor could it be rolled back: {error}"
        if not failure.goes_on and self._broken is None:
            self._broken = failure.message
        fails = partial(failure.error, failure.message)
        return Ended(jobs, fails, resets=True, stopped=self._broken is not None)

    def _end(self, ended: Ended) -> None:
        self._tell(self._acknowledge, ended)

    def _tell(self, callback: Callable[..., None], *args: object) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:
            # The loop was closed without closing the store: nobody is left to be told, what is
            # committed stays.
            return


def _undermined() -> StoreError:
    return NotDone("a transaction before this one failed, and this one was decided on top of it: try again")


def _set_result(future: asyncio.Future[Any], result: object) -> None:
    if not future.done():
        future.set_result(result)


def _set_exception(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
