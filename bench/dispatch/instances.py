"""The instances of the measurements: bench/instances, built on first use, driven by its standard input."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from bench.harness import HERE, free_port

PROJECT = HERE / "instances"
PROGRAM = PROJECT / "target" / "release" / "bench-instances"


def build() -> None:
    """Build the program, if it isn't there or isn't up to date."""
    path = f"{Path.home() / '.cargo' / 'bin'}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(
        ["cargo", "build", "--release", "--quiet", "--manifest-path", str(PROJECT / "Cargo.toml")],
        check=True,
        env={**os.environ, "PATH": path},
    )


class Instances:
    """
    Instances in one process, a port each; use it as a context manager.

    Args:
        places: Requests at a time of each; further ones wait in the instance, in their order.
        service: Service times in ms, such as ``lognormal:10:1``; see ``bench/instances/src/chance.rs``.
        speeds: What the service times are multiplied with, one for each instance.
        pauses: ``MS:EVERY_MS``, random pauses of each instance, or ``-``.
        body: Bytes of an answer.
    """

    def __init__(
        self,
        *,
        places: int,
        service: str,
        speeds: Sequence[float] = (1.0,) * 8,
        seed: int = 1,
        pauses: str = "-",
        body: int = 2,
        ports: Sequence[int] = (),
    ) -> None:
        self.ports = list(ports) or [free_port() for _ in speeds]
        targets = [f"{port}x{speed:g}" for port, speed in zip(self.ports, speeds, strict=True)]
        command = [str(PROGRAM), str(places), service, str(seed), str(body), pauses, *targets]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True, text=True
        )
        if self._line() != "ready":
            raise RuntimeError(f"{' '.join(command)} did not become ready")

    @property
    def pid(self) -> int:
        """Their process."""
        return self._process.pid

    def tell(self, *words: object) -> Any:
        """Give a command; its answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(" ".join(map(str, words)) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._line())
        if isinstance(answer, dict) and "error" in answer:
            raise ValueError(f"the instances don't understand {words}")
        return answer

    def log(self) -> list[dict[str, Any]]:
        """Of each since the start: ``arrived``, ``finished``, ``peak`` at once, ``busy_ms``, ``late_ms``."""
        found: list[dict[str, Any]] = self.tell("log")
        return found

    def signal(self, number: int) -> None:
        """Send a signal to their process."""
        self._process.send_signal(number)

    def cpu_seconds(self) -> float:
        """Processor time used."""
        times = psutil.Process(self.pid).cpu_times()
        return float(times.user + times.system)

    def stop(self) -> None:
        """Kill them, whatever state they are in."""
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def __enter__(self) -> Instances:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
