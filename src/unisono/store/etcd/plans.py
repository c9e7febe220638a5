"""
A transaction of the store as one of etcd's, in such a form that its outcome can be told afterwards. Pure.

Each write is made on a *slot*, a key that only its client writes, and only one write at a time. The
transaction holds only while the slot was last changed at the revision that the client knows, and changes the
slot together with everything else. So afterwards the slot tells:

* it has a new revision: the write was done, at that revision; the value says which list ran;
* it has not, and neither will it: see :meth:`Planner.fence`, which changes the slot itself. A copy of the
  write that is still under way then finds the slot changed, and does nothing.

A list that changes nothing leaves the slot alone, for revisions tell of changes only; whether it ran makes no
difference then. A list of removals changes something only if one of its keys is there, which etcd finds out.

etcd counts operations per transaction, 128 by default, but a transaction can hold others: long lists go into
several.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from unisono.store.base import Compare, Delete, Field, Outcome, Put
from unisono.store.etcd import wire_pb2 as wire
from unisono.store.etcd.keys import Keys

_CHUNK = 60  # operations of one inner transaction

_Operations = Any  # a repeated field of wire.Operation, whose type protobuf does not name in public


@dataclass(slots=True)
class Slot:
    """A key that one client writes; ``modified`` is the revision at which it did so last, 0: never."""

    key: bytes
    modified: int = 0


class Planner:
    """
    Makes transactions.

    Args:
        now: Seconds since 1970, written into slots for those who tidy up after this client.
    """

    def __init__(self, keys: Keys, now: Callable[[], float]) -> None:
        self._keys = keys
        self._now = now

    def request(
        self,
        slot: Slot,
        compares: Sequence[Compare],
        success: Sequence[Put | Delete],
        failure: Sequence[Put | Delete],
    ) -> wire.TxnRequest:
        """The transaction on a slot."""
        # Filled in place: a message made of finished parts copies each of them.
        request = wire.TxnRequest()
        _unchanged(request.compare.add(), slot)
        request.failure.add().range.key = slot.key
        inner = request
        if failure:
            inner = request.success.add().txn
            inner.SetInParent()
            self._fill(inner.failure, slot, b"n", failure)
        # Without another list both conditions stand in one; the slot itself then tells which was at fault.
        for compare in compares:
            self._compare(inner.compare.add(), compare)
        self._fill(inner.success, slot, b"y", success)
        return request

    def outcome(
        self,
        slot: Slot,
        answer: wire.TxnResponse,
        success: Sequence[Put | Delete],
        failure: Sequence[Put | Delete],
    ) -> Outcome | None:
        """
        What the answer says, and what the slot is now; ``None`` if the slot was not as it was thought to be,
        so that nothing happened.
        """
        revision = answer.header.revision
        if not answer.succeeded:
            found = answer.responses[0].range.kvs
            modified = found[0].mod_revision if found else 0
            if failure or modified != slot.modified:
                slot.modified = modified
                return None
            return Outcome(succeeded=False, revision=revision)
        responses = answer.responses
        succeeded = True
        if failure:
            succeeded = responses[0].txn.succeeded
            responses = responses[0].txn.responses
        ran = success if succeeded else failure
        # A list of removals stands in a transaction of its own, whose condition is that nothing is there.
        if _puts(ran) or (ran and not responses[0].txn.succeeded):
            slot.modified = revision
        return Outcome(succeeded=succeeded, revision=revision)

    def fence(self, slot: Slot) -> wire.TxnRequest:
        """Change the slot unless the write on it was done; see :func:`settled`."""
        request = wire.TxnRequest()
        _unchanged(request.compare.add(), slot)
        self._record(request.success.add(), slot, b"f")
        request.failure.add().range.key = slot.key
        return request

    def _fill(self, into: _Operations, slot: Slot, branch: bytes, operations: Sequence[Put | Delete]) -> None:
        """One list, with the record of it; nothing for a list that changes nothing."""
        if not operations:
            return
        if not _puts(operations):
            inner = into.add().txn
            for operation in operations:
                self._absent(inner.compare.add(), operation)
            into = inner.failure
        self._record(into.add(), slot, branch)
        for at in range(0, len(operations), _CHUNK):
            target = into.add().txn.success if len(operations) > _CHUNK else into
            for operation in operations[at : at + _CHUNK]:
                self._operation(target.add(), operation)

    def _record(self, into: wire.Operation, slot: Slot, what: bytes) -> None:
        into.put.key = slot.key
        into.put.value = what + b" %d" % self._now()

    def _operation(self, into: wire.Operation, operation: Put | Delete) -> None:
        if isinstance(operation, Put):
            put = into.put
            put.key = self._keys.data(operation.key)
            put.value = operation.value
            put.lease = operation.lease or 0
        else:
            into.delete.key, into.delete.range_end = self._range(operation)

    def _absent(self, into: wire.Compare, operation: Put | Delete) -> None:
        # Of a range it means: of each key in it. Keys that are there were made at a revision above 0.
        into.key, into.range_end = self._range(operation)
        into.target = wire.Compare.CREATE
        into.create_revision = 0

    def _range(self, operation: Put | Delete) -> tuple[bytes, bytes]:
        """The key of an operation, or first key and end of all that it names."""
        if isinstance(operation, Delete) and operation.prefix:
            return self._keys.under(operation.key)
        return self._keys.data(operation.key), b""

    def _compare(self, into: wire.Compare, compare: Compare) -> None:
        into.key = self._keys.data(compare.key)
        match compare.field, compare.target:
            case Field.VALUE, bytes(value):
                into.target, into.value = wire.Compare.VALUE, value
            case Field.CREATED, int(revision):
                into.target, into.create_revision = wire.Compare.CREATE, _int64(revision)
            case Field.MODIFIED, int(revision):
                into.target, into.mod_revision = wire.Compare.MOD, _int64(revision)


def settled(slot: Slot, answer: wire.TxnResponse) -> Outcome | None:
    """
    What became of a write whose outcome was unknown, told by the answer to a fence; ``None``: not done, ever.

    Raises:
        LookupError: The slot is gone: somebody else removed it, and nobody can tell.
    """
    if answer.succeeded:
        slot.modified = answer.header.revision
        return None
    found = answer.responses[0].range.kvs
    if not found:
        slot.modified = 0
        raise LookupError
    slot.modified = found[0].mod_revision
    if found[0].value.startswith(b"f"):
        return None  # an earlier fence, whose own answer was lost
    return Outcome(succeeded=found[0].value.startswith(b"y"), revision=found[0].mod_revision)


def written_at(record: bytes) -> int:
    """When a slot's record was written, in seconds since 1970; 0 if it is not one of ours."""
    stamp = record[2:]
    return int(stamp) if stamp.isdigit() else 0


def _unchanged(into: wire.Compare, slot: Slot) -> None:
    into.key = slot.key
    into.target = wire.Compare.MOD
    into.mod_revision = slot.modified


def _puts(operations: Sequence[Put | Delete]) -> bool:
    return any(isinstance(operation, Put) for operation in operations)


def _int64(revision: int) -> int:
    """A revision that can't be is compared as one that never is."""
    return revision if 0 <= revision < 1 << 63 else -1
