"""
What a service needs to take part in transactions: its code takes effect once, however it is called.

    from unisono.client import participant

    @participant.tcc(pool)
    class Pay:
        async def try_(self, tx, order): ...
        async def confirm(self, tx, order): ...
        async def cancel(self, tx, order): ...

    app.mount("/pay", Pay)

``tx`` is a connection in a transaction that holds the branch's row of the fence beside what the code changes.
The code never ends it; it raises :class:`Refused` to say no. The fence's table is made once by
:func:`create_fence`. Other languages need only HTTP: docs/guide/participants.md.
"""

from unisono.client.participant.branches import Participant, current_call, saga, tcc, xa
from unisono.client.participant.drivers import connections
from unisono.client.participant.messages import Messages
from unisono.client.participant.protocol import Call, Refused
from unisono.client.participant.upkeep import (
    Orphan,
    create_fence,
    create_fence_async,
    fence_table,
    finish_orphan,
    finish_orphan_async,
    orphans,
    orphans_async,
    purge_fence,
    purge_fence_async,
    verdict,
)

__all__ = [
    "Call",
    "Messages",
    "Orphan",
    "Participant",
    "Refused",
    "connections",
    "create_fence",
    "create_fence_async",
    "current_call",
    "fence_table",
    "finish_orphan",
    "finish_orphan_async",
    "orphans",
    "orphans_async",
    "purge_fence",
    "purge_fence_async",
    "saga",
    "tcc",
    "verdict",
    "xa",
]
