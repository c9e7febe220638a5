"""When history goes: after so many revisions, or so many bytes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from unisono.store.sqlite.retention import Retention


def test_nothing_goes_before_there_is_a_tenth_more_than_is_kept() -> None:
    retention = Retention(100, 10**9, 0)

    assert retention.due(110, 0) is None
    assert 11 == retention.due(111, 0)


def test_revisions_go_sooner_where_more_bytes_were_written_since() -> None:
    retention = Retention(10_000, 800, 0)
    for revision in range(1, 21):
        retention.wrote(revision, 100)

    assert 12 == retention.due(20, 0)
    assert retention.due(20, 12) is None


def test_what_lay_there_at_the_start_goes_once_as_many_bytes_were_written() -> None:
    retention = Retention(10_000, 800, 5_000)
    for revision in range(5_001, 5_009):
        retention.wrote(revision, 100)

    assert 5_000 == retention.due(5_008, 0)


@given(st.lists(st.integers(0, 3000), min_size=1, max_size=200))
def test_the_bytes_since_the_end_of_history_are_bounded_and_never_too_few(sizes: list[int]) -> None:
    """Up to a part of the bound and one write more; and whoever goes has that much written after it."""
    retention, bound, compacted = Retention(10**9, 1000, 0), 1000, 0
    for revision, size in enumerate(sizes, 1):
        retention.wrote(revision, size)
        compacted = retention.due(revision, compacted) or compacted
        since = sum(sizes[compacted:revision])

        assert since < bound + bound // 8 + 2 * max(sizes)
        assert compacted == 0 or since >= bound
