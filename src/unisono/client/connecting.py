"""
The node that a program asks: found in the environment when it is first asked, or named by :func:`connect`.

Connections belong to an event loop; each loop has its own.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from typing import TypeVar
from weakref import WeakKeyDictionary

from unisono.client.asking import Asking, AskingSync, carry_out, carry_out_sync
from unisono.client.questions import Node, Steps

T = TypeVar("T")

_LOOK_LIMIT = 1.0


class Connection:
    """Asks one node, with asyncio or without; may be shared by tasks, loops and threads."""

    def __init__(self, node: Node | None = None) -> None:
        self._node = node
        self._asking: WeakKeyDictionary[asyncio.AbstractEventLoop, Asking] = WeakKeyDictionary()
        self._asking_sync: AskingSync | None = None

    @property
    def node(self) -> Node:
        """
        Where it answers.

        Raises:
            NotRunning: Nothing says where: this process is no instance, and none was named.
        """
        if self._node is None:
            self._node = Node.of_environment()
        return self._node

    @property
    def is_local(self) -> bool:
        """
        Whether this process has the same pid for the node: it answers at a socket, in the same PID namespace.

        In a container of its own a pid means another process; then only the time to live ends a lease.
        """
        path = self.node.socket_path
        if path is None:
            return False
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asked:
                asked.settimeout(_LOOK_LIMIT)
                asked.connect(path)
                pid = int.from_bytes(
                    asked.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[:4], sys.byteorder
                )
            # Of a namespace that can't be seen into the pid is 0.
            return pid > 0 and os.path.samestat(os.stat(f"/proc/{pid}/ns/pid"), os.stat("/proc/self/ns/pid"))
        except OSError:
            return False

    def asking(self) -> Asking:
        """What asks in the running event loop."""
        loop = asyncio.get_running_loop()
        found = self._asking.get(loop)
        if found is None:
            found = self._asking[loop] = Asking(self.node)
        return found

    def asking_sync(self) -> AskingSync:
        """What asks without a loop."""
        if self._asking_sync is None:
            self._asking_sync = AskingSync(self.node)
        return self._asking_sync

    async def carry_out(self, steps: Steps[T]) -> T:
        """Take these steps with asyncio."""
        return await carry_out(self.asking(), steps)

    def carry_out_sync(self, steps: Steps[T]) -> T:
        """Take these steps without asyncio."""
        return carry_out_sync(self.asking_sync(), steps)
