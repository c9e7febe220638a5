"""
Precedence at the processor: node and gateway go before what they run.

Others wait for them: what has ended is started again by the node, and every request passes the gateway, which
has to know of an exit before it sends the next one. Linux shares the processor out by session first
(autogroups, sched(7)), and node, gateway and every instance have a session of their own, so one word to the
kernel moves each of them alone, and nobody inherits it.
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
