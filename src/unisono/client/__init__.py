"""
What scripts and services import to talk to a node. Needs nothing but the standard library.

``NodeClient`` is loaded when it is first used: HTTP is a third of a short command's time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from unisono.client.errors import MaybeDone, NodeError, NotRunning, Refused

if TYPE_CHECKING:
    from unisono.client.node import NodeClient

__all__ = ["MaybeDone", "NodeClient", "NodeError", "NotRunning", "Refused"]


def __getattr__(name: str) -> Any:
    if name == "NodeClient":
        from unisono.client.node import NodeClient  # noqa: PLC0415 - see above

        return NodeClient
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
