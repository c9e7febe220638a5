"""
Ports for the servers of tests.

Not the kernel's choice (port 0): between the choice and the server's start the kernel may give the same port
to somebody's outgoing connection, and the server can't listen there. These lie below the kernel's range, and
the latest are reserved against other test processes: each takes a descriptor, and a test needs few of them.
"""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from unisono.node.ports import Ports

_FIRST, _LAST = 12_000, 19_999
_RESERVED = 50

# From somewhere in the range: a port that the last run used may still have connections that are ending.
_ports = Ports(first=_FIRST, last=_LAST, start=_FIRST + os.getpid() % (_LAST - _FIRST))
_given: deque[int] = deque()


def free_port() -> int:
    """Another port that nobody has."""
    _given.append(_ports.take())
    if len(_given) > _RESERVED:
        _ports.give_back(_given.popleft())  # whoever wanted it listens by now, or is gone
    return _given[-1]


@contextmanager
def taken_port() -> Iterator[int]:
    """A port on which somebody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]
