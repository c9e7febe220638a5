"""
What the gateway tells of instances, brought to those who run them.

The gateway sees an instance fail before any probe does: each request is one. It says so at once; the
instance is then probed at once, and what follows is the health rules' (:mod:`unisono.node.lifecycle`). The
gateway's word alone ends nobody: one that is set aside again and again and answers its probes lives on, for
it may be the requests that are bad.

Who probes is :mod:`unisono.node.actor`'s; reading the events :mod:`unisono.gateway.link`'s.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Protocol

from unisono.gateway.errors import GatewayError
from unisono.gateway.link import GatewayEvent

_log = logging.getLogger(__name__)

TOLD_SECONDS = 10.0
"""The same of the same instance is written down once in this time: a gateway sees more than people read."""

_AGAIN_SECONDS = 0.2  # until a gateway that is gone is listened to again
_REMEMBERED_MAX = 10_000

_KINDS = {
    "target-suspect": "instance-suspect",
    "target-ejected": "instance-ejected",
    "target-returned": "instance-returned",
    "no-target": "service-unserved",
}


class Speaker(Protocol):
    """A gateway that can be listened to."""

    def events(self) -> AsyncGenerator[GatewayEvent, None]:
        """
        What it sees, without end.

        Raises:
            unisono.gateway.errors.GatewayError: It is gone; call again.
        """


class Hearing:
    """Listens to the gateway for as long as :meth:`run` runs."""

    def __init__(
        self,
        speaker: Speaker,
        *,
        heed: Callable[[GatewayEvent], None],
        tell: Callable[[str, GatewayEvent], None],
        clock: Callable[[], float],
    ) -> None:
        """``heed`` does what an event asks for; ``tell`` writes it down, as the given kind of happening."""
        self._speaker = speaker
        self._heed = heed
        self._tell = tell
        self._clock = clock
        self._told: dict[tuple[str, str, str | None], float] = {}

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                async with aclosing(self._speaker.events()) as events:
                    async for event in events:
                        self._hear(event)
            except (GatewayError, OSError) as error:
                _log.debug("the gateway can't be listened to: %s", error)
            await asyncio.sleep(_AGAIN_SECONDS)

    def _hear(self, event: GatewayEvent) -> None:
        self._heed(event)
        kind = _KINDS.get(event.kind)
        if kind is None:
            return  # its exit is seen by whoever runs it, and words that came later say nothing to us
        now, what = self._clock(), (kind, event.service, event.instance)
        if now - self._told.get(what, float("-inf")) < TOLD_SECONDS:
            return
        if len(self._told) >= _REMEMBERED_MAX:
            self._told.clear()
        self._told[what] = now
        self._tell(kind, event)
