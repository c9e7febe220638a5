"""
Sweeps: a participant of XA finishes by itself what was left prepared, as the coordinator's log decides.

The coordinator calls each branch that it has enrolled until that is finished, so little is ever left:
branches of a log that was lost, of a backup that was restored, of a participant that could not be reached
when an operator resolved them. But what is left holds its locks for ever, and nothing in the database tells.

A sweep looks at prepared transactions of the participant's own prefix alone, the oldest first, and asks the
node whose instance this is; where there is none, nothing is swept. One that the log does not know is presumed
aborted, but not before the longest time that a transaction may stay undecided is over: it may be another
application's, whose log this one does not see.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import threading
import time
import weakref
from typing import Literal, cast
from urllib.parse import quote

from unisono.client.asking import AskingSync
from unisono.client.errors import NodeError, NotRunning
from unisono.client.participant.drivers import is_async
from unisono.client.participant.running import AsyncDriver, Driver
from unisono.client.participant.upkeep import (
    Orphan,
    UpkeepFailed,
    finish_orphan,
    finish_orphan_async,
    orphans,
    orphans_async,
    verdict,
)
from unisono.client.questions import Ask, Node, Told

FIRST = 2.0  # seconds from the start to the first sweep: the pool may have to be opened first
EVERY = 60.0  # seconds between two
YOUNG = 30.0  # seconds: what is younger is the coordinator's alone
GRACE = 25 * 3600.0  # seconds: a transaction is decided within a day
MOST = 100  # that are looked at in one sweep
_SPREAD = 0.25  # so that instances that were started together do not sweep together

_log = logging.getLogger(__name__)

Decision = Literal["commit", "rollback"]


class Sweeps:
    """
    The sweeps of one participant, in a task or a thread of their own: until it, the loop or the process ends.

    Args:
        driver: The participant's database.
        prefix: Of its prepared transactions.
    """

    def __init__(self, driver: Driver | AsyncDriver, prefix: str) -> None:
        self._driver = driver
        self._prefix = prefix
        self._task: asyncio.Task[None] | None = None
        self._pid = 0  # of the process whose thread it is: a fork leaves threads behind

    def begin(self) -> None:
        """Begin, if that has not been done and can be here; it is asked at every call, and quick."""
        if not is_async(self._driver):
            if self._pid != os.getpid():
                self._pid = os.getpid()
                self._begin_thread()
        elif self._task is None or self._task.done():
            self._begin_task()

    def _begin_thread(self) -> None:
        node = _node()
        if node is not None:
            arguments = (weakref.ref(self), AskingSync(node))
            threading.Thread(target=_sweep, args=arguments, name="unisono-orphans", daemon=True).start()

    def _begin_task(self) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return  # the first call has one
        node = _node()
        if node is not None:
            work = _sweep_async(weakref.ref(self), AskingSync(node))
            self._task = loop.create_task(work, name="unisono-orphans")

    def sweep(self, asking: AskingSync) -> None:
        """
        One sweep, without asyncio.

        Raises:
            UpkeepFailed, NodeError: It could not be done; the next one may.
        """
        driver = cast(Driver, self._driver)
        for orphan in _old(orphans(driver, prefix=self._prefix)):
            decision = _decision(asking, orphan)
            if decision is not None:
                finish_orphan(driver, orphan, decision, prefix=self._prefix)
                self._tell(orphan, decision)

    async def sweep_async(self, asking: AskingSync) -> None:
        """As :meth:`sweep`, for a database of asyncio."""
        driver = cast(AsyncDriver, self._driver)
        for orphan in _old(await orphans_async(driver, prefix=self._prefix)):
            decision = await asyncio.to_thread(_decision, asking, orphan)
            if decision is not None:
                await finish_orphan_async(driver, orphan, decision, prefix=self._prefix)
                self._tell(orphan, decision)

    def _tell(self, orphan: Orphan, decision: Decision) -> None:
        _log.warning(
            "%s:%s:%s had been left prepared for %.0f s: %s",
            self._prefix,
            orphan.gid,
            orphan.branch,
            orphan.age,
            "committed" if decision == "commit" else "rolled back",
        )


def _sweep(owner: weakref.ref[Sweeps], asking: AskingSync) -> None:
    """Sweep again and again, as long as the participant is there."""
    time.sleep(_spread(FIRST))
    while (sweeps := owner()) is not None:
        try:
            sweeps.sweep(asking)
        except (UpkeepFailed, NodeError) as error:
            _complain(error)
        del sweeps
        time.sleep(_spread(EVERY))


async def _sweep_async(owner: weakref.ref[Sweeps], asking: AskingSync) -> None:
    """As :func:`_sweep`, with asyncio."""
    await asyncio.sleep(_spread(FIRST))
    while (sweeps := owner()) is not None:
        try:
            await sweeps.sweep_async(asking)
        except (UpkeepFailed, NodeError) as error:
            _complain(error)
        del sweeps
        await asyncio.sleep(_spread(EVERY))


def _complain(error: Exception) -> None:
    _log.warning("prepared transactions wait for the next sweep: %s", error)


def _old(found: list[Orphan]) -> list[Orphan]:
    return [orphan for orphan in found if orphan.age > YOUNG][:MOST]


def _decision(asking: AskingSync, orphan: Orphan) -> Decision | None:
    """
    What the log wants of an orphan.

    Raises:
        NodeError: It could not be asked.
    """
    ask = Ask(method="GET", path=f"/v1/transactions/{quote(orphan.gid, safe='')}")
    told: Told = asking.ask(ask)
    content = told.content if isinstance(told.content, dict) else {}
    if told.status == 200:
        return verdict(content["status"], orphan.age, GRACE)
    if content.get("code") == "unknown-transaction":
        return verdict(None, orphan.age, GRACE)
    raise NodeError(f"the node answered {told.status} for the transaction {orphan.gid}")


def _node() -> Node | None:
    try:
        return Node.of_environment()
    except NotRunning:
        return None


def _spread(seconds: float) -> float:
    return seconds * random.uniform(1 - _SPREAD, 1 + _SPREAD)
