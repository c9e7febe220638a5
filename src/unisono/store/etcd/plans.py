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

from unisono.store.base import Compare, Delete, Field, Outcome, Put
from unisono.store.etcd import wire_pb2 as wire
from unisono.store.etcd.keys import Keys

_CHUNK = 60  # operations of one inner transaction


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
        unchanged = _slot_compare(slot)
        look = wire.Operation(range=wire.RangeRequest(key=slot.key))
        conditions = [self._compare(compare) for compare in compares]
        if not failure:
            # Both conditions in one list; if it does not hold, the slot itself tells which was at fault.
            return wire.TxnRequest(
                compare=[unchanged, *conditions],
                success=self._operations(slot, b"y", success),
                failure=[look],
            )
        inner = wire.TxnRequest(
            compare=conditions,
            success=self._operations(slot, b"y", success),
            failure=self._operations(slot, b"n", failure),
        )
        return wire.TxnRequest(compare=[unchanged], success=[wire.Operation(txn=inner)], failure=[look])

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
        return wire.TxnRequest(
            compare=[_slot_compare(slot)],
            success=[wire.Operation(put=wire.PutRequest(key=slot.key, value=self._record(b"f")))],
            failure=[wire.Operation(range=wire.RangeRequest(key=slot.key))],
        )

    def _record(self, what: bytes) -> bytes:
        return what + b" %d" % self._now()

    def _operations(
        self, slot: Slot, branch: bytes, operations: Sequence[Put | Delete]
    ) -> list[wire.Operation]:
        if not operations:
            return []
        record = wire.Operation(put=wire.PutRequest(key=slot.key, value=self._record(branch)))
        changes = [record, *_in_chunks([self._operation(operation) for operation in operations])]
        if _puts(operations):
            return changes
        absent = [self._absent(operation) for operation in operations if isinstance(operation, Delete)]
        return [wire.Operation(txn=wire.TxnRequest(compare=absent, failure=changes))]

    def _operation(self, operation: Put | Delete) -> wire.Operation:
        if isinstance(operation, Put):
            put = wire.PutRequest(
                key=self._keys.data(operation.key), value=operation.value, lease=operation.lease or 0
            )
            return wire.Operation(put=put)
        if operation.prefix:
            first, end = self._keys.under(operation.key)
            return wire.Operation(delete=wire.DeleteRequest(key=first, range_end=end))
        return wire.Operation(delete=wire.DeleteRequest(key=self._keys.data(operation.key)))

    def _absent(self, operation: Delete) -> wire.Compare:
        key, end = (
            self._keys.under(operation.key) if operation.prefix else (self._keys.data(operation.key), b"")
        )
        # Of a range it means: of each key in it. Keys that are there were made at a revision above 0.
        return wire.Compare(key=key, range_end=end, target=wire.Compare.CREATE, create_revision=0)

    def _compare(self, compare: Compare) -> wire.Compare:
        key = self._keys.data(compare.key)
        match compare.field, compare.target:
            case Field.VALUE, bytes(value):
                return wire.Compare(key=key, target=wire.Compare.VALUE, value=value)
            case Field.CREATED, int(revision):
                return wire.Compare(key=key, target=wire.Compare.CREATE, create_revision=_int64(revision))
            case Field.MODIFIED, int(revision):
                return wire.Compare(key=key, target=wire.Compare.MOD, mod_revision=_int64(revision))
        raise ValueError(f"a compare of {compare.field} with {compare.target!r}")


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


def _slot_compare(slot: Slot) -> wire.Compare:
    return wire.Compare(key=slot.key, target=wire.Compare.MOD, mod_revision=slot.modified)


def _puts(operations: Sequence[Put | Delete]) -> bool:
    return any(isinstance(operation, Put) for operation in operations)


def _in_chunks(operations: list[wire.Operation]) -> list[wire.Operation]:
    if len(operations) <= _CHUNK:
        return operations
    return [
        wire.Operation(txn=wire.TxnRequest(success=operations[at : at + _CHUNK]))
        for at in range(0, len(operations), _CHUNK)
    ]


def _int64(revision: int) -> int:
    """A revision that can't be is compared as one that never is."""
    return revision if 0 <= revision < 1 << 63 else -1
