"""Bad input: one clear error, a fitting exit code, nothing changed, and never a traceback."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ports import taken_port
from tests.system.conftest import Result, Site

pytestmark = pytest.mark.system

GOOD = "name: shop\nservices:\n  web: {command: python server.py, routes: [{path: /}]}\n"


def refused(site: Site, *arguments: str, code: int) -> Result:
    """Run a command that must fail with ``code`` and one error, and start nothing."""
    result = site.run(*arguments, ok=False)
    assert result.code == code, result.err
    assert result.err.count("error:") == 1
    assert result.out == ""
    return result


def untouched(site: Site) -> bool:
    """Whether nothing runs and no node was even started."""
    return not site.state.exists() and site.processes() == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            GOOD.replace("command:", "comand:"),
            r"unisono\.yaml:3:\d+ services\.web.*comand.*command",
        ),
        (
            GOOD.replace("python server.py", "no-such-program"),
            r"unisono\.yaml:3:\d+ services\.web\.command.*no-such-program",
        ),
        (
            "services:\n  a: {command: python server.py, depends_on: [b]}\n"
            "  b: {command: python server.py, depends_on: [a]}\n",
            r"unisono\.yaml:\d.*a.*b",
        ),
        (
            "services:\n  a: {command: python server.py, routes: [{path: /x}]}\n"
            "  b: {command: python server.py, routes: [{path: /x}]}\n",
            r"unisono\.yaml:3:\d+ .*/x",
        ),
        (GOOD + "  oops: [unclosed\n", r"unisono\.yaml:\d+"),
        ("\x00\x01\x02 no text at all", r"unisono\.yaml"),
        ("just a sentence", r"unisono\.yaml"),
        (
            GOOD.replace("command: python server.py", "command: 7.5"),
            r"unisono\.yaml:3:\d+ services\.web\.command",
        ),
        (GOOD.replace("command:", "env_file: nowhere.env, command:"), r"nowhere\.env"),
        (GOOD.replace("command:", "env_file: ., command:"), r"unisono\.yaml:3:\d+ services\.web\.env_file"),
    ],
    ids=[
        "unknown-key",
        "no-command",
        "cycle",
        "same-route",
        "no-yaml",
        "binary",
        "sentence",
        "type",
        "env",
        "dir",
    ],
)
def test_bad_file(site: Site, text: str, expected: str) -> None:
    """A file that is wrong is refused with file, line and field, before anything is started."""
    site.write(text)
    result = refused(site, "up", "-d", code=2)

    assert re.search(expected, result.err), result.err
    assert untouched(site)


def test_no_file(site: Site) -> None:
    """Without a file it is said which one is wanted."""
    result = refused(site, "up", "-d", code=2)

    assert "unisono.yaml" in result.err
    assert untouched(site)


def test_huge_file(site: Site) -> None:
    """50 MB of YAML are refused by their size, not parsed."""
    site.write(GOOD + "# " + "x" * 50_000_000 + "\n")
    result = refused(site, "config", code=2)

    assert "MiB" in result.err or "bytes" in result.err


def test_billion_laughs(site: Site) -> None:
    """Anchors that multiply are refused before they fill the memory."""
    levels = "\n".join(f"x-{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]" for n in range(1, 12))
    site.write(f"x-0: &l0 [lol]\n{levels}\n{GOOD}")

    refused(site, "config", code=2)


def test_unreadable_file(site: Site) -> None:
    """A file that can't be read is named with the reason."""
    site.write(GOOD)
    result = refused(site, "up", "-d", "-f", "nowhere.yaml", code=2)

    assert "nowhere.yaml" in result.err
    assert untouched(site)


@pytest.mark.parametrize(
    "arguments",
    [
        ("upp",),
        ("up", "--colour", "red"),
        ("scale", "web"),
        ("scale", "web=many"),
        ("scale", "web=-1"),
        ("logs", "--since", "yesterday"),
        ("logs", "--tail", "-1"),
        ("node", "--listen", "nowhere"),
        ("node", "--listen", "127.0.0.1:99999"),
        ("node", "--api-token-file", "nowhere"),
    ],
)
def test_wrong_usage(site: Site, arguments: tuple[str, ...]) -> None:
    """Wrong usage ends with 2 and changes nothing."""
    result = site.run(*arguments, ok=False)

    assert result.code == 2
    assert result.err
    assert untouched(site)


@pytest.mark.parametrize(
    "arguments",
    [("ps",), ("logs",), ("scale", "web=2"), ("down",), ("events",), ("node", "status"), ("node", "stop")],
)
def test_no_node(site: Site, arguments: tuple[str, ...]) -> None:
    """Without a node, commands that need one end with 3 and say how to start one."""
    result = refused(site, *arguments, code=3)

    assert "hint: `unisono up` starts a node" in result.err
    assert untouched(site)


def test_apply_needs_a_word(site: Site) -> None:
    """`apply` with nobody to ask needs --yes."""
    site.write(GOOD)
    site.run("up", "-d")
    site.write(GOOD.replace("server.py,", "server.py, scale: 3,"))
    result = site.run("apply", ok=False)

    assert result.code == 2
    assert "--yes" in result.err
    assert len(site.instances("web")) == 1


@pytest.fixture
def taken() -> Iterator[int]:
    with taken_port() as port:
        yield port


def test_published_port_in_use(site: Site, taken: int) -> None:
    """A published port that someone else has is named with its holder; nothing is left running."""
    site.write(GOOD.replace("routes: [{path: /}]", f"ports: ['{taken}:80']"))
    result = refused(site, "up", "-d", code=4)

    assert f"port {taken} is in use by" in result.err
    assert f"(pid {os.getpid()})" in result.err
    assert untouched(site)


def test_public_address_in_use(site: Site, taken: int) -> None:
    """The public address that someone else has is named with its holder and the remedy."""
    site.write(GOOD)
    result = refused(site, "up", "-d", "--listen", f"127.0.0.1:{taken}", code=4)

    assert f"port {taken} is in use by" in result.err
    assert "--listen" in result.err
    assert untouched(site)


def test_refused_in_a_folder_that_was_there(site: Site, taken: int) -> None:
    """What an earlier node left in the state folder stays, also when the next one is refused."""
    site.write(GOOD)
    site.run("up", "-d")
    site.run("down")
    kept = (site.state / "node-id").read_text()
    refused(site, "up", "-d", "--listen", f"127.0.0.1:{taken}", code=4)
    site.write(GOOD.replace("routes: [{path: /}]", f"ports: ['{taken}:80']"))
    refused(site, "up", "-d", code=4)

    assert kept == (site.state / "node-id").read_text()


def test_refused_change_leaves_what_runs(site: Site, taken: int) -> None:
    """A change that is refused leaves the application as it was."""
    site.write(GOOD)
    site.run("up", "-d")
    before = site.instances("web")
    site.write(GOOD.replace("routes:", f"ports: ['{taken}:80'], routes:"))
    refused(site, "apply", "--yes", code=4)
    after = site.instances("web")

    assert [(one["id"], one["pid"]) for one in after] == [(one["id"], one["pid"]) for one in before]


def test_unknown_service(site: Site) -> None:
    """A service that is not there is refused by name, and so is every other change of that command."""
    site.write(GOOD)
    site.run("up", "-d")
    result = refused(site, "scale", "web=2", "wep=2", code=4)

    assert "wep" in result.err
    assert len(site.instances("web")) == 1


def test_newer_state_folder(site: Site) -> None:
    """A state folder of a newer version is refused and left alone."""
    site.state.mkdir(mode=0o700)
    (site.state / "format").write_text("99\n")
    site.write(GOOD)
    result = refused(site, "up", "-d", code=4)

    assert "99" in result.err
    assert [path.name for path in site.state.iterdir()] == ["format"]
    assert site.processes() == []


def test_two_nodes_on_one_folder(site: Site) -> None:
    """A second node on a folder is refused and names the first; the first serves on."""
    site.write(GOOD)
    site.run("up", "-d")
    first = site.client.node()["pid"]
    result = refused(site, "node", code=4)

    assert f"pid {first}" in result.err
    assert site.client.node()["pid"] == first


def test_unsuitable_state_folder(site: Site) -> None:
    """A state folder that is a file is refused."""
    site.state.write_text("not a folder")
    site.write(GOOD)
    result = refused(site, "up", "-d", code=4)

    assert str(site.state) in result.err


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("mounting a file system needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_full_disk(site: Site, small_disk: Path) -> None:
    """On a full disk a change is refused with the cause; what runs runs on, and then all is well again."""
    site.state = small_disk / "state"
    site.write(GOOD)
    site.run("up", "-d")
    before = site.instances("web")
    filler = small_disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            pass
    site.write(GOOD.replace("routes:", "environment: {PAD: '" + "x" * 200_000 + "'}, routes:"))
    result = refused(site, "apply", "--yes", code=1)
    during = site.instances("web")
    filler.unlink()
    site.write(GOOD.replace("server.py,", "server.py, scale: 2,"))
    site.run("apply", "--yes")

    assert "disk is full" in result.err
    assert [one["pid"] for one in during] == [one["pid"] for one in before]
    assert len(site.instances("web")) == 2
