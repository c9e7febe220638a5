"""Whatever is in a file, loading it gives an application or one clear error."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.spec.conftest import ENVIRON, Desk
from unisono.spec.fields import TRUTH
from unisono.spec.load import SpecError, load
from unisono.spec.schema import File, Service

WEB = "services:\n  web:\n    command: sleep 1\n"
LAUGHS = "a0: &a0 [lol, lol]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 10)
)

FILES: dict[str, tuple[str | bytes, str]] = {
    "a NUL": (b"services:\n  a\0b: 1\n", "unisono.yaml:2:4: found the character U+0000"),
    "an escaped NUL": ('services: {web: {command: "a\\0"}}', "unisono.yaml:1:27: found a NUL"),
    "tabs": ("services:\n\tweb:\n", "unisono.yaml:2:1: is no YAML"),
    "a list": ("- a\n- b\n", "unisono.yaml:1:1: found a list, want a mapping with the key services"),
    "a text": ("hello\n", 'unisono.yaml:1:1: found "hello", want a mapping'),
    "nothing": ("", "unisono.yaml:1:1: found an empty file"),
    "comments alone": ("# later\n", "unisono.yaml:1:1: found an empty file"),
    "no services": ("services:\n", "found no service to run"),
    "a service that is nothing": (
        "services:\n  web:\n",
        "unisono.yaml:2:7 services.web: found nothing, want a mapping",
    ),
    "50 MB": (b"#" * 50_000_000, "unisono.yaml: found 50,000,000 bytes, want at most 1,048,576"),
    "a billion laughs": (LAUGHS + "services: *a9\n", "more than 100,000 parts once aliases are followed"),
    "a recursive alias": ("services: &s\n  web: *s\n", "unisono.yaml:2:8: the alias *s stands inside"),
    "keys that stand twice": (
        WEB + "    command: sleep 2\n",
        'unisono.yaml:4:5: the key "command" stands here and in line 3',
    ),
    "deep nesting": ("[" * 200_000, "is nested too deep"),
    "latin-1": (
        "services: {café: {}}\n".encode("latin-1"),
        "unisono.yaml:1:15: found the byte 0xe9, want text in UTF-8",
    ),
    "UTF-16": (WEB.encode("utf-16"), "unisono.yaml:1:1: found the byte 0xff, want text in UTF-8"),
    "braces without quotes in braces": (
        "services: {web: {command: python a.py --port {port}}}",
        "is no YAML",
    ),
    "braces without quotes in brackets": (
        "services: {web: {command: [python, a.py, {port}]}}",
        "services.web.command[2]: found a mapping, want a text",
    ),
    "a list where a mapping belongs": ("services:\n  - web\n", "services: found a list, want a mapping"),
    "a mapping where a list belongs": (
        WEB + "    ports: {80: 80}\n",
        "services.web.ports: found a mapping, want a list",
    ),
    "a Python object": ("services: !!python/object/apply:os.system [ls]\n", "found the tag !!python"),
    "many unknown keys": (WEB + "".join(f"    k{i}: 1\n" for i in range(40_000)), "and 80 more"),
    "many parts": ("".join(f"k{i}: 1\n" for i in range(60_000)), "has more than 100,000 parts"),
    "a bare duration": (
        WEB + "    timeout: 10\n",
        "found 10, want a number with its unit, such as 10s or 10ms",
    ),
    "a huge number": (WEB + f"    scale: {'9' * 5000}\n", "want a whole number from 0 to 1000"),
    "tls at a service": (
        WEB + "    tls: {certificate: web.pem, key: web.key}\n",
        'found the unknown key "tls", want ports tls stands in one of ports, or at the top of the file',
    ),
    "a limit by another name": (WEB + "    rate_limit: 10\n", '"rate_limit", want concurrency'),
    "Compose of version 1": ("web:\n  command: sleep 1\n", "services stand under services:"),
    "an env_file that is a folder": (
        WEB + "    env_file: .\n",
        "services.web.env_file: .: found a folder, want a file",
    ),
    "an env_file that is not there": (
        WEB + "    env_file: x.env\n",
        "env_file: x.env: can't be read: No such file",
    ),
    "an extends that comes back": (
        "services: {a: {extends: b}, b: {extends: a}}",
        "a → b → a, which extends itself",
    ),
    "an include of itself": (f"include: [unisono.yaml]\n{WEB}", "unisono.yaml, which includes itself"),
    "too many services": (
        "services: {" + ", ".join(f"s{i}: {{}}" for i in range(1500)) + "}",
        "found 1500 services",
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_a_nasty_file_gives_one_clear_error(desk: Desk, name: str) -> None:
    """It names the place, what was found and what would be right."""
    text, message = FILES[name]
    error = desk.error(text)

    assert message in f"{error} {error.hint}"


PLACES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a symlink loop": (
        lambda path: path.symlink_to(path),
        "can't be read: Too many levels of symbolic links",
    ),
    "a folder": (Path.mkdir, "found a folder, want a file"),
    "a named pipe": (os.mkfifo, "found not a regular file, want a file"),
    "a link to a device": (
        lambda path: path.symlink_to("/dev/zero"),
        "found not a regular file, want a file",
    ),
    "nothing": (lambda path: None, "can't be read: No such file or directory"),
}


@pytest.mark.parametrize("name", PLACES)
def test_what_is_no_file_gives_one_clear_error(desk: Desk, name: str) -> None:
    """Nothing waits for it."""
    make, message = PLACES[name]
    make(desk.folder / "unisono.yaml")

    assert f"unisono.yaml: {message}" == str(desk.error())


def test_a_working_directory_that_is_gone_gives_one_clear_error(desk: Desk) -> None:
    """Relative paths mean nothing then."""
    path = desk.write(WEB)
    gone = desk.folder / "gone"
    gone.mkdir()
    os.chdir(gone)
    gone.rmdir()
    with pytest.raises(SpecError, match="the working directory can't be read"):
        load([path], environ=ENVIRON)


def test_an_env_file_line_that_is_wrong_is_named(desk: Desk) -> None:
    """With the file and line where it stands."""
    desk.write("A=1\nnonsense here\n", "a.env")

    assert "a.env:2:1: found 'nonsense here', want NAME=value" == str(desk.service_error("env_file: a.env"))


WORDS = [
    *TRUTH,
    "",
    "~",
    "0",
    "-1",
    "9",
    "1.5",
    "10s",
    "5m",
    "/a",
    "$X",
    "${X:-1}",
    "{port}",
    "a b",
    "8000:80",
    "sleep",
    "\0",
    "é",
]
SCALARS = (
    st.sampled_from(WORDS) | st.integers() | st.floats() | st.booleans() | st.none() | st.text(max_size=5)
)
KEYS = st.sampled_from(
    [*Service.model_fields, *File.model_fields, "test", "path", "min", "x-a", "web", "b", "<<"]
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.dictionaries(st.sampled_from(["web", "b", "c"]), st.dictionaries(KEYS, VALUES, max_size=5), max_size=3)
)
def test_any_tree_loads_or_gives_the_one_kind_of_error(desk: Desk, services: Any) -> None:
    """No other error ever comes out."""
    for service in services.values():
        service.setdefault("command", "sleep 1")
    text = yaml.safe_dump({"services": services}, allow_unicode=True)
    try:
        found = desk.load(text)
    except SpecError:
        return

    assert found.application.services


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.binary(max_size=200)
    | st.text(alphabet="services:\n web{}[]&*!<>|'\"#-? \t$,", max_size=120).map(str.encode)
)
def test_any_bytes_load_or_give_the_one_kind_of_error(desk: Desk, data: bytes) -> None:
    """Most are no YAML at all."""
    path = desk.write(data)
    with pytest.raises(SpecError) as caught:
        load([path], environ=ENVIRON)

    assert str(caught.value)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("{command: python a.py --port {port}}", "a text with {port} in it needs quotes"),
        ("{command: [python, a.py, {port}]}", 'write it in quotes: "{port}"'),
    ],
)
def test_braces_need_quotes_among_braces(desk: Desk, text: str, hint: str) -> None:
    """The commonest slip of a one-line service, of which YAML itself only says that it did not expect it."""
    assert hint in (desk.error(f"services: {{web: {text}}}").hint or "")
