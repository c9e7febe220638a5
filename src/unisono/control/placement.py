"""
Which node gets a new instance.

Today one node is known and gets all; several already share by number. Weighing CPU, memory and past
failures of a node belongs here, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from unisono.control.records import NodeRecord


def choose_node(nodes: Mapping[str, NodeRecord], placed: Iterable[str]) -> str | None:
    """
    The node with the fewest instances, the first by id among equals; None while no node is known.

    ``placed`` names the node of each instance there is.
    """
    load = dict.fromkeys(nodes, 0)
    for node in placed:
        if node in load:
            load[node] += 1
    return min(load, key=lambda id: (load[id], id), default=None)
