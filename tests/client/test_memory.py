"""What instances of one machine hand each other in its memory, by the names that a service imports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from unisono import client


def test_processes_count_together_and_hand_messages_on(tmp_path: Path) -> None:
    code = (
        "import sys; from unisono.client import SharedCounter, SharedProducer;"
        "SharedCounter(sys.argv[1]).add(2); SharedProducer(sys.argv[2], 8, 20).push(b'hello')"
    )
    counter, ring = tmp_path / "counter", tmp_path / "ring"
    client.SharedCounter(counter).add(1)
    subprocess.run([sys.executable, "-c", code, counter, ring], check=True)

    assert 3 == client.SharedCounter(counter).value
    assert (b"hello", 0, 0) == client.SharedConsumer(ring, position=0).take()


def test_they_may_be_asked_for_first_in_a_thread_that_ends(tmp_path: Path) -> None:
    """The engine's memory would go with the thread that has loaded it."""
    code = (
        "import sys, threading; from unisono import client;"
        "made = []; t = threading.Thread(target=lambda: made.append(client.SharedCounter(sys.argv[1])));"
        "t.start(); t.join(); [made[0].add(1) for _ in range(1000)];"
        "more = [client.SharedCounter(sys.argv[1]) for _ in range(100)]; print(more[-1].value)"
    )

    said = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "counter"], capture_output=True, text=True, check=True
    )

    assert "1000\n" == said.stdout
