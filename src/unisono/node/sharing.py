"""
Which tables of shared memory a node keeps: those of the applications that it runs instances of.

Pure. Keeping them is :mod:`unisono.state.shared_memory`'s, what an application wants
:mod:`unisono.spec.shared`'s.
"""

from __future__ import annotations

from collections.abc import Iterable

from unisono.control.snapshot import Snapshot
from unisono.node.paths import StateFolder
from unisono.state.shared_memory import Table


def sizes(known: Snapshot, applications: Iterable[str]) -> dict[tuple[str, str], int]:
    """The size of each table that these want, by application and prefix, as the newest revisions say it."""
    among = frozenset(applications)
    found: dict[tuple[str, str], int] = {}
    for (application, _), view in known.services.items():
        if application in among and view.current_spec is not None:
            for table in view.current_spec.shared:
                key = (application, table.prefix)
                found[key] = max(table.size, found.get(key, 0))
    return found


def tables(
    known: Snapshot, node_id: str, folder: StateFolder, limit: int
) -> tuple[frozenset[Table], tuple[Table, ...]]:
    """
    The tables that this node keeps, and those for which there is no room within ``limit`` bytes.

    An application is told when it is applied that there is none; this is for a limit that was lowered since.
    """
    here = {
        application
        for (application, _), view in known.services.items()
        if any(instance.node == node_id for instance in view.instances.values())
    }
    kept: set[Table] = set()
    left: list[Table] = []
    for (application, prefix), size in sorted(sizes(known, here).items()):
        path = folder.shared_table(application, prefix)
        table = Table(namespace=application, prefix=prefix, path=path, size=size)
        if sum(one.size for one in kept) + size <= limit:
            kept.add(table)
        else:
            left.append(table)
    return frozenset(kept), tuple(left)
