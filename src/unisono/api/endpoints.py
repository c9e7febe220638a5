"""
The addresses at which the API answers: listened at from the start, served once there is time for it.

The frameworks of the API take longer to import than all the rest of a node. So its sockets are there at
once - an address in use is told before anything runs, and whoever connects waits - and what serves them
is imported afterwards, beside the node's own work.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from unisono.api.listeners import Endpoint

if TYPE_CHECKING:
    from unisono.api.context import Context
    from unisono.api.server import Server


class Endpoints:
    """Serves the API of a node at some sockets, from :meth:`run` until :meth:`end`."""

    def __init__(self, context: Context, endpoints: Sequence[Endpoint]) -> None:
        self.listening = asyncio.Event()
        self._context = context
        self._endpoints = endpoints
        self._ending = asyncio.Event()

    async def run(self) -> None:
        """
        Serve until ended, then answer what has been accepted.

        Cancelling it breaks off what is being answered.
        """
        # In a thread, so that the node meanwhile sees an instance's end as soon as ever.
        frameworks = await asyncio.to_thread(importlib.import_module, "unisono.api.server")
        states = self._context.states
        try:
            servers: list[Server] = await frameworks.servers(self._context, self._endpoints)
            await states.begin()
            async with asyncio.TaskGroup() as tasks:
                for server in servers:
                    tasks.create_task(server.run_until_ended())
                for server in servers:
                    await server.listening.wait()
                self.listening.set()
                await self._ending.wait()
                await states.close()
                for server in servers:
                    server.end()
        finally:
            if states.plane is not None:
                await states.plane.close()

    def end(self) -> None:
        """Accept no more, answer what has been accepted."""
        self._ending.set()
