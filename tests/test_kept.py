"""Small files that outlast a crash."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from unisono.kept import make_folder, write_kept


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """What the disk was asked to make sure of, in order."""
    found: list[Path] = []
    fsync = os.fsync

    def noted(fd: int) -> None:
        found.append(Path(os.readlink(f"/proc/self/fd/{fd}")))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", noted)
    return found


def test_a_file_is_made_sure_of_before_it_has_its_name_and_its_name_after(
    tmp_path: Path, synced: list[Path]
) -> None:
    """First the content under another name, then the folder: fsync of a file says nothing of its name."""
    path = tmp_path / "secret"

    write_kept(path, b"s")

    assert [path.with_name(f"secret.{os.getpid()}.new"), tmp_path] == synced


def test_a_file_is_for_its_owner_alone_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    """Also when the one that it replaces could be read by others."""
    path = tmp_path / "secret"
    path.write_text("old")
    path.chmod(0o644)

    write_kept(path, "new\n")

    assert ("new\n", 0o600) == (path.read_text(), path.stat().st_mode & 0o777)
    assert [path] == list(tmp_path.iterdir())


def test_a_crash_on_the_way_leaves_the_old_file_and_keeps_nobody_from_writing_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a crash left under the same number of process is no hindrance."""
    path = tmp_path / "secret"
    path.write_text("old")

    def crash(_: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", crash)
        with pytest.raises(KeyboardInterrupt):
            write_kept(path, "new")
    crashed = path.read_text()
    write_kept(path, "newer")

    assert ("old", "newer") == (crashed, path.read_text())


def test_a_write_that_fails_leaves_the_old_file_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk is said, and changes nothing."""
    path = tmp_path / "secret"
    path.write_text("old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_kept(path, "new")

    assert "old" == path.read_text()
    assert [path] == list(tmp_path.iterdir())


def test_each_new_folder_is_made_sure_of_in_the_one_above_it(tmp_path: Path, synced: list[Path]) -> None:
    """What is kept in it would else be lost with its folder's name; one that is there costs nothing."""
    make_folder(tmp_path / "a" / "b", 0o700)
    new = list(synced)
    make_folder(tmp_path / "a" / "b", 0o700)

    assert [tmp_path / "a", tmp_path] == new == synced
