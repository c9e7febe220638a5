"""Rings and counters in shared memory, between real processes: what the death of one leaves to the others."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from unisono._engine import SharedConsumer, SharedCounter, SharedProducer

SLOTS, BYTES = 64, 400
LIMIT = 60.0

# Messages are their own number again and again, of changing lengths.
_PRODUCER = f"""
import sys
from unisono._engine import SharedProducer
ring = SharedProducer(sys.argv[1], {SLOTS}, {BYTES})
number = int(sys.argv[2])
print("ready", flush=True)
while True:
    number = ring.push(number.to_bytes(8, "little") * (1 + number % 50)) + 1
"""
_COUNTING = """
import sys
from unisono._engine import SharedCounter
counter = SharedCounter(sys.argv[1])
print("ready", flush=True)
while True:
    counter.add(2)
"""
_CONSUMER = """
import sys
from unisono._engine import SharedConsumer
ring = SharedConsumer(sys.argv[1], 0)
print("ready", flush=True)
while True:
    ring.take()
"""


def start(program: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", program, *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.fixture
def ring(tmp_path: Path) -> Path:
    return tmp_path / "ring"


def whole(message: bytes, number: int) -> bool:
    """Whether it is this message, and all of it."""
    return message == number.to_bytes(8, "little") * (1 + number % 50)


def some(consumer: SharedConsumer, count: int) -> Iterator[tuple[bytes, int, int]]:
    deadline = time.monotonic() + LIMIT
    while count:
        assert time.monotonic() < deadline
        if (taken := consumer.take()) is not None:
            yield taken
            count -= 1


def test_messages_of_another_process_are_whole_and_none_is_missing_untold(ring: Path) -> None:
    """The producer never waits, so a slow consumer loses some, and is told how many."""
    with start(_PRODUCER, ring, 0) as process:
        try:
            consumer, expected, lost = SharedConsumer(ring, 0), 0, 0
            for message, number, skipped in some(consumer, 20_000):
                assert whole(message, number)
                assert number == expected + skipped
                expected, lost = number + 1, lost + skipped
        finally:
            process.kill()

    assert expected == 20_000 + lost
    assert expected == consumer.position


def test_the_check_finds_a_mix() -> None:
    """A message of two writes is no whole one: the check above can fail."""
    assert not whole((64).to_bytes(8, "little") * 14 + (128).to_bytes(8, "little"), 64)


@pytest.mark.parametrize("run", range(5))
def test_a_killed_producer_leaves_no_half_message_and_the_next_goes_on(ring: Path, run: int) -> None:
    """What was counted is whole, the numbers go on without a gap, and consumers stay where they were."""
    with start(_PRODUCER, ring, 0) as process:
        consumer = SharedConsumer(ring)
        seen = [number for _, number, _ in some(consumer, 10 * (run + 1))]
        process.send_signal(signal.SIGKILL)
    left = []
    while (taken := consumer.take()) is not None:
        left.append(taken)
    producer = SharedProducer(ring, SLOTS, BYTES)
    following = producer.push(b"next")
    after = consumer.take()

    assert all(whole(message, number) for message, number, _ in left)
    last = left[-1][1] if left else seen[-1]
    assert after == (b"next", following, following - last - 1)
    assert after[2] <= 1  # the one whose slot was half written over, if any


def test_killed_and_paused_consumers_disturb_nobody(ring: Path) -> None:
    """They write nothing, so there is nothing that they could leave."""
    producer = SharedProducer(ring, SLOTS, BYTES)
    consumer = SharedConsumer(ring, 0)
    with start(_CONSUMER, ring) as paused, start(_CONSUMER, ring) as killed:
        try:
            paused.send_signal(signal.SIGSTOP)
            killed.send_signal(signal.SIGKILL)
            for number in range(10 * SLOTS):
                assert producer.push(b"x") == number
                assert consumer.take() == (b"x", number, 0)
        finally:
            paused.kill()


def test_a_second_producer_is_refused_until_the_first_is_gone(ring: Path) -> None:
    """Two would write over each other."""
    with start(_PRODUCER, ring, 0) as process:
        with pytest.raises(BlockingIOError, match="already has a writer"):
            SharedProducer(ring, SLOTS, BYTES)
        process.kill()
    SharedProducer(ring, SLOTS, BYTES).close()


def test_what_processes_add_is_all_there_whenever_they_are_killed(tmp_path: Path) -> None:
    """An addition was made as a whole, or was not."""
    counter = SharedCounter(tmp_path / "counter")
    processes = [start(_COUNTING, tmp_path / "counter") for _ in range(3)]
    for process in processes:
        process.kill()
        process.communicate()
    there = counter.value

    assert there % 2 == 0
    assert counter.add(3) == there + 3
    assert counter.add(-1) == SharedCounter(tmp_path / "counter").value == there + 2


def test_each_refusal_is_an_error_of_its_own(tmp_path: Path, ring: Path) -> None:
    """No ring, something else, a message too long, a position of another ring, a sum too large."""
    producer = SharedProducer(ring, 4, 8)
    counter = SharedCounter(tmp_path / "counter")
    counter.add(2**63 - 1)

    with pytest.raises(FileNotFoundError):
        SharedConsumer(tmp_path / "none")
    with pytest.raises(RuntimeError, match="no ring of unisono"):
        SharedConsumer(tmp_path / "counter")
    with pytest.raises(RuntimeError, match="no counter of unisono"):
        SharedCounter(ring)
    with pytest.raises(ValueError, match="at most 8 fit"):
        producer.push(bytes(9))
    with pytest.raises(ValueError, match="position 7; the ring is another one, it is at 0"):
        SharedConsumer(ring, 7)
    with pytest.raises(ValueError, match="does not fit into 64 bits"):
        counter.add()
    with pytest.raises(OverflowError):
        counter.add(2**63)
    producer.close()
    with pytest.raises(RuntimeError, match="closed"):
        producer.push(b"")


def test_both_are_for_their_owner_alone(tmp_path: Path, ring: Path) -> None:
    """The permissions of the files keep others out."""
    SharedProducer(ring, 4, 8)
    SharedCounter(tmp_path / "counter")

    assert {0o600} == {path.stat().st_mode & 0o777 for path in (ring, tmp_path / "counter")}
