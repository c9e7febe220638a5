"""
Where things stand in etcd: the store's keys, and the few that it needs for itself. Pure.

Under the store's prefix, say ``unisono``::

    unisono/data/KEY          what the store keeps
    unisono/data/             the mark: written to make a revision that every watch of the store sees
    unisono/write/CLIENT/N    what a client's last write on its N-th slot was (see :mod:`.writing`)

The mark can't be a key of the store, for those are not empty.
"""

from __future__ import annotations

from unisono.store.base import Entry
from unisono.store.etcd import wire_pb2 as wire


class Keys:
    """The places of one store."""

    def __init__(self, prefix: str) -> None:
        self._data = f"{prefix}/data/".encode()
        self._writes = f"{prefix}/write/".encode()
        self.mark = self._data

    def data(self, key: str) -> bytes:
        """Where the store's ``key`` is."""
        return self._data + key.encode()

    def under(self, prefix: str) -> tuple[bytes, bytes]:
        """First key and end of all that begin with ``prefix``, the mark left out."""
        first = self._data + prefix.encode()
        end = after_prefix(first)
        return (first if prefix else first + b"\0"), end

    def everything(self) -> tuple[bytes, bytes]:
        """First key and end of all of the store, the mark included."""
        return self._data, after_prefix(self._data)

    def slot(self, client: str, number: int) -> bytes:
        """The slot of a client."""
        return self._writes + f"{client}/{number}".encode()

    def slots(self) -> tuple[bytes, bytes]:
        """First key and end of all clients' slots."""
        return self._writes, after_prefix(self._writes)

    def name(self, raw: bytes) -> str:
        """The store's key that is at ``raw``."""
        return raw[len(self._data) :].decode(errors="replace")  # what is not ours must not stop us

    def entry(self, found: wire.KeyValue) -> Entry:
        """What etcd has, as an entry."""
        return Entry(
            key=self.name(found.key),
            value=found.value,
            created=found.create_revision,
            modified=found.mod_revision,
            lease=found.lease or None,
        )


def after_prefix(prefix: bytes) -> bytes:
    """
    The least key above all that begin with ``prefix``.

    No byte of UTF-8 is 0xff, so the last one can always be raised.
    """
    return prefix[:-1] + bytes([prefix[-1] + 1])
