"""
Fences as text: what a writer must still hold, as it was told when it acquired it.

A writer gives the text back in the header ``Unisono-Fence`` of a write, and the write happens only while the
holding exists. The text is opaque to clients.
"""

from __future__ import annotations

import base64
import binascii
import json

from starlette.requests import Request

from unisono.api.state.rooms import Rooms
from unisono.state.line import Place
from unisono.store.base import Compare

HEADER = "unisono-fence"
KINDS = ("lock", "semaphore", "election")


def fence_text(kind: str, name: str, place: Place) -> str:
    """What the holder is told."""
    said = json.dumps([kind, name, place.lease, place.token], separators=(",", ":"))
    return base64.urlsafe_b64encode(said.encode()).decode()


def fences_of(rooms: Rooms, request: Request) -> list[Compare]:
    """
    What a write's headers say must still be held.

    Raises:
        ValueError: One of them is malformed.
    """
    return [_fence(rooms, text) for text in request.headers.getlist(HEADER)]


def _fence(rooms: Rooms, text: str) -> Compare:
    try:
        kind, name, lease, token = json.loads(base64.urlsafe_b64decode(text.encode("ascii")))
        known = kind in KINDS and isinstance(name, str) and type(lease) is int and type(token) is int
    except (binascii.Error, ValueError, TypeError):
        known = False
    if not known:
        raise ValueError(f"{HEADER} is malformed: give it back just as it came")
    return rooms.holdings.place(kind, name, lease, token).fence
