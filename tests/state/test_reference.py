"""The reference page's example runs as it stands."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import unisono

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "state.md"


def test_the_example_runs(tmp_path: Path) -> None:
    """As a program of its own, in an empty folder."""
    example = PAGE.read_text().split("```python\n")[1].split("```")[0]
    environment = {**os.environ, "PYTHONPATH": str(Path(unisono.__file__).parents[1])}

    subprocess.run([sys.executable, "-c", example], cwd=tmp_path, env=environment, check=True, timeout=60)
