"""
Transactions over services, from their initiator's side, with asyncio; without it they are in ``client.sync``.

    async with client.transaction("tcc", timeout=10) as t:
        taken, paid = await asyncio.gather(t.call("http://stock/item", 7), t.call("http://pay/take", order))

Leaving the block commits, an exception aborts. A whole saga can be submitted at once instead: :func:`submit`.
What is asked is decided by generators that know no connection; every request may be repeated, since it
carries the transaction's gid, and is, until the answer is known or time is up: then it is InDoubt.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

from unisono.client.asking import Asking, carry_out
from unisono.client.errors import Aborted, BranchRefused, InDoubt, MaybeDone, NodeError, NotRunning, Refused
from unisono.client.questions import Ask, Node, Pause, Steps, Told, node_of

Mode = Literal["saga", "tcc", "xa", "msg"]

TIMEOUT = 30.0  # seconds until a transaction must be decided
GRACE = 15.0  # seconds to learn what was decided, after it must have been
ABORT_WAIT = 5.0  # seconds that leaving a block by an exception may wait for the abort
_WAIT_MS = 30_000
_LOOK_MS = 200
_PAUSE = 0.1
_UNKNOWN, _ELSEWHERE = 404, 421  # statuses

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Branch:
    """A branch of a transaction that is submitted whole; ``after``: those that must have gone forward."""

    url: str
    payload: Any = None
    id: str = ""
    after: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a transaction stands: committed for good, though branches may still be told."""

    gid: str
    status: str
    replies: Mapping[str, Any]  # what the forward calls answered, by branch


def new_gid() -> str:
    """A gid that no other transaction has: a UUIDv7 (RFC 9562), so that gids sort by time."""
    number = (time.time_ns() // 1_000_000) << 80 | 7 << 76 | 2 << 62
    number |= int.from_bytes(os.urandom(10)) & ((0xFFF << 64) | ((1 << 62) - 1))
    text = f"{number:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


# -- with asyncio --------------------------------------------------------------------------------------


class Transaction:
    """
    One transaction whose branches are enrolled as it goes; made by :func:`transaction`.

    ``gid`` is there from the start, ``status`` once the block was left.
    """

    def __init__(self, plan: Plan, node: Node) -> None:
        self.plan = plan
        self._asking = Asking(node)

    @property
    def gid(self) -> str:
        """The transaction's id."""
        return self.plan.gid

    @property
    def status(self) -> str:
        """How it stood when it was last told of."""
        return self.plan.status

    async def call(
        self, url: str, payload: Any = None, *, id: str | None = None, after: Sequence[str] = ()
    ) -> Any:
        """
        Enrol a branch and call it forward; what it answered. Several may be called at once.

        Args:
            url: Where the participant answers: ``http://SERVICE/PATH`` for a service of the application.
            payload: Any JSON, for all operations of the branch.
            id: The branch's name, unique in the transaction; ``b1``, ``b2`` and so on by default.
            after: Branches that must have gone forward first, and are undone later.

        Raises:
            BranchRefused: It said no. The transaction aborts.
            Aborted: The transaction is over, perhaps because another branch said no or time was up.
            Refused: The request is wrong; nothing was done.
            InDoubt: The node could not be asked until the deadline.
        """
        return await carry_out(self._asking, self.plan.call(url, payload, id, after))

    async def __aenter__(self) -> Self:
        await carry_out(self._asking, self.plan.begin())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                await carry_out(self._asking, self.plan.commit())
            elif self.plan.mode != "msg":
                await asyncio.shield(self._abort())
        finally:
            self._asking.close()

    async def _abort(self) -> None:
        """Tell the node; if it can't be told, the deadline aborts."""
        with suppress(NodeError, TimeoutError):
            async with asyncio.timeout(ABORT_WAIT):
                await carry_out(self._asking, self.plan.abort())


def transaction(
    mode: Mode,
    *,
    timeout: float = TIMEOUT,
    gid: str | None = None,
    api: str | None = None,
    namespace: str | None = None,
) -> Transaction:
    """
    A transaction for ``async with``: leaving the block commits, an exception aborts and goes on.

    Args:
        mode: "tcc", "xa" or "saga".
        timeout: Seconds until it must be decided, 0.001 to 86400; then it aborts by itself.
        gid: Its name, to ask for it again after a crash; a new one by default.
        api: Where the node answers, ``unix:/PATH`` or ``http://HOST:PORT``; by default from the environment.
        namespace: The application, for an operator's socket.

    Raises (at the end of the block):
        Aborted: It did not happen, on any branch.
        InDoubt: It may have happened: ask for the gid later, and do not begin it anew.
    """
    return Transaction(Plan(mode=mode, timeout=timeout, gid=gid or new_gid()), node_of(api, namespace))


def message(
    query_prepared: str,
    branches: Sequence[Branch],
    *,
    timeout: float = TIMEOUT,
    gid: str | None = None,
    api: str | None = None,
    namespace: str | None = None,
) -> Transaction:
    """
    Actions that happen if a transaction of one's own database commits within ``async with``.

    Record the message's ``gid`` in that transaction (:class:`unisono.client.participant.Messages`). Leaving
    the block sends it. An exception leaves it to the coordinator, which asks at ``query_prepared`` once the
    timeout is over, since it can't be told from here whether the transaction had committed.

    Args:
        query_prepared: Where Messages answers.
        branches: What happens; the operation is ``action`` of a saga's participant, which can't refuse.
        timeout: Seconds until the coordinator asks.

    The rest is as for :func:`transaction`.
    """
    plan = Plan(
        mode="msg",
        timeout=timeout,
        gid=gid or new_gid(),
        query_prepared=query_prepared,
        branches=tuple(branches),
    )
    return Transaction(plan, node_of(api, namespace))


async def submit(
    mode: Mode,
    branches: Sequence[Branch],
    *,
    timeout: float = TIMEOUT,  # noqa: ASYNC109 - of the transaction, which the coordinator keeps
    gid: str | None = None,
    api: str | None = None,
    namespace: str | None = None,
) -> Outcome:
    """
    Submit a whole transaction, which goes to its end by itself, and wait for that.

    Arguments and errors are those of :func:`transaction`. Cancelled, the transaction goes on.
    """
    asking = Asking(node_of(api, namespace))
    try:
        return await carry_out(
            asking, Plan(mode=mode, timeout=timeout, gid=gid or new_gid()).submit(branches)
        )
    finally:
        asking.close()


# -- what is asked -------------------------------------------------------------------------------------


@dataclass
class Plan:
    """What is asked of the node for one transaction, and what its answers mean. Pure, but for the clock."""

    mode: Mode
    timeout: float
    gid: str
    status: str = ""
    query_prepared: str | None = None
    branches: Sequence[Branch] = ()
    _numbers: Any = field(default_factory=lambda: itertools.count(1))
    _deadline: float = 0.0

    def begin(self) -> Steps[None]:
        """Begin it; its branches are enrolled later, but for a message's."""
        body: dict[str, Any] = {"gid": self.gid, "mode": self.mode, "timeout_ms": self._timeout_ms()}
        if self.query_prepared is not None:
            body |= {"query_prepared": self.query_prepared, "branches": listed(self.branches)}
        self._learn((yield from self._sure(Ask(method="POST", path="/v1/transactions", body=body))))

    def call(self, url: str, payload: Any, id: str | None, after: Sequence[str]) -> Steps[Any]:
        """Enrol a branch; its reply."""
        name = id or f"b{next(self._numbers)}"
        body = {"id": name, "url": url, "payload": payload, "after": list(after), "wait_ms": _WAIT_MS}
        while True:
            told = yield from self._sure(self._post("/branches", body))
            if told.status != 202:
                break
            yield Pause(_PAUSE)
        if told.status == 409 and told.content.get("code") == "branch-refused":
            self.status = "aborting"
            raise BranchRefused(self.gid, name, told.content.get("problem") or {})
        if told.status in (409, 412):
            self.status = "aborting"
            raise Aborted(self.gid, _detail(told))
        _expect(told)
        self.status = told.content.get("status", self.status)
        return told.content.get("reply")

    def commit(self) -> Steps[Outcome]:
        """Decide to commit, and learn what became of it."""
        told = yield from self._sure(self._post(":commit", {"wait_ms": self._patience_ms()}))
        if told.status == 409:
            self.status = "aborted"
            raise Aborted(self.gid, _detail(told))
        if told.status == _ELSEWHERE:
            # Another node took it over, after the commit was decided or before: it is asked which.
            return (yield from self._end({"decision": None, "status": self.status}))
        self._known(told)
        return (yield from self._end(told.content))

    def abort(self) -> Steps[None]:
        """Decide to abort; that it is undone is the coordinator's affair."""
        told: Told = yield self._post(":abort", {"wait_ms": 0})  # once: what it can't tell, the deadline does
        self._learn(told)

    def submit(self, branches: Sequence[Branch]) -> Steps[Outcome]:
        """Submit it whole."""
        wait = self._patience_ms()
        body = {
            "gid": self.gid,
            "mode": self.mode,
            "timeout_ms": self._timeout_ms(),
            "branches": listed(branches),
            "wait_ms": wait,
        }
        told = yield from self._sure(Ask(method="POST", path="/v1/transactions", body=body, wait=wait / 1000))
        _expect(told)
        return (yield from self._end(told.content))

    def _end(self, view: Mapping[str, Any]) -> Steps[Outcome]:
        """Wait until it is decided. Committed is not finished: branches may be told later, but surely."""
        while view["decision"] is None and view["status"] not in ("committed", "aborted"):
            wait = self._patience_ms()
            ask = Ask(
                method="GET",
                path=f"/v1/transactions/{self.gid}",
                query=(("wait_ms", str(wait)),),
                wait=wait / 1000,
            )
            told = yield from self._sure(ask)
            self._known(told)
            view = told.content
        self.status = view["status"]
        if view["decision"] == "commit" or view["status"] == "committed":
            replies = {branch["id"]: branch.get("reply") for branch in view["branches"]}
            return Outcome(gid=self.gid, status=view["status"], replies=replies)
        raise Aborted(self.gid, view.get("reason") or "it was aborted")

    def _known(self, told: Told) -> None:
        """Of one that began, and is not known any more, nobody can say how it ended."""
        if told.status == _UNKNOWN:
            raise InDoubt(self.gid, _detail(told))
        _expect(told)

    def _sure(self, ask: Ask) -> Steps[Told]:
        """
        Ask until there is an answer. Repeating is harmless, because every request names the transaction.

        Raises:
            NotRunning: Not even the first request could be sent, so nothing happened.
            InDoubt: There was no answer until the deadline and a while beyond.
        """
        self._start()
        sent = bool(self.status)
        while True:
            try:
                told: Told = yield ask
            except (NotRunning, MaybeDone) as error:
                sent = sent or isinstance(error, MaybeDone)
                if not sent:
                    raise
                trouble: Exception = error
            else:
                if told.status < 500:
                    return told
                trouble = Refused(told.status, told.content or {})
                if told.status == 503 and not sent:
                    raise trouble
                sent = True  # all other failures of a node may have come after it was done
            if time.monotonic() > self._deadline + GRACE:
                raise InDoubt(self.gid, str(trouble)) from trouble
            yield Pause(_PAUSE)

    def _patience_ms(self) -> int:
        """
        How long one request may wait for the end: until the deadline, and shortly behind it.

        By then it is decided, which is what counts: branches that can't be told would be waited for in vain.
        """
        self._start()
        left = int((self._deadline - time.monotonic()) * 1000)
        return min(_WAIT_MS, max(_LOOK_MS, left))

    def _start(self) -> None:
        if not self._deadline:
            self._deadline = time.monotonic() + self.timeout

    def _post(self, what: str, body: Mapping[str, Any]) -> Ask:
        wait = body.get("wait_ms", 0) / 1000
        return Ask(method="POST", path=f"/v1/transactions/{self.gid}{what}", body=body, wait=wait)

    def _learn(self, told: Told) -> None:
        _expect(told)
        self.status = told.content["status"]

    def _timeout_ms(self) -> int:
        if not 0.001 <= self.timeout <= 86_400:
            raise ValueError(f"timeout is 0.001 to 86400 seconds, not {self.timeout!r}")
        return int(self.timeout * 1000)


def listed(branches: Sequence[Branch]) -> list[dict[str, Any]]:
    """Branches as a submission has them."""
    return [
        {"id": one.id or f"b{number}", "url": one.url, "payload": one.payload, "after": list(one.after)}
        for number, one in enumerate(branches, 1)
    ]


def _detail(told: Told) -> str:
    content = told.content if isinstance(told.content, dict) else {}
    return str(content.get("reason") or content.get("detail") or f"status {told.status}")


def _expect(told: Told) -> None:
    """Raise the node's no as what it is."""
    if told.status >= 400:
        raise Refused(told.status, told.content if isinstance(told.content, dict) else {})
