"""A folder to write files of services into, and a loader with a plain environment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from unisono.spec.load import Loaded, SpecError, load
from unisono.spec.model import ServiceSpec

ENVIRON = {"PATH": "/usr/bin:/bin", "HOME": "/tmp"}


class Desk:
    """A folder with files, and what loading them gives."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, text: str | bytes, name: str = "unisono.yaml") -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    def load(
        self,
        text: str | bytes | None = None,
        *files: str,
        environ: Mapping[str, str] | None = None,
        **more: Any,
    ) -> Loaded:
        if text is not None:
            self.write(text)
        paths: Sequence[Path] = [Path(name) for name in files or ("unisono.yaml",)]
        return load(paths, environ={**ENVIRON, **(environ or {})}, **{"name": "desk", **more})

    def service(self, text: str, **more: Any) -> ServiceSpec:
        """The service ``web`` that has the given keys, beside a command that is there."""
        runs = any(line.startswith(("command:", "entrypoint:", "image:")) for line in text.splitlines())
        lines = text if runs else f"command: sleep 1\n{text}"
        body = "".join(f"    {line}\n" for line in lines.splitlines())
        return self.load(f"services:\n  web:\n{body}", **more).application.services["web"]

    def warnings(self, text: str, **more: Any) -> list[str]:
        """The warnings of such a service."""
        self.service(text, **more)
        return [str(warning) for warning in self.load(**more).warnings]

    def error(self, text: str | bytes | None = None, *files: str, **more: Any) -> SpecError:
        """The error that loading gives."""
        with pytest.raises(SpecError) as caught:
            self.load(text, *files, **more)
        return caught.value

    def service_error(self, text: str, **more: Any) -> SpecError:
        """The error that such a service gives."""
        with pytest.raises(SpecError) as caught:
            self.service(text, **more)
        return caught.value


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """An empty folder that is the working directory."""
    monkeypatch.chdir(tmp_path)
    return Desk(tmp_path)
