"""
What services and scripts import to talk to a node. Needs nothing but the standard library.

In an instance nothing need be configured::

    from unisono import client

    await client.kv.put("stock/book", b"41")
    async with client.lock("job/7") as held: ...

Elsewhere ``client.connect("unix:/PATH/api.sock", namespace="shop")`` has the same names. Without asyncio
they are in ``client.sync``. Most is loaded when it is first used: HTTP is a third of a short command's time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from unisono.client.errors import (
    Aborted,
    BranchRefused,
    Changed,
    Fenced,
    InDoubt,
    Insufficient,
    Lost,
    MaybeDone,
    NodeError,
    NotAcquired,
    NotDone,
    NotMirrored,
    NotRunning,
    Refused,
)

if TYPE_CHECKING:
    from unisono._engine import SharedConsumer, SharedCounter, SharedProducer
    from unisono.client import participant, sync
    from unisono.client.holding import Held, Leader, Leading, Quota
    from unisono.client.keys import (
        Change,
        Changes,
        Compare,
        Delete,
        Listing,
        Put,
        Session,
        Value,
        Written,
        session,
    )
    from unisono.client.keyvalue import Kv
    from unisono.client.node import NodeClient
    from unisono.client.shared import connect, default
    from unisono.client.stamping import Clock
    from unisono.client.transactions import Branch, message, submit, transaction

    clock: Clock
    kv: Kv
    _shared = default()
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

# What is loaded when it is first used, and where it is.
_LATER = {
    "Branch": "transactions",
    "Change": "keys",
    "Changes": "keys",
    "Compare": "keys",
    "Delete": "keys",
    "Held": "holding",
    "Leader": "holding",
    "Leading": "holding",
    "Listing": "keys",
    "NodeClient": "node",
    "Put": "keys",
    "Quota": "holding",
    "Session": "keys",
    "Value": "keys",
    "Written": "keys",
    "connect": "shared",
    "message": "transactions",
    "session": "keys",
    "submit": "transactions",
    "transaction": "transactions",
}
_ROOMS = ("participant", "sync")
# What instances of one machine hand each other in its memory, without a node.
_MEMORY = ("SharedConsumer", "SharedCounter", "SharedProducer")
# What the application's own shared state offers.
_SHARED = (
    "barrier",
    "election",
    "kv",
    "leader",
    "leaders",
    "lock",
    "look_at_quota",
    "mirror",
    "node_clock",
    "quota",
    "resize_quota",
    "semaphore",
    "timestamps",
    "tso",
)

__all__ = [
    "Aborted",
    "Branch",
    "BranchRefused",
    "Change",
    "Changed",
    "Changes",
    "Compare",
    "Delete",
    "Fenced",
    "Held",
    "InDoubt",
    "Insufficient",
    "Leader",
    "Leading",
    "Listing",
    "Lost",
    "MaybeDone",
    "NodeClient",
    "NodeError",
    "NotAcquired",
    "NotDone",
    "NotMirrored",
    "NotRunning",
    "Put",
    "Quota",
    "Refused",
    "Session",
    "SharedConsumer",
    "SharedCounter",
    "SharedProducer",
    "Value",
    "Written",
    "barrier",
    "clock",
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
    "participant",
    "quota",
    "resize_quota",
    "semaphore",
    "session",
    "submit",
    "sync",
    "timestamps",
    "transaction",
    "tso",
]


def __getattr__(name: str) -> Any:
    from importlib import import_module  # noqa: PLC0415 - see above

    if name in _ROOMS:
        return import_module(f"{__name__}.{name}")
    if name in _LATER:
        return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
    if name in _MEMORY:
        return getattr(import_module(f"{__name__}.engine").load(), name)
    if name in _SHARED:
        return getattr(import_module(f"{__name__}.shared").default(), name)
    if name == "clock":
        found = globals()["clock"] = import_module(f"{__name__}.stamping").Clock()  # one for the process
        return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
