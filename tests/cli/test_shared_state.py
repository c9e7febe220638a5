"""The commands over shared state, as processes, against a real node: kv, lock run, clock."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.client.nodes import NodeProcess
from tests.databases import LIMIT, wait_for
from unisono.cli.kv import text


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    """A node that all may ask and none may harm."""
    with NodeProcess(tmp_path_factory.mktemp("node")) as found:
        yield found


@pytest.fixture
def own_node(tmp_path: Path) -> Iterator[NodeProcess]:
    """A node to kill and to pause."""
    with NodeProcess(tmp_path) as found:
        yield found


def start(node: NodeProcess, *arguments: str) -> subprocess.Popen[bytes]:
    """A command that runs."""
    return subprocess.Popen(
        [sys.executable, "-m", "unisono", "-p", "shop", *arguments],
        env=node.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def run(node: NodeProcess, *arguments: str, given: bytes = b"") -> tuple[int, bytes, str]:
    """A command that has ended: its exit code, what it printed, and what it said."""
    done = subprocess.run(
        [sys.executable, "-m", "unisono", "-p", "shop", *arguments],
        env=node.environment,
        input=given,
        capture_output=True,
        timeout=LIMIT,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr.decode()


def test_what_is_put_is_printed_byte_for_byte(node: NodeProcess) -> None:
    """Also what is no text, from stdin."""
    run(node, "kv", "put", "bytes", given=b"\x00\xff\n")

    assert (0, b"\x00\xff\n", "") == run(node, "kv", "get", "bytes")


def test_a_value_without_end_is_refused(node: NodeProcess) -> None:
    """It is not waited for, and nothing is set."""
    with open("/dev/zero", "rb") as zeros:
        done = subprocess.run(
            [sys.executable, "-m", "unisono", "-p", "shop", "kv", "put", "endless"],
            env=node.environment,
            stdin=zeros,
            capture_output=True,
            timeout=LIMIT,
            check=False,
        )

    assert done.returncode == 2
    assert b"at most 1048576" in done.stderr
    assert 4 == run(node, "kv", "get", "endless")[0]


def test_programs_get_json(node: NodeProcess) -> None:
    """Text as it is, other bytes as base64, and the revisions."""
    revision = int(run(node, "kv", "put", "json", "41")[1])

    found = json.loads(run(node, "kv", "get", "json", "--json")[1])

    assert {
        "key": "json",
        "value": "41",
        "encoding": "utf-8",
        "revision": revision,
        "created": revision,
    } == found


def test_a_key_that_is_not_there_ends_with_4(node: NodeProcess) -> None:
    """And prints nothing."""
    assert (4, b"", "error: there is no key 'nothing'\n") == run(node, "kv", "get", "nothing")


def test_a_write_on_a_condition_that_does_not_hold_ends_with_4(node: NodeProcess) -> None:
    """Nothing is changed."""
    run(node, "kv", "put", "condition", "1", "--if-revision", "0")

    code, _, said = run(node, "kv", "put", "condition", "2", "--if-revision", "0")

    assert 4 == code
    assert "not as it was expected" in said
    assert b"1" == run(node, "kv", "get", "condition")[1]


def test_keys_are_listed_in_their_order(node: NodeProcess) -> None:
    """A deleted one is not among them."""
    for key in ("list/b", "list/a", "list/c"):
        run(node, "kv", "put", key, "x")
    run(node, "kv", "del", "list/c")

    found = json.loads(run(node, "kv", "scan", "list/", "--json")[1])

    assert (["list/a", "list/b"], False) == ([one["key"] for one in found["entries"]], found["more"])
    assert b"KEY" in run(node, "kv", "scan", "list/")[1]


def test_a_watch_prints_a_line_for_each_change(node: NodeProcess) -> None:
    """What there is first; it ends with 130 at Ctrl-C."""
    run(node, "kv", "put", "seen/a", "1")
    watching = start(node, "kv", "watch", "seen/", "--json")
    assert watching.stdout is not None
    lines = [json.loads(watching.stdout.readline())]
    run(node, "kv", "del", "seen/a")
    lines.append(json.loads(watching.stdout.readline()))
    watching.send_signal(signal.SIGINT)

    assert [("put", "1"), ("delete", None)] == [(line["kind"], line.get("value")) for line in lines]
    assert 130 == watching.wait(LIMIT)


def test_values_are_shown_on_one_line() -> None:
    """Whatever they hold."""
    assert ["41", r"a\nb", r"\x00\xff"] == [text(value) for value in (b"41", b"a\nb", b"\x00\xff")]


def test_a_command_has_the_token_and_passes_its_exit_code_on(node: NodeProcess) -> None:
    """The token rises from run to run."""
    script = 'echo "$UNISONO_FENCING_TOKEN"; exit 7'

    first = run(node, "lock", "run", "code", "--", "sh", "-c", script)
    second = run(node, "lock", "run", "code", "--", "sh", "-c", script)

    assert (7, 7, "", "") == (first[0], second[0], first[2], second[2])
    assert 0 < int(first[1]) < int(second[1])


def test_a_command_that_a_signal_ended_ends_with_128_and_more(node: NodeProcess) -> None:
    """As in a shell."""
    assert 128 + 9 == run(node, "lock", "run", "signal", "--", "sh", "-c", "kill -9 $$")[0]


def test_a_lock_that_another_holds_ends_with_4(node: NodeProcess) -> None:
    """The command has not run; once the holder is killed, the next one runs at once."""
    holder = start(node, "lock", "run", "--ttl", "600", "busy", "--", "sh", "-c", "echo $$; sleep 600")
    assert holder.stdout is not None
    child = int(holder.stdout.readline())

    refused = run(node, "lock", "run", "--wait", "0", "busy", "--", "echo", "ran")
    holder.kill()
    holder.wait(LIMIT)
    after = run(node, "lock", "run", "--wait", "30", "busy", "--", "echo", "ran")

    assert (4, b"") == refused[:2]
    assert (0, b"ran\n", "") == after
    wait_for(lambda: not _lives(child), "the command of the holder that was killed", lambda: "")


def test_a_signal_reaches_the_command(node: NodeProcess) -> None:
    """Which may end as it likes; the lock is given back then."""
    holder = start(
        node,
        "lock",
        "run",
        "--ttl",
        "600",
        "term",
        "--",
        "sh",
        "-c",
        "trap 'exit 5' TERM; echo; sleep 600 & wait",
    )
    assert holder.stdout is not None
    holder.stdout.readline()
    holder.terminate()

    assert 5 == holder.wait(LIMIT)
    assert (0, b"", "") == run(node, "lock", "run", "--wait", "0", "term", "--", "true")


def test_a_signal_while_it_waits_leaves_the_line(node: NodeProcess) -> None:
    """It ends with 130, and the command never runs."""
    holder = start(node, "lock", "run", "--ttl", "600", "line", "--", "sh", "-c", "echo; sleep 600")
    assert holder.stdout is not None
    holder.stdout.readline()
    waiting = start(node, "lock", "run", "line", "--", "echo", "ran")
    assert waiting.stderr is not None
    assert b"waits for the lock 'line'\n" == waiting.stderr.readline()
    waiting.terminate()

    assert (130, b"") == (waiting.wait(LIMIT), waiting.stdout.read() if waiting.stdout else None)
    holder.terminate()
    holder.wait(LIMIT)


def test_a_command_is_stopped_before_the_lock_is_lost(own_node: NodeProcess) -> None:
    """With all that it started, even where it does not listen to SIGTERM."""
    script = "trap '' TERM; sleep 600 & echo $$ $!; wait; sleep 600"
    holder = start(own_node, "lock", "run", "--ttl", "2", "lost", "--", "sh", "-c", script)
    assert holder.stdout is not None
    pids = [int(pid) for pid in holder.stdout.readline().split()]
    own_node.signal(signal.SIGSTOP)
    try:
        wait_for(lambda: not any(map(_lives, pids)), "the end of the command", lambda: "")
    finally:
        own_node.signal(signal.SIGCONT)

    assert 1 == holder.wait(LIMIT)
    assert holder.stderr is not None
    assert b"is lost: not renewed" in holder.stderr.read()


def test_a_command_that_does_not_exist_is_wrong_usage(node: NodeProcess) -> None:
    """Before a lock is asked for."""
    assert (2, b"", "error: there is no command 'no-such-command'\n") == run(
        node, "lock", "run", "x", "--", "no-such-command"
    )


def test_the_clock_is_shown(node: NodeProcess) -> None:
    """For people and for programs."""
    found = json.loads(run(node, "clock", "--json")[1])

    assert found["millis"] << 16 | found["counter"] == int(found["hlc"], 16)
    assert run(node, "clock")[1].startswith(b"HLC")


def test_without_a_node_they_end_with_3(own_node: NodeProcess) -> None:
    """As every command does, at once and in its words."""
    own_node.end()
    own_node.environment["UNISONO_PROJECT"] = "shop"

    code, _, said = run(own_node, "kv", "get", "a")

    assert 3 == code
    assert said.splitlines()[0].endswith("api.sock: No such file or directory")


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
