"""
What scripts and services import to talk to a node. Needs nothing but the standard library.

Most is loaded when it is first used: HTTP is a third of a short command's time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from unisono.client.errors import Aborted, BranchRefused, InDoubt, MaybeDone, NodeError, NotRunning, Refused

if TYPE_CHECKING:
    from unisono.client import participant, sync
    from unisono.client.node import NodeClient
    from unisono.client.transactions import Branch, message, submit, transaction

__all__ = [
    "Aborted",
    "Branch",
    "BranchRefused",
    "InDoubt",
    "MaybeDone",
    "NodeClient",
    "NodeError",
    "NotRunning",
    "Refused",
    "message",
    "participant",
    "submit",
    "sync",
    "transaction",
]

# What is loaded when it is first used, and where it is.
_LATER = {
    "Branch": "transactions",
    "NodeClient": "node",
    "message": "transactions",
    "submit": "transactions",
    "transaction": "transactions",
}
_ROOMS = ("participant", "sync")


def __getattr__(name: str) -> Any:
    from importlib import import_module  # noqa: PLC0415 - see above

    if name in _ROOMS:
        return import_module(f"{__name__}.{name}")
    if name in _LATER:
        return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
