"""
The client without asyncio: the same names, for scripts, Flask and threads.

    from unisono.client import sync

    sync.kv.put("stock/book", b"41")
    with sync.lock("job/7") as held: ...
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from unisono.client.asking import AskingSync, carry_out_sync
from unisono.client.errors import NodeError
from unisono.client.keys import session
from unisono.client.questions import Node, node_of
from unisono.client.shared import connect_sync as connect
from unisono.client.shared import default_sync
from unisono.client.transactions import TIMEOUT, Branch, Mode, Outcome, Plan, new_gid

if TYPE_CHECKING:
    from unisono.client.keyvalue import KvSync

    kv: KvSync
    _shared = default_sync()
    barrier = _shared.barrier
    election = _shared.election
    leader = _shared.leader
    leaders = _shared.leaders
    lock = _shared.lock
    look_at_quota = _shared.look_at_quota
    mirror = _shared.mirror
    node_clock = _shared.node_clock
    quota = _shared.quota
    resize_quota = _shared.resize_quota
    semaphore = _shared.semaphore
    timestamps = _shared.timestamps
    tso = _shared.tso

__all__ = [
    "barrier",
    "connect",
    "election",
    "kv",
    "leader",
    "leaders",
    "lock",
    "look_at_quota",
    "message",
    "mirror",
    "node_clock",
    "quota",
    "resize_quota",
    "semaphore",
    "session",
    "submit",
    "timestamps",
    "transaction",
    "tso",
]


def __getattr__(name: str) -> Any:
    """What the shared state of the application whose instance this is offers."""
    if name in __all__:
        return getattr(default_sync(), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


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
        return carry_out_sync(self._asking, self.plan.call(url, payload, id, after))

    def __enter__(self) -> Self:
        carry_out_sync(self._asking, self.plan.begin())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            carry_out_sync(self._asking, self.plan.commit())
            return
        if self.plan.mode == "msg":
            return  # whether it committed is for the coordinator to ask
        with suppress(NodeError):  # if the node can't be told, the deadline aborts
            carry_out_sync(self._asking, self.plan.abort())


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
    return carry_out_sync(AskingSync(node_of(api, namespace)), plan.submit(branches))
