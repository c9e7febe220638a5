"""The secret that instances' tokens are signed with."""

from pathlib import Path

import pytest

from unisono.node.identity import Identities


def test_an_empty_secret_is_refused_because_anyone_could_sign_with_it(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.touch()

    with pytest.raises(OSError, match="has 0 bytes"):
        Identities.kept_in(path)
