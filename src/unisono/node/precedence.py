"""
The node's precedence: it runs before what it runs, when both want the processor.

A node does little and others wait for it: what has ended is started again by it, what it left running is
taken over by the next one. Linux shares the processor out by session first (autogroups, sched(7)), and every
instance has a session of its own, so one word to the kernel moves the node alone and nobody inherits it.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

_NICE = -10  # nine and a half times the weight of others, as long as it has something to do


def give_precedence(leader: int) -> None:
    """
    Let the session that the process ``leader`` leads go before others, where the kernel allows it.

    It takes the right to lower nice values (root, CAP_SYS_NICE) and autogroups; without them nothing changes.
    """
    with suppress(OSError):
        Path(f"/proc/{leader}/autogroup").write_text(str(_NICE))
