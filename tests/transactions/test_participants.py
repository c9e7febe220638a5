"""How hard one participant is called."""

from __future__ import annotations

import asyncio
import gc
import random
import weakref
from collections.abc import Callable
from statistics import mean

import pytest

from tests.transactions.conftest import Bench, until
from tests.transactions.participants import Asked, Says, serving
from unisono.transactions.participants import LONGEST_PAUSE, Participant, Participants, pause_before
from unisono.transactions.targets import Address


class _Timers:
    """``call_later`` that comes when a test says so."""

    def __init__(self) -> None:
        self.due: list[tuple[float, Callable[[], None]]] = []

    def later(self, seconds: float, callback: Callable[[], None]) -> _Timers:
        self.due.append((seconds, callback))
        return self

    def cancel(self) -> None:
        self.due.clear()

    def fire(self) -> float:
        seconds, callback = self.due.pop(0)
        callback()
        return seconds


class _Job:
    def __init__(self, started: list[int], number: int, wanted: bool = True) -> None:
        self._started = started
        self._number = number
        self._wanted = wanted

    def start(self) -> bool:
        if self._wanted:
            self._started.append(self._number)
        return self._wanted


def _participant(limit: int = 2) -> tuple[Participant, _Timers]:
    timers = _Timers()
    return Participant(timers.later, random.Random(1), limit=limit), timers


def test_no_more_calls_at_a_time_than_the_limit_and_the_others_in_order() -> None:
    """Trap 9."""
    participant, _ = _participant()
    started: list[int] = []
    for number in range(5):
        participant.ask(_Job(started, number))
    before = list(started)
    participant.ended(answered=True)

    assert [0, 1] == before
    assert [0, 1, 2] == started


def test_a_call_that_is_not_wanted_any_more_takes_no_place() -> None:
    participant, _ = _participant(limit=1)
    started: list[int] = []
    participant.ask(_Job(started, 0))
    participant.ask(_Job(started, 1, wanted=False))
    participant.ask(_Job(started, 2))
    participant.ended(answered=True)

    assert [0, 2] == started


def test_one_that_answers_nothing_is_tried_by_one_call_at_a_time_with_growing_pauses() -> None:
    """Trap 9: what waits for a dead participant costs next to nothing."""
    participant, timers = _participant()
    started: list[int] = []
    for number in range(5):
        participant.ask(_Job(started, number))
        participant.ended(answered=False)
    for number in range(5, 50):
        participant.ask(_Job(started, number))
    pauses = []
    for _ in range(8):
        pauses.append(timers.fire())
        participant.ended(answered=False)

    assert participant.broken
    assert 5 + 8 == len(started)
    assert pauses[0] <= 0.1
    assert pauses[-1] > 3.0


def test_an_answer_closes_the_breaker_and_all_that_waits_goes_on() -> None:
    participant, timers = _participant(limit=3)
    started: list[int] = []
    for number in range(5):
        participant.ask(_Job(started, number))
        participant.ended(answered=False)
    for number in range(5, 9):
        participant.ask(_Job(started, number))
    timers.fire()
    participant.ended(answered=True)

    assert not participant.broken
    assert [5, 6, 7, 8] == started[5:]


async def test_participants_whom_nobody_calls_any_more_are_forgotten() -> None:
    """However many there have been; one that is being called stays the one it was."""
    participants = Participants(random.Random(1))
    busy = participants.at(_address(1))
    busy.ask(_Job([], 0))
    lines = weakref.WeakSet({participants.at(_address(port)) for port in range(2, 5000)})
    gc.collect()

    assert len(lines) < 1500
    assert participants.at(_address(1)) is busy


def _address(port: int) -> Address:
    return Address("127.0.0.1", port, False, f"127.0.0.1:{port}", "/")


def test_pauses_double_up_to_a_cap_and_are_spread() -> None:
    """Traps 9 and 15."""
    chance = random.Random(1)
    means = [mean(pause_before(n, chance) for _ in range(500)) for n in (1, 2, 3, 30)]

    assert [0.05, 0.1, 0.2, LONGEST_PAUSE] == pytest.approx(means, rel=0.1)
    assert 1 < len({pause_before(3, chance) for _ in range(10)})


async def test_a_dead_participant_holds_up_nobody_else(bench: Bench) -> None:
    """Trap 9, over real sockets: hundreds wait for one that never answers, others commit meanwhile."""

    async def never(asked: Asked) -> Says:
        await asyncio.Event().wait()
        return Says()

    async with serving() as dead:
        dead.script = never
        url = f"{dead.url}/x"
        await asyncio.gather(*[bench.begin("saga", {"id": "a", "url": url}) for _ in range(300)])
        await until(lambda: len(dead.asked) >= 128)
        view = await bench.run("saga", "a", "b")

    assert "committed" == view["status"]
    assert 128 == len(dead.asked)
