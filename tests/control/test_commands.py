"""Commands that meet each other, or the controller, on their way; and what a refusal is."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.control.asking import apply, finish, service_of
from tests.control.factories import APP, application, spec
from unisono.control import commands
from unisono.control.errors import CommandError
from unisono.spec.model import Route
from unisono.store.sqlite import SqliteStore


async def test_commands_follow_one_another(store: SqliteStore) -> None:
    """Applied at the same time, two applications still get different ports, and one of two routes wins."""
    asked = [application(spec(routes=(Route(path="/x"),)), name=f"app{n}") for n in range(5)]

    results = await asyncio.gather(*(apply(store, a) for a in asked), return_exceptions=True)

    assert sorted(type(r).__name__ for r in results) == ["Conflict"] * 4 + ["Plan"]


async def test_a_change_in_between_is_not_lost(store: SqliteStore) -> None:
    """A controller's write between reading and writing makes a command read again, and keeps both."""
    await apply(store, application(spec()))
    interfering = _Interfering(store)

    scaled = await commands.scale(interfering, APP, "web", 3)  # type: ignore[arg-type]

    assert (scaled.stable, scaled.replicas) == (1, 3)
    assert await service_of(store) == scaled


class _Interfering:
    """A store in front of which a controller is quicker, once."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store
        self._done = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def transact(self, **arguments: Any) -> Any:
        if not self._done:
            self._done = True
            await finish(self._store)
        return await self._store.transact(**arguments)


async def test_a_refusal_is_a_command_error(store: SqliteStore) -> None:
    """Callers need to catch one type, and get what was found and wanted."""
    with pytest.raises(CommandError) as caught:
        await commands.remove(store, "nothing")

    assert caught.value.found == "nothing"
