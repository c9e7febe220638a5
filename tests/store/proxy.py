"""
A wire between a client and a server that can be cut, lose what the server answers, and deliver late.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from tests.ports import free_port


class Wire:
    """Listens at ``endpoint`` and passes everything on, as long as nothing else is said."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self.port = free_port()
        self.deaf = False  # answers go nowhere
        self.cut = False  # nothing goes through, and nobody gets in
        self.hold = False  # what the client sends waits here for :meth:`deliver`
        self._held: list[tuple[asyncio.StreamWriter, bytes]] = []
        self._writers: set[asyncio.StreamWriter] = set()
        self._clients: set[asyncio.StreamWriter] = set()

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.port}"

    def hang_up(self) -> None:
        """End all connections."""
        for writer in tuple(self._writers):
            writer.transport.abort()

    @property
    def holds(self) -> int:
        """Bytes that wait."""
        return sum(len(data) for _, data in self._held)

    def leave_client(self) -> None:
        """End the client's side of all connections; what is held can still be delivered."""
        for writer in tuple(self._clients):
            writer.transport.abort()

    async def deliver(self) -> None:
        """Give the server what was held."""
        for writer, data in self._held:
            writer.write(data)
            await writer.drain()
        self._held.clear()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.cut:
            writer.transport.abort()
            return
        there, back = await asyncio.open_connection(*self._target)
        pair = {writer, back}
        self._writers |= pair
        self._clients.add(writer)
        try:
            with suppress(OSError, asyncio.CancelledError):
                await asyncio.gather(self._pass(reader, back), self._pass(there, writer, answers=True))
        finally:
            self._clients.discard(writer)
            if not self.hold:
                self._writers -= pair
                for one in pair:
                    one.transport.abort()

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool = False
    ) -> None:
        while data := await reader.read(65_536):
            if self.hold and not answers:
                self._held.append((writer, data))
            elif not (answers and self.deaf):
                writer.write(data)
                await writer.drain()
        if not self.hold:
            writer.transport.abort()


@asynccontextmanager
async def wire(target: str) -> AsyncIterator[Wire]:
    """A wire to ``target`` while the block lasts."""
    made = Wire(target)
    server = await asyncio.start_server(made.serve, "127.0.0.1", made.port)
    try:
        yield made
    finally:
        server.close()
        made.hang_up()
