"""Histories on disk: what is written is read, whatever the writer's death cut off."""

from __future__ import annotations

from pathlib import Path

import pytest

from unisono.evaluate.history import Operation, Outcome, Recorder, load


def test_what_was_recorded_is_read(tmp_path: Path) -> None:
    """With all that the answer said, in the order of the calls."""
    recorder = Recorder(tmp_path / "a", "a")
    with recorder.call("put", key="x", value=1) as call:
        call.done(revision=7)
    with recorder.call("put", key="x", value=2) as call:
        call.not_done()
    recorder.close()

    put, refused = load([tmp_path / "a"])

    assert (put.client, put.action, put.value, put.revision, put.outcome) == ("a", "put", 1, 7, Outcome.DONE)
    assert refused.outcome is Outcome.NOT_DONE
    assert put.returned is not None
    assert put.called <= put.returned <= refused.called


def test_an_exception_leaves_the_outcome_unknown(tmp_path: Path) -> None:
    """Unless the block said what came of it before."""
    recorder = Recorder(tmp_path / "a", "a")
    with pytest.raises(TimeoutError), recorder.call("put", key="x", value=1):
        raise TimeoutError

    assert [one.outcome for one in load([tmp_path / "a"])] == [Outcome.UNKNOWN]


def test_a_writer_that_died_leaves_a_call_of_unknown_outcome(tmp_path: Path) -> None:
    """A call without a return, and half a line after it."""
    recorder = Recorder(tmp_path / "a", "a")
    with recorder.call("put", key="x", value=1) as call:
        call.done(revision=7)
    whole = (tmp_path / "a").read_bytes()
    (tmp_path / "a").write_bytes(whole[:-5])

    assert [one.outcome for one in load([tmp_path / "a"])] == [Outcome.UNKNOWN]


@pytest.mark.parametrize("line", [b"{}", b"[1]", b"nonsense", b'{"return":7}'])
def test_what_is_no_history_is_refused(tmp_path: Path, line: bytes) -> None:
    """With file and line."""
    (tmp_path / "a").write_bytes(line + b"\n")

    with pytest.raises(ValueError, match="a:1"):
        load([tmp_path / "a"])


def test_an_operation_returns_after_its_call() -> None:
    """A history in which it does not is corrupt."""
    with pytest.raises(ValueError, match="before it is called"):
        Operation(client="a", action="get", called=2, returned=1)
