"""The client without asyncio: the same names, for scripts, Flask and threads."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, TypeVar

from unisono.client.asking import AskingSync, Node
from unisono.client.errors import NodeError
from unisono.client.transactions import TIMEOUT, Branch, Mode, Outcome, Pause, Plan, Steps, new_gid, node_of

T = TypeVar("T")


class Transaction:
    """As :class:`unisono.client.transactions.Transaction`; threads may call branches at once."""

    def __init__(self, plan: Plan, node: Node) -> None:
        self.plan = plan
        self._asking = AskingSync(node)

    @property
    def gid(self) -> str:
        """The transaction's id."""
        return self.plan.gid

    @property
    def status(self) -> str:
        """How it stood when it was last told of."""
        return self.plan.status

    def call(self, url: str, payload: Any = None, *, id: str | None = None, after: Sequence[str] = ()) -> Any:
        """Enrol a branch and call it forward; what it answered. See the twin for arguments and errors."""
        return _carry_out(self._asking, self.plan.call(url, payload, id, after))

    def __enter__(self) -> Self:
        _carry_out(self._asking, self.plan.begin())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            _carry_out(self._asking, self.plan.commit())
            return
        if self.plan.mode == "msg":
            return  # whether it committed is for the coordinator to ask
        with suppress(NodeError):  # if the node can't be told, the deadline aborts
            _carry_out(self._asking, self.plan.abort())


def transaction(
    mode: Mode,
    *,
    timeout: float = TIMEOUT,
    gid: str | None = None,
    api: str | None = None,
    namespace: str | None = None,
) -> Transaction:
    """A transaction for ``with``; see :func:`unisono.client.transactions.transaction`."""
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
    """A message for ``with``; see :func:`unisono.client.transactions.message`."""
    plan = Plan(
        mode="msg",
        timeout=timeout,
        gid=gid or new_gid(),
        query_prepared=query_prepared,
        branches=tuple(branches),
    )
    return Transaction(plan, node_of(api, namespace))


def submit(
    mode: Mode,
    branches: Sequence[Branch],
    *,
    timeout: float = TIMEOUT,
    gid: str | None = None,
    api: str | None = None,
    namespace: str | None = None,
) -> Outcome:
    """Submit a whole transaction and wait for its end; see :func:`unisono.client.transactions.submit`."""
    plan = Plan(mode=mode, timeout=timeout, gid=gid or new_gid())
    return _carry_out(AskingSync(node_of(api, namespace)), plan.submit(branches))


def _carry_out(asking: AskingSync, steps: Steps[T]) -> T:
    try:
        step = next(steps)
        while True:
            try:
                if isinstance(step, Pause):
                    time.sleep(step.seconds)
                    told = None
                else:
                    told = asking.ask(step)
            except NodeError as error:
                step = steps.throw(error)
            else:
                step = steps.send(told)
    except StopIteration as end:
        value: T = end.value
        return value
