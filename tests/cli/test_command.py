"""The way of ``unisono node`` past the rest of the command line, and who may not take it."""

from __future__ import annotations

import pytest
import typer.main
from typer.core import TyperOption

from unisono.__main__ import NODE_OPTIONS, node_options
from unisono.cli.main import app


def test_a_plain_node_is_started_at_once() -> None:
    assert {} == node_options(["node"], {})


def test_options_are_passed_on_in_both_spellings() -> None:
    words = ["node", "--listen", "127.0.0.1:80", "--store=sqlite:/x=y"]

    assert {"--listen": "127.0.0.1:80", "--store": "sqlite:/x=y"} == node_options(words, {})


def test_an_option_counts_before_its_variable() -> None:
    environment = {"UNISONO_LISTEN": "127.0.0.1:1", "UNISONO_STATE": "/somewhere", "UNISONO_STORE": ""}

    assert {"--listen": "127.0.0.1:2", "--state": "/somewhere"} == node_options(
        ["node", "--listen", "127.0.0.1:2"], environment
    )


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["ps"],
        ["node", "status"],
        ["node", "--help"],
        ["node", "--listen"],
        ["node", "--listen", "--api"],
        ["node", "--listen="],
        ["node", "--listne", "127.0.0.1:80"],
        ["--state", "/x", "node"],
    ],
)
def test_everything_else_is_for_the_whole_command_line(words: list[str]) -> None:
    """It knows the help, the other commands, and what to say of a mistake."""
    assert node_options(words, {}) is None


def test_completion_is_for_the_whole_command_line() -> None:
    assert node_options(["node"], {"_UNISONO_COMPLETE": "bash_complete"}) is None


def test_the_options_are_those_of_the_command() -> None:
    """Written twice, they must not drift apart."""
    command = typer.main.get_command(app).commands["node"]  # type: ignore[attr-defined]

    found = {
        option.opts[0]: option.envvar
        for option in command.params
        if isinstance(option, TyperOption) and option.opts[0] != "--help"
    }

    assert NODE_OPTIONS == found
