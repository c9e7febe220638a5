"""What scripts and services import to talk to a node. Needs nothing but the standard library."""

from unisono.client.node import MaybeDone, NodeClient, NodeError, NotRunning, Refused

__all__ = ["MaybeDone", "NodeClient", "NodeError", "NotRunning", "Refused"]
