"""Small texts that commands read and write."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from unisono.cli.events import line
from unisono.cli.exits import MEANINGS, Code, CommandFailed, failure_of
from unisono.cli.logs import parse_since
from unisono.cli.output import duration
from unisono.cli.scale import parse_assignment
from unisono.client import MaybeDone, NodeError, NotRunning, Refused

NOW = 1_000_000.0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1.0, "0s"),
        (0.04, "0.0s"),
        (3.25, "3.2s"),
        (59.9, "59s"),
        (60.0, "1m"),
        (250.0, "4m 10s"),
        (7_500.0, "2h 5m"),
        (273_600.0, "3d 4h"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    """A span of time has two units at most."""
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("10m", NOW - 600), ("1h30m", NOW - 5400), ("1.5s", NOW - 1.5), ("2d", NOW - 172_800)],
)
def test_since_span(text: str, seconds: float) -> None:
    """A span counts back from now."""
    assert parse_since(text, NOW) == seconds


def test_since_time() -> None:
    """A time is ISO 8601, with its zone or without."""
    assert parse_since("2026-05-04T12:00:00Z", NOW) == datetime(2026, 5, 4, 12, tzinfo=UTC).timestamp()
    assert parse_since("2026-05-04 12:00", NOW) == datetime(2026, 5, 4, 12).astimezone().timestamp()


@pytest.mark.parametrize("text", ["yesterday", "", "10", "m", "-5m"])
def test_since_nonsense(text: str) -> None:
    """What is neither is wrong usage."""
    with pytest.raises(CommandFailed) as failed:
        parse_since(text, NOW)

    assert failed.value.code is Code.USAGE


def test_assignment() -> None:
    """A service and its number."""
    assert parse_assignment("orders=3") == ("orders", 3)


@pytest.mark.parametrize(
    "text",
    ["orders", "=3", "orders=", "orders=many", "orders=-1", "orders=1.5", "orders=" + "9" * 5000],
)
def test_bad_assignment(text: str) -> None:
    """What is no assignment is wrong usage."""
    with pytest.raises(CommandFailed) as failed:
        parse_assignment(text)

    assert failed.value.code is Code.USAGE


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NotRunning("no"), Code.NOT_RUNNING),
        (MaybeDone("cut"), Code.FAILED),
        (Refused(404, {}), Code.REFUSED),
        (Refused(409, {}), Code.REFUSED),
        (Refused(401, {}), Code.REFUSED),
        (Refused(422, {}), Code.USAGE),
        (Refused(413, {}), Code.USAGE),
        (Refused(507, {}), Code.FAILED),
        (Refused(503, {}), Code.FAILED),
    ],
)
def test_exit_codes(error: NodeError, code: Code) -> None:
    """Each answer of a node has its exit code."""
    assert failure_of(error).code is code


def test_every_fault_is_shown() -> None:
    """A refusal with several faults shows them all, a line each."""
    problem: dict[str, Any] = {
        "detail": "a",
        "errors": [{"field": "x", "detail": "a"}, {"field": "", "detail": "b"}],
    }

    assert failure_of(Refused(422, problem)).message == "x: a\nb"


def test_codes_have_meanings() -> None:
    """Every exit code is explained."""
    assert set(MEANINGS) == set(Code)


def test_event_line() -> None:
    """An event is one line: time, kind, whom it concerns, what."""
    text = line(
        {
            "id": 1,
            "at": 0.0,
            "kind": "instance-ready",
            "application": "shop",
            "service": "orders",
            "instance": "orders-1",
            "message": "ready after 0.1 s",
            "data": {},
        }
    )

    assert text.split("  ", 1)[1].split() == ["instance-ready", "shop/orders-1", "ready", "after", "0.1", "s"]
