"""Every command and option is documented. Keys of the file are tests/spec/test_schema.py's."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest
import typer.main

from tests.docs.pages import ROOT
from unisono.cli.main import app


def commands(command: click.Command, path: str = "unisono") -> Iterator[tuple[str, click.Command]]:
    """A command and all below it, with their full names."""
    yield path, command
    for name, child in getattr(command, "commands", {}).items():
        yield from commands(child, f"{path} {name}")


ALL = dict(commands(typer.main.get_command(app)))


@pytest.mark.parametrize("name", ALL)
def test_every_command_and_its_options_are_documented(name: str) -> None:
    """A command, or an option of it, that the page does not name is found here."""
    page = (ROOT / "docs/reference/cli.md").read_text()
    wanted = [name] if name != "unisono" else []
    for parameter in ALL[name].params:
        wanted += [option for option in getattr(parameter, "opts", []) if option.startswith("--")]

    assert [] == [word for word in wanted if word not in page]
