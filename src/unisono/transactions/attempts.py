"""
One attempt at an operation of a branch: it waits for its turn at the participant, is sent, and is answered.

What goes over the wire is :func:`request`, after the contract (docs/reference/transactions-api.md, "Being
called"). When an attempt is made, and what follows from its answer, is :mod:`.running`'s and the machine's;
how it travels :mod:`.calls`', and what an answer means :mod:`.answers`'.
"""

from __future__ import annotations

import time
from typing import Protocol

from unisono.transactions.answers import meaning
from unisono.transactions.calls import Reply
from unisono.transactions.machine import Transaction
from unisono.transactions.modes import QUESTION
from unisono.transactions.records import Record
from unisono.transactions.runtime import Runtime
from unisono.transactions.states import OPEN, Answer, Branch
from unisono.transactions.targets import Address

CALL_SECONDS = 5.0
"""How long one call may take; before the decision at most until the deadline."""
_LEAST_SECONDS = 0.01  # of a call that is made just before the deadline


class Carried(Protocol):
    """The transaction that an attempt is made for: what is asked of it, and what it is told."""

    machine: Transaction
    record: Record
    epoch: int
    gone: bool

    def left(self) -> float:
        """Seconds until the deadline; of one that is not decided."""
        ...

    def body(self, branch: Branch, op: str) -> bytes:
        """What a branch is sent."""
        ...

    def withdraw(self, attempt: Attempt) -> None:
        """It has not left, and is not wanted any more."""
        ...

    def finish(self, attempt: Attempt) -> None:
        """It is not under way any more."""
        ...

    def take(self, branch: Branch, op: str, answer: Answer, note: str, pause: float) -> None:
        """It was answered; ``pause``: seconds until the same is called again, if that has to be."""
        ...


class Attempt:
    """
    A call that waits or is under way; a :class:`unisono.transactions.participants.Job`.

    ``made``: it has left; ``dead``: it waits in vain, and takes no place when its turn comes.
    """

    __slots__ = ("_running", "_runtime", "_since", "address", "branch", "dead", "made", "op")

    def __init__(self, running: Carried, runtime: Runtime, branch: Branch, op: str, address: Address) -> None:
        self._running = running
        self._runtime = runtime
        self._since = 0.0
        self.branch = branch
        self.op = op
        self.address = address
        self.made = False
        self.dead = False

    def start(self) -> bool:
        """Its turn has come; ``False`` if it is not wanted any more."""
        if self.dead:
            return False
        running, runtime, branch, op = self._running, self._runtime, self.branch, self.op
        machine = running.machine
        if not machine.wants(branch, op):
            # While a decision is being written it may not leave, in case that is another one, and is looked
            # after when that is durable; if the write fails all is dropped.
            if machine.writing is None:
                running.withdraw(self)
            return False
        timeout, address = CALL_SECONDS, self.address
        if op != QUESTION:
            address = address.below(op)
            if machine.status in OPEN:
                timeout = min(timeout, max(_LEAST_SECONDS, running.left()))
        self.made = True
        self._since = time.perf_counter()
        machine.sent(branch, op)
        sent = request(
            running.record,
            branch.id,
            op,
            running.body(branch, op),
            epoch=running.epoch,
            stamp=runtime.stamp(),
            timeout=timeout,
        )
        runtime.caller.call(address, sent, timeout, self.ended)
        return True

    def ended(self, reply: Reply) -> None:
        """It was answered, or came to nothing."""
        running, runtime, branch = self._running, self._runtime, self.branch
        means = meaning(reply)
        runtime.participants.at(self.address).ended(answered=means.answered)
        runtime.counts.answers[means.answer] += 1
        if running.gone:
            return
        running.finish(self)
        took_ms = (time.perf_counter() - self._since) * 1000
        running.record.note(
            runtime.now(),
            branch.id,
            self.op,
            means.answer,
            status=reply.status,
            took_ms=took_ms,
            note=means.note,
        )
        if means.answer is Answer.DONE and means.data is not None:
            branch.reply = means.data
        elif means.answer is Answer.NO:
            branch.problem = means.data
        running.take(branch, self.op, means.answer, means.note, means.pause)


def request(
    record: Record, branch: str, op: str, body: bytes, *, epoch: int, stamp: int, timeout: float
) -> bytes:
    """What goes over the wire, but for the line of the method and the Host header; ``timeout`` in seconds."""
    trace = f"traceparent: {record.traceparent}\r\n" if record.traceparent else ""
    return (
        f"Content-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n"
        f"Transaction-Id: {record.gid}\r\n"
        f"Transaction-Branch: {branch}\r\n"
        f"Transaction-Op: {op}\r\n"
        f"Transaction-Mode: {record.mode}\r\n"
        f"Transaction-Epoch: {epoch}\r\n"
        f"Transaction-Began: {int(record.began * 1000)}\r\n"
        f"Idempotency-Key: {record.gid}/{branch}/{op}\r\n"
        f"Deadline-Ms: {int(timeout * 1000)}\r\n"
        f"unisono-clock: {stamp:016x}\r\n"
        f"{trace}\r\n"
    ).encode() + body
