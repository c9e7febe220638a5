"""
The store on one machine: SQLite behind the promise of :mod:`unisono.store.base`.

``SqliteStore`` is the whole face; what is kept how is in :mod:`.file`, who commits when in :mod:`.writer`.
"""

from unisono.store.sqlite.store import SqliteStore

__all__ = ["SqliteStore"]
