"""Durations and sizes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unisono.spec.units import MAX_SIZE, format_duration, format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("10s", 10.0),
        ("500ms", 0.5),
        ("1m30s", 90.0),
        ("1.5h", 5400.0),
        (".5s", 0.5),
        ("1h2m3s4ms", 3723.004),
        ("100us", 0.0001),
        ("100µs", 0.0001),
        ("2d", 172_800.0),
    ],
)
def test_a_duration_is_read_as_compose_reads_it(text: str, seconds: float) -> None:
    """Numbers with units, one after another."""
    assert seconds == parse_duration(text)


@pytest.mark.parametrize(
    "text", ["", "s", "-1s", "1 s", "1x", "1s1", "ten", "1e3s", "٣s", "1..5s", "9" * 80 + "s"]
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    """The error shows what would be right."""
    with pytest.raises(ValueError, match=r"500ms, 10s or 1m30s|365 days"):
        parse_duration(text)


def test_a_bare_number_is_refused_with_the_unit_it_lacks() -> None:
    """Nobody can tell whether 10 are seconds or milliseconds."""
    with pytest.raises(ValueError, match="10s or 10ms"):
        parse_duration("10")


@given(st.integers(0, 365 * 86_400 * 10**9))
def test_a_duration_survives_being_written(nanoseconds: int) -> None:
    """What is written is read as the very same number."""
    seconds = nanoseconds / 10**9

    assert seconds == parse_duration(format_duration(seconds))


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1024", 1024),
        ("512m", 512 * 2**20),
        ("1.5g", 3 * 2**29),
        ("64kb", 65_536),
        ("1GiB", 2**30),
        ("8b", 8),
        ("1 MB", 2**20),
    ],
)
def test_a_size_is_read_as_compose_reads_it(text: str, size: int) -> None:
    """k is 1024, with or without b."""
    assert size == parse_size(text)


@pytest.mark.parametrize("text", ["", "m", "-1", "12x", "1.5.5g", "99999p"])
def test_what_is_no_size_is_refused(text: str) -> None:
    """The error shows what would be right."""
    with pytest.raises(ValueError, match="a size"):
        parse_size(text)


@given(st.integers(0, MAX_SIZE))
def test_a_size_survives_being_written(size: int) -> None:
    """What is written is read as the very same number."""
    assert size == parse_size(format_size(size))
