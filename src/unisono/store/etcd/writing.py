"""
Writes: each is sent once, and one whose answer is lost is found out about before anything else is done.

What is sent, and how its outcome is told afterwards, is :mod:`.plans`'; here it is sent, and slots are kept.
A write that is *known* not to have happened, and never to happen, is made again within PATIENCE: that
repeats nothing. Only when no member answers any more does the caller get MaybeDone.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Sequence

from unisono.store.base import Compare, Delete, LeaseEnded, MaybeDone, NotDone, Outcome, Put, StoreError
from unisono.store.etcd import wire_pb2 as wire
from unisono.store.etcd.connection import CallFailed, Connection, Patience
from unisono.store.etcd.failures import Failure
from unisono.store.etcd.keys import Keys
from unisono.store.etcd.order import Order
from unisono.store.etcd.plans import Planner, Slot, settled, written_at

SLOTS_MAX = 256  # writes under way; more wait here
_FORGOTTEN_SECONDS = 7 * 86_400  # a slot nobody wrote for so long is removed
_SWEEP_MAX = 100  # slots at a time


class Writer:
    """Sends transactions, many at a time, those on the same key in order."""

    def __init__(self, connection: Connection, keys: Keys, order: Order) -> None:
        self._connection = connection
        self._keys = keys
        self._order = order
        self._planner = Planner(keys, time.time)
        self._client = secrets.token_hex(8)
        self._free: list[Slot] = []
        self._made = 0
        self._places = asyncio.Semaphore(SLOTS_MAX)

    async def transact(
        self, compares: Sequence[Compare], success: Sequence[Put | Delete], failure: Sequence[Put | Delete]
    ) -> Outcome:
        """See :meth:`unisono.store.base.Store.transact`. Must not be cancelled: that would lose a slot."""
        operations = (*success, *failure)
        everything = any(isinstance(operation, Delete) and operation.prefix for operation in operations)
        leases = {operation.lease for operation in operations if isinstance(operation, Put)} - {None}
        turn = self._order.enter({operation.key for operation in operations}, leases, everything=everything)
        try:
            if turn.before:
                await turn.come()
            async with self._places:
                slot = self._free.pop() if self._free else self._new_slot()
                outcome = await self._on_slot(slot, compares, success, failure)
                self._free.append(slot)  # not after a failure that leaves it in doubt
        finally:
            self._order.leave(turn)
        if isinstance(outcome, Outcome):
            return outcome
        raise outcome

    async def sweep(self) -> None:
        """Remove slots of clients long gone. Removing one of a client that is not only costs it a try."""
        first, end = self._keys.slots()
        answer = await self._connection.ask("range", wire.RangeRequest(key=first, range_end=end, limit=1000))
        before = time.time() - _FORGOTTEN_SECONDS
        for found in [kv for kv in answer.kvs if written_at(kv.value) < before][:_SWEEP_MAX]:
            unchanged = wire.Compare(key=found.key, target=wire.Compare.MOD, mod_revision=found.mod_revision)
            delete = wire.Operation(delete=wire.DeleteRequest(key=found.key))
            await self._connection.ask("txn", wire.TxnRequest(compare=[unchanged], success=[delete]))

    async def _on_slot(
        self,
        slot: Slot,
        compares: Sequence[Compare],
        success: Sequence[Put | Delete],
        failure: Sequence[Put | Delete],
    ) -> Outcome | StoreError | ValueError:
        """
        The outcome, or an error that leaves the slot known.

        Raises:
            MaybeDone: Nobody answers; the slot is in doubt.
        """
        patience = Patience()
        while True:
            try:
                request = self._planner.request(slot, compares, success, failure)
                answer = await self._connection.once("txn", request)
            except CallFailed as failed:
                if failed.failure is Failure.LEASE_GONE:
                    return self._lease_ended(success, failure)
                if failed.failure is Failure.UNKNOWN:
                    outcome = await self._settle(slot, failed)
                    if outcome is not None:
                        return outcome
                error = NotDone(self._connection.silence(failed))
            except (StoreError, ValueError) as refused:
                return refused
            else:
                outcome = self._planner.outcome(slot, answer, success, failure)
                if outcome is not None:
                    return outcome
                error = NotDone("the record of this client's writes was removed again and again: try again")
            if not await patience.pause():
                return error

    async def _settle(self, slot: Slot, failed: CallFailed) -> Outcome | None:
        """What became of a write that had no answer; ``None``: it did not happen, and never will."""
        patience = Patience()
        while True:
            try:
                answer = await self._connection.once("txn", self._planner.fence(slot))
                return settled(slot, answer)
            except CallFailed as error:
                failed = error
            except LookupError:
                raise MaybeDone("the record of this write was removed before it could be read") from None
            except (StoreError, ValueError) as error:
                raise MaybeDone(f"what became of a write can't be found out: {error}") from error
            if not await patience.pause():
                raise MaybeDone(self._connection.silence(failed)) from failed

    def _new_slot(self) -> Slot:
        self._made += 1
        return Slot(key=self._keys.slot(self._client, self._made))

    @staticmethod
    def _lease_ended(success: Sequence[Put | Delete], failure: Sequence[Put | Delete]) -> LeaseEnded:
        """etcd does not say which lease: with several, the first is named."""
        leases = [o.lease for o in (*success, *failure) if isinstance(o, Put) and o.lease is not None]
        return LeaseEnded(leases[0])
