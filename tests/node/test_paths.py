"""The state folder: private, of a known format, for one node at a time."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from unisono.node.paths import (
    FORMAT,
    FolderInUse,
    NodeLock,
    StateFolder,
    StateFolderError,
    default_state_folder,
)


def test_a_new_folder_is_for_its_owner_alone(tmp_path: Path) -> None:
    """prepare() makes the folder with mode 0700, even if it was open before."""
    path = tmp_path / "state"
    path.mkdir(mode=0o755)

    StateFolder(path).prepare()

    assert path.stat().st_mode & 0o777 == 0o700
    assert StateFolder(path).format_file.read_text() == f"{FORMAT}\n"


def test_a_folder_of_a_newer_format_is_refused_and_left_alone(tmp_path: Path) -> None:
    """The message names what was found, what is known and what to do; nothing is made in the folder."""
    (tmp_path / "format").write_text("7\n")

    with pytest.raises(StateFolderError, match=r"has format 7, this unisono knows formats up to 1; upgrade"):
        StateFolder(tmp_path).prepare()

    assert [entry.name for entry in tmp_path.iterdir()] == ["format"]


def test_a_format_that_is_no_number_is_refused(tmp_path: Path) -> None:
    """A damaged format file is named with what it holds."""
    (tmp_path / "format").write_text("what\n")

    with pytest.raises(StateFolderError, match="holds 'what' where a number was expected"):
        StateFolder(tmp_path).prepare()


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    """What can't be a folder gets one clear error."""
    path = tmp_path / "state"
    path.write_text("")

    with pytest.raises(StateFolderError, match=r"can't use .*state as a state folder"):
        StateFolder(path).prepare()


def test_a_folder_that_is_not_wanted_after_all_goes_with_all_that_is_in_it(tmp_path: Path) -> None:
    """And nothing beside it."""
    folder = StateFolder(tmp_path / "above" / "state")
    folder.prepare()
    folder.store_file.touch()

    folder.discard()

    assert [tmp_path / "above"] == list(tmp_path.rglob("*"))


def test_a_folder_that_a_node_uses_is_not_removed(tmp_path: Path) -> None:
    """Another one may have begun meanwhile."""
    folder = StateFolder(tmp_path)
    folder.prepare()

    with NodeLock(folder):
        folder.discard()

        assert folder.format_file.exists()


def test_two_nodes_on_one_folder_are_refused_by_pid(tmp_path: Path) -> None:
    """The second lock fails and names the process that holds the first."""
    folder = StateFolder(tmp_path)
    folder.prepare()

    with NodeLock(folder), pytest.raises(FolderInUse, match="--state") as caught:
        NodeLock(folder)

    assert caught.value.pid == os.getpid()
    NodeLock(folder).release()


@pytest.mark.parametrize("length", [82, 94, 100, 200])
def test_sockets_move_to_a_short_folder_when_the_path_is_too_long(tmp_path: Path, length: int) -> None:
    """Every socket path fits into sockaddr_un, and the short folder is private."""
    folder = StateFolder(tmp_path / ("x" * max(1, length - len(f"{tmp_path}/"))))
    folder.prepare()

    try:
        assert len(os.fsencode(folder.gateway_socket)) + len(".handover.new") <= 107
        assert folder.sockets.stat().st_mode & 0o777 == 0o700
    finally:
        folder.sockets.rmdir()


def test_sockets_stay_in_a_folder_whose_path_is_short() -> None:
    """No second folder without need."""
    assert StateFolder(Path("/var/lib/unisono")).api_socket == Path("/var/lib/unisono/api.sock")


def test_the_default_folder_follows_xdg(monkeypatch: pytest.MonkeyPatch) -> None:
    """UNISONO_STATE wins, then an absolute XDG_STATE_HOME; a relative one is ignored as XDG demands."""
    monkeypatch.setenv("HOME", "/home/ann")
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    monkeypatch.delenv("UNISONO_STATE", raising=False)
    ignored = default_state_folder()
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    followed = default_state_folder()
    monkeypatch.setenv("UNISONO_STATE", "/mine")

    assert ignored == Path("/home/ann/.local/state/unisono")
    assert followed == Path("/state/unisono")
    assert default_state_folder() == Path("/mine")
