"""Streams: how they end, and how several become one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from unisono.api import streams


async def endless(closed: list[str], name: str = "x") -> AsyncIterator[str]:
    try:
        yield name
        await asyncio.Event().wait()
    finally:
        closed.append(name)


async def finite(*items: str) -> AsyncIterator[str]:
    for item in items:
        yield item


async def test_until_ends_when_told() -> None:
    """A stream without end ends when it is told to, and its source is closed."""
    stop, closed = asyncio.Event(), list[str]()
    found = []
    async for item in streams.until(stop, endless(closed)):
        found.append(item)
        stop.set()

    assert (found, closed) == (["x"], ["x"])


async def test_until_ends_with_its_source() -> None:
    """A stream ends when there is no more."""
    assert [item async for item in streams.until(asyncio.Event(), finite("a", "b"))] == ["a", "b"]


async def test_merged_gives_everything() -> None:
    """What several streams give comes out once each, in each one's order."""
    found = [item async for item in streams.merged([finite("a1", "a2"), finite("b1", "b2", "b3")])]

    assert [item for item in found if item[0] == "a"] == ["a1", "a2"]
    assert [item for item in found if item[0] == "b"] == ["b1", "b2", "b3"]


async def test_merged_closes_its_sources() -> None:
    """Who stops reading leaves no source open."""
    closed = list[str]()
    merged = streams.merged([endless(closed, "a"), endless(closed, "b")])
    await anext(merged)
    await merged.aclose()  # type: ignore[attr-defined]

    assert sorted(closed) == ["a", "b"]


async def test_merged_passes_on_a_failure() -> None:
    """A source that fails ends the stream with its error."""

    async def failing() -> AsyncIterator[str]:
        raise OSError("gone")
        yield ""

    with pytest.raises(ExceptionGroup, match="unhandled") as raised:
        [item async for item in streams.merged([failing()])]

    assert raised.group_contains(OSError, match="gone")


@pytest.mark.parametrize(
    ("kind", "id", "text"),
    [
        (None, None, b"data: {}\n\n"),
        ("removed", None, b"event: removed\ndata: {}\n\n"),
        ("application", 3, b"id: 3\nevent: application\ndata: {}\n\n"),
    ],
)
def test_event(kind: str | None, id: int | None, text: bytes) -> None:
    """An event is written as the HTML standard has it."""
    assert streams.event(b"{}", kind=kind, id=id) == text
