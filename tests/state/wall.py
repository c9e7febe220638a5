"""A wall clock that jumps, and the bound that an oracle has saved."""

from __future__ import annotations

from tests.state.virtual import VirtualStore, now

HOUR = 3_600_000  # milliseconds
KEY = "state/shop/oracle"


class Wall:
    """A wall clock that runs with the loop, and jumps when told."""

    def __init__(self) -> None:
        self.offset = 1_700_000_000_000

    def __call__(self) -> int:
        return self.offset + int(now() * 1000)


async def saved_bound(store: VirtualStore) -> int:
    entry = await store.get(KEY)
    assert entry is not None
    bound = entry.value.split(b'"')[3]
    return int(bound)
