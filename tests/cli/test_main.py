"""The command line as a whole: help, version, configuration, what it imports."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from tests.docs.pages import ROOT
from unisono import __version__
from unisono.cli.exits import MEANINGS, Code
from unisono.daemon.settings import CannotRun, settings_of

COMMANDS = [
    "up",
    "down",
    "apply",
    "ps",
    "logs",
    "scale",
    "restart",
    "rollout",
    "events",
    "config",
    "node",
    "demo",
    "version",
]


def run(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "unisono", *arguments], cwd=cwd, capture_output=True, text=True, check=False
    )


def test_version() -> None:
    """The version, for people and for programs."""
    assert run("version").stdout == f"unisono {__version__}\n"
    assert json.loads(run("version", "--json").stdout) == {"version": __version__}


@pytest.mark.parametrize(
    "command", [(), *((name,) for name in COMMANDS), ("rollout", "undo"), ("node", "stop")]
)
def test_help(command: tuple[str, ...]) -> None:
    """Every command has help, and those that do something an example."""
    done = run(*command, "--help")

    assert done.returncode == 0
    assert "Usage: unisono" in done.stdout
    assert not command or command == ("rollout",) or "Example" in done.stdout


@pytest.mark.parametrize(
    ("words", "message", "command"),
    [
        (("frob",), "no such command 'frob'", "unisono"),
        (("up", "--frob"), "no such option: --frob", "unisono up"),
        (("kv", "get"), "missing argument 'KEY'", "unisono kv get"),
        (
            ("config", "--format", "xml"),
            "invalid value for '--format': 'xml' is not one of 'yaml', 'json'",
            "unisono config",
        ),
        (
            ("logs", "--tail", "x"),
            "invalid value for '--tail' / '-n': found 'x', want a valid integer",
            "unisono logs",
        ),
        (
            ("logs", "--tail", "100001"),
            "invalid value for '--tail' / '-n': found '100001', want less than or equal to 100000",
            "unisono logs",
        ),
        (("--file",), "option '--file' requires an argument", "unisono"),
    ],
)
def test_wrong_usage(words: tuple[str, ...], message: str, command: str) -> None:
    """A command used wrongly ends with 2, and with an error in the form of all others."""
    done = run(*words)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: {message}\nhint: `{command} -h` shows how\n"


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        (
            "unisono.cli.main",
            "fastapi uvicorn starlette yaml rich sqlite3 asyncio unisono.api unisono.spec.load",
        ),
        ("unisono.__main__", "typer asyncio pydantic unisono.cli unisono.daemon"),
        ("unisono.client", "http.client pydantic asyncio typer unisono.spec unisono.store"),
        ("unisono.client.node", "pydantic asyncio typer unisono.spec unisono.store"),
        (
            "unisono.daemon",
            "fastapi uvicorn starlette pydantic unisono.gateway.link unisono.gateway.process"
            " unisono.node.agent unisono.control.loop unisono.control.records unisono.spec.model",
        ),
    ],
)
def test_imports_stay_small(module: str, unwanted: str) -> None:
    """
    A command that only talks to the node does not load what a node consists of; a node that starts, nothing
    that transactions which were open would have to wait for.
    """
    code = f"import sys, {module}; print([name for name in {unwanted.split()!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"


def test_config_round_trip(tmp_path: Path) -> None:
    """What `config` prints is a file that means the same."""
    (tmp_path / "unisono.yaml").write_text(
        "services:\n  web: {command: [sleep, '1'], environment: {PRICE: $$5}, scale: 2}\n"
    )
    first = run("config", cwd=tmp_path)
    (tmp_path / "unisono.yaml").write_text(first.stdout)
    second = run("config", cwd=tmp_path)

    assert first.returncode == 0, first.stderr
    assert second.stdout == first.stdout
    assert json.loads(run("config", "--json", cwd=tmp_path).stdout)["services"]["web"]["command"]
    assert run("config", "--services", cwd=tmp_path).stdout == "web\n"


def test_schema() -> None:
    """`config --schema` needs no file and prints a valid JSON Schema."""
    jsonschema.Draft202012Validator.check_schema(json.loads(run("config", "--schema").stdout))


def test_options_before_or_after_the_command(tmp_path: Path) -> None:
    """An option that is common to all commands may stand on either side."""
    (tmp_path / "other.yaml").write_text("services:\n  web: {command: [sleep, '1']}\n")

    assert run("-f", "other.yaml", "config", "--services", cwd=tmp_path).stdout == "web\n"
    assert run("config", "-f", "other.yaml", "--services", cwd=tmp_path).stdout == "web\n"


def test_exit_codes_are_documented() -> None:
    """The page has a row for each code, with the words of the code."""
    page = (ROOT / "docs/reference/exit-codes.md").read_text()
    rows = dict(re.findall(r"^\| (\d+) \| ([^|]+) \|", page, re.MULTILINE))

    assert rows == {str(int(code)): meaning for code, meaning in MEANINGS.items()}


def test_compose_variables_name_files_and_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """COMPOSE_FILE holds several, later ones laid on earlier ones; -f comes before it."""
    (tmp_path / "a.yaml").write_text("services: {a: {command: sleep 1}}")
    (tmp_path / "b.yaml").write_text("services: {b: {command: sleep 1}}")
    monkeypatch.setenv("COMPOSE_FILE", "a.yaml,b.yaml")
    monkeypatch.setenv("COMPOSE_PATH_SEPARATOR", ",")
    monkeypatch.setenv("COMPOSE_PROJECT_NAME", "other")

    both = json.loads(run("config", "--json", cwd=tmp_path).stdout)
    one = json.loads(run("-f", "b.yaml", "-p", "mine", "config", "--json", cwd=tmp_path).stdout)

    assert (both["name"], set(both["services"])) == ("other", {"a", "b"})
    assert (one["name"], set(one["services"])) == ("mine", {"b"})


def test_a_wrong_option_of_the_node_is_one_error() -> None:
    """What the node's own program refuses reads like what the commands refuse: no list of all options."""
    with pytest.raises(CannotRun, match="--access-log: invalid choice: 'xml'") as raised:
        settings_of(["--access-log", "xml"])

    assert raised.value.code == Code.USAGE
