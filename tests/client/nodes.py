"""A real node in a process of its own, for tests that kill, pause and restart it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.databases import LIMIT, wait_for
from tests.ports import free_port
from unisono import client
from unisono.client.shared import Shared, SharedSync, connect_sync


class NodeProcess:
    """One node, which runs inside of its ``with``; its state folder outlives the process."""

    def __init__(self, folder: Path) -> None:
        self.state = folder / "state"
        self.state.mkdir()
        self.api = f"unix:{self.state / 'api.sock'}"
        self.environment = {
            **os.environ,
            "UNISONO_STATE": str(self.state),
            "UNISONO_LISTEN": f"127.0.0.1:{free_port()}",
        }
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> NodeProcess:
        try:
            self.start()
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    @property
    def where(self) -> dict[str, Any]:
        """The arguments that name the node and an application."""
        return {"api": self.api, "namespace": "shop"}

    def shared(self) -> Shared:
        """The application's state, with asyncio."""
        return client.connect(**self.where)

    def shared_sync(self) -> SharedSync:
        """And without."""
        return connect_sync(**self.where)

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "unisono", "node"], env=self.environment, stderr=subprocess.DEVNULL
        )
        wait_for(self._runs, "the node", lambda: "")

    def signal(self, number: int) -> None:
        """Pause it, or let it go on."""
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it without a farewell."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(LIMIT)

    def end(self) -> None:
        """End it, and what it leaves running: the gateway and the writer of its logs."""
        if self._process is not None and self._process.poll() is None:
            self.signal(signal.SIGCONT)
            self._process.terminate()
            self._process.wait(LIMIT)
        for line in subprocess.run(
            ["ps", "-wweo", "pid,args"], capture_output=True, text=True, check=True
        ).stdout.splitlines():
            pid, _, command = line.strip().partition(" ")
            if str(self.state) in command:
                with suppress(ProcessLookupError):  # they end with each other
                    os.kill(int(pid), signal.SIGKILL)

    def _runs(self) -> bool:
        try:
            client.NodeClient(self.state / "api.sock").node()
        except client.NodeError:
            return False
        return True
