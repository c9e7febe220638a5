"""The conformance kit finds no fault in a participant that is right, and each fault of one that is not."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.client.broken_participant import FAULTS, served
from tests.ports import free_port
from unisono.client import calling
from unisono.client.conformance import NotConnected, verify


@pytest.mark.parametrize("mode", ["saga", "tcc"])
def test_a_participant_that_is_right_has_no_faults(mode: str) -> None:
    """All cases are fine, with effects counted and without."""
    with served(mode) as url:
        findings = [*verify(url, mode, state_url=f"{url}/state"), *verify(url, mode)]

    assert [] == [finding for finding in findings if not finding.ok]


def test_interim_answers_are_no_fault() -> None:
    """A coordinator passes over them."""
    with served("tcc", "early hints") as url:
        findings = list(verify(url, "tcc", state_url=f"{url}/state"))

    assert [] == [finding for finding in findings if not finding.ok]


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_found_by_its_case(fault: str) -> None:
    """And is told in one line."""
    with served("tcc", fault) as url:
        findings = (
            {one.case: one.wrong for one in verify(url, "tcc", state_url=f"{url}/state", timeout=2)}
            if (fault != "hangs")
            else _until_wrong(url)
        )

    assert findings[FAULTS[fault]]
    assert "\n" not in findings[FAULTS[fault]]


def _until_wrong(url: str) -> dict[str, str]:
    """A participant that hangs takes a timeout a case: the first ones tell enough."""
    found = {}
    for one in verify(url, "tcc", timeout=0.3):
        found[one.case] = one.wrong
        if one.wrong:
            break
    return found


def test_where_nothing_answers_it_says_so() -> None:
    """One error instead of a dozen findings."""
    with pytest.raises(NotConnected, match="was not answered"):
        list(verify(f"http://127.0.0.1:{free_port()}", "saga"))


def test_a_payload_that_is_refused_is_told() -> None:
    """A participant that says no from the start can't be tried."""
    with served("saga") as url, pytest.raises(NotConnected, match="must say yes"):
        list(verify(url, "tcc"))


def test_a_participant_that_is_busy_all_the_time_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it needs may be held by another, so nothing is known of what it does wrong."""
    monkeypatch.setattr(calling, "PATIENCE", 0.2)

    with served("saga", "is always busy") as url, pytest.raises(NotConnected, match="held by another"):
        list(verify(url, "saga"))


@pytest.mark.parametrize(("fault", "code"), [("", 0), ("duplicate runs again", 1)])
def test_the_command_tells_and_ends_with_a_code(fault: str, code: int) -> None:
    """unisono txn verify, for people and for programs."""
    with served("tcc", fault) as url:
        command = [
            sys.executable,
            "-m",
            "unisono",
            "txn",
            "verify",
            url,
            "--mode",
            "tcc",
            "--state-url",
            f"{url}/state",
        ]
        plain = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        data = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=60, check=False)

    assert (code, code) == (plain.returncode, data.returncode)
    assert (code == 0) is json.loads(data.stdout)["ok"]
    assert ("WRONG  duplicate: try took effect twice" in plain.stdout) is bool(code)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["ftp://x"], "a URL begins with http:// or https://"),
        (["http://127.0.0.1:1", "--payload", "{"], "--payload is not JSON"),
    ],
)
def test_wrong_usage_is_told(arguments: list[str], complaint: str) -> None:
    """Exit code 2, and nothing is called."""
    command = [sys.executable, "-m", "unisono", "txn", "verify", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert 2 == done.returncode
    assert complaint in done.stderr
