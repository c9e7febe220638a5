"""What the repository holds is meant for everyone, not for one machine."""

from __future__ import annotations

import re

import pytest

from tests.docs.pages import ROOT, tracked

# With brackets, so that this file does not hold what it looks for.
MACHINE_PATH = re.compile(r"(?<![\w.~-])/(?:wor[k]|roo[t]|User[s])/[\w.]|/tmp/studi[o]|/opt/wheel[s]")
LOCKED = re.compile(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!+_-]+")


def test_no_tracked_file_holds_a_path_of_someones_machine() -> None:
    """Paths of the machine on which something was made mean nothing elsewhere."""
    found = []
    for path in tracked():
        text = path.read_text(errors="replace")
        found += [f"{path.relative_to(ROOT)}: {match[0]}" for match in MACHINE_PATH.finditer(text)]

    assert [] == found


def test_the_lock_names_packages_and_versions_alone() -> None:
    """Indexes, addresses and hashes of files are the business of whoever installs."""
    lines = (ROOT / "requirements.lock").read_text().splitlines()

    assert [] == [line for line in lines if not line.startswith("#") and not LOCKED.fullmatch(line)]


@pytest.mark.parametrize("name", [path.name for path in sorted((ROOT / "scripts").glob("*.sh"))])
def test_scripts_stop_at_the_first_error(name: str) -> None:
    """A script that goes on after a failed step reports success for it."""
    text = (ROOT / "scripts" / name).read_text()

    assert "set -euo pipefail" in text
