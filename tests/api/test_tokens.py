"""The API's token in its file."""

import os
from pathlib import Path

import pytest

from unisono.api.tokens import made_token


def test_a_crash_while_the_token_is_written_leaves_no_file_that_the_next_start_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "token"

    def crash(_: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", crash)
        with pytest.raises(KeyboardInterrupt):
            made_token(path)

    assert len(made_token(path)) == 43
