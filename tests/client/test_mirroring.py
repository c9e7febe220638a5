"""Reads from this machine's memory: what memory answers itself, and what it leaves to the node."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.client.nodes import NodeProcess
from unisono import client
from unisono._engine import SharedValue, SharedWriter
from unisono.client.keys import Session, revision_of
from unisono.client.mirroring import Mirror, MirrorSync, Tables
from unisono.state.tokens import Tokens

TOKENS = Tokens(b"secret")
SECOND = 1_000_000_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "table"


@pytest.fixture
def writer(path: Path) -> Iterator[SharedWriter]:
    made = SharedWriter(path, 1 << 16)
    made.put("config/a", b"memory", 7, 9)
    made.publish(10)
    yield made
    made.close()


@pytest.fixture
def mirror(node: NodeProcess, path: Path, writer: SharedWriter) -> MirrorSync:
    return MirrorSync(node.shared_sync().kv, Tables({"config/": str(path)}))


def seen(revision: int) -> str:
    return TOKENS.make("shop", revision)


class TestMemory:
    def test_a_value_has_its_revision_and_timestamp(self, mirror: MirrorSync) -> None:
        """As the node wrote them."""
        assert SharedValue(b"memory", 7, 9) == mirror.get("config/a")

    def test_what_is_not_there_has_none(self, mirror: MirrorSync) -> None:
        """The table holds all keys of its prefix, so that is an answer."""
        assert mirror.get("config/b") is None

    def test_both_faces_read_the_same(self, node: NodeProcess, path: Path, writer: SharedWriter) -> None:
        """Reading memory waits for nothing, so both do it without await."""
        mirror = Mirror(node.shared().kv, Tables({"config/": str(path)}))

        assert SharedValue(b"memory", 7, 9) == mirror.get("config/a")

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"consistency": "linearizable"}, "client.kv has linearizable"),
            ({"consistency": "bounded"}, "needs it"),
            ({"max_staleness": 1.0}, "for consistency 'bounded'"),
            ({"consistency": "bounded", "max_staleness": -1.0}, "at least 0"),
            ({"token": "x"}, "for consistency 'session'"),
        ],
    )
    def test_arguments_that_contradict_each_other_are_refused(
        self, mirror: MirrorSync, arguments: dict[str, object], message: str
    ) -> None:
        """With what would be right, whether there is a table or not."""
        for key in ("config/a", "other/a"):
            with pytest.raises(ValueError, match=message):
                mirror.read(key, **arguments)  # type: ignore[arg-type]


class TestBounded:
    def test_a_young_table_answers(self, mirror: MirrorSync, writer: SharedWriter) -> None:
        """As old as its writer says."""
        writer.progress(10, time.monotonic_ns() - SECOND)

        assert mirror.get("config/a", consistency="bounded", max_staleness=60.0) is not None

    def test_an_old_one_does_not(self, mirror: MirrorSync, writer: SharedWriter) -> None:
        """Though it is there: its node may be gone."""
        writer.progress(10, time.monotonic_ns() - 5 * SECOND)

        with pytest.raises(client.NotMirrored, match="may be 5"):
            mirror.get("config/a", consistency="bounded", max_staleness=2.0)
        assert mirror.get("config/a") is not None


class TestSession:
    def test_what_the_session_has_seen_is_read(self, mirror: MirrorSync) -> None:
        """The table is there, and the value is not newer than the token says."""
        assert mirror.get("config/a", consistency="session", token=seen(10)) is not None
        assert mirror.get("config/a", consistency="session", token=seen(7)) is not None

    def test_a_table_that_lags_behind_it_does_not_answer(self, mirror: MirrorSync) -> None:
        """The session wrote, and memory has not heard of it."""
        with pytest.raises(client.NotMirrored, match="stands at revision 10, the session has seen 11"):
            mirror.get("config/a", consistency="session", token=seen(11))

    def test_what_the_token_could_not_pass_on_is_not_read(self, mirror: MirrorSync) -> None:
        """Else the next service, with the same token, might look back behind it."""
        with pytest.raises(client.NotMirrored, match="set at revision 7, the session has seen 6"):
            mirror.get("config/a", consistency="session", token=seen(6))
        with pytest.raises(client.NotMirrored, match="may have been removed"):
            mirror.get("config/b", consistency="session", token=seen(10))

    def test_the_session_in_force_counts(self, mirror: MirrorSync) -> None:
        """One that has seen nothing begins at the node."""
        with client.session(), pytest.raises(client.NotMirrored, match="seen nothing yet"):
            mirror.get("config/a", consistency="session")
        with client.session(seen(10)):
            assert mirror.get("config/a", consistency="session") is not None

    def test_a_token_tells_its_revision(self) -> None:
        """As the nodes make them; of any other nothing is believed."""
        assert 1 << 40 == revision_of(seen(1 << 40))
        assert [None, None, None] == [revision_of(text) for text in ("", "no token", seen(1)[:-4])]
        assert 5 == Session(seen(5)).revision


class TestFallback:
    async def test_what_memory_can_not_answer_the_node_does(
        self, node: NodeProcess, path: Path, writer: SharedWriter
    ) -> None:
        """No table, an old one, a session beyond it; with and without asyncio."""
        shared, tables = node.shared(), Tables({"config/": str(path)})
        await shared.kv.put("config/a", b"node")
        await shared.kv.put("elsewhere", b"node")
        writer.progress(0, time.monotonic_ns() - 5 * SECOND)
        mirror = Mirror(shared.kv, tables)
        found = [
            await mirror.read("elsewhere"),
            await mirror.read("config/a", consistency="bounded", max_staleness=1.0),
        ]
        with client.session() as here:
            await shared.kv.put("config/a", b"node")
            found.append(await mirror.read("config/a", consistency="session"))
            found.append(await mirror.read("config/a", consistency="session", token=here.token))

        assert 4 * [b"node"] == [value and value.value for value in found]
        assert {None} == {value.timestamp for value in found if value}
        twin = MirrorSync(node.shared_sync().kv, tables).read("elsewhere")
        assert twin is not None
        assert twin.value == b"node"
        assert b"memory" == getattr(await mirror.read("config/a"), "value", None)

    def test_each_reason_is_said(
        self, node: NodeProcess, tmp_path: Path, path: Path, writer: SharedWriter
    ) -> None:
        """A missing table, a foreign one, one of another layout, a key left out, a table taken away."""
        (tmp_path / "foreign").write_bytes(b"something else")
        old = bytearray(path.read_bytes())
        old[8:16] = (1).to_bytes(8, sys.byteorder)
        (tmp_path / "old").write_bytes(old)
        paths = {f"{name}/": str(tmp_path / name) for name in ("none", "foreign", "old")}
        mirror = MirrorSync(node.shared_sync().kv, Tables({**paths, "config/": str(path)}))
        for key, message in (
            ("else", "no table in this machine's memory holds 'else'"),
            ("none/a", "No such file"),
            ("foreign/a", "no table of unisono"),
            ("old/a", "has layout 1"),
        ):
            with pytest.raises(client.NotMirrored, match=message):
                mirror.get(key)
        writer.leave_out("config/a")
        with pytest.raises(client.NotMirrored, match="no room for all"):
            mirror.get("config/a")
        writer.close()
        SharedWriter.remove(path)
        with pytest.raises(client.NotMirrored, match="No such file"):
            mirror.get("config/a")

    def test_a_table_that_comes_later_is_found(self, node: NodeProcess, path: Path) -> None:
        """An instance may start before the node has filled it."""
        mirror = MirrorSync(node.shared_sync().kv, Tables({"config/": str(path)}))
        with pytest.raises(client.NotMirrored):
            mirror.get("config/a")
        writer = SharedWriter(path, 1 << 16)
        writer.put("config/a", b"late", 1, 1)
        writer.publish(1)

        assert mirror.get("config/a") == SharedValue(b"late", 1, 1)


class TestEnvironment:
    def test_an_instance_finds_its_tables(self, path: Path, writer: SharedWriter) -> None:
        """With nothing to configure; with asyncio and without."""
        program = (
            "from unisono import client\n"
            "from unisono.client import sync\n"
            "print(client.mirror.get('config/a').value, sync.mirror.get('config/a').value)"
        )
        shared = json.dumps({"config/": str(path)})
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={"UNISONO_SHARED": shared, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        )

        assert "b'memory' b'memory'\n" == done.stdout

    def test_the_first_read_may_be_in_a_thread_that_ends(self, path: Path, writer: SharedWriter) -> None:
        """As in a server with a thread for each request; the engine is loaded then, and stays whole."""
        writer.progress(10, 1)
        program = (
            "import threading, time\n"
            "from unisono.client import sync\n"
            "for number in range(6):\n"
            "    thread = threading.Thread(target=lambda: sync.mirror.get('config/a'))\n"
            "    thread.start(); thread.join()\n"
            "    sync.mirror.get('config/a')\n"
            "    time.sleep(0.6 * (number % 2))  # the table is old: now and then it is opened anew\n"
            "print(sync.mirror.get('config/a').value)"
        )
        shared = json.dumps({"config/": str(path)})
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={"UNISONO_SHARED": shared, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=False,
        )

        assert (0, "b'memory'\n") == (done.returncode, done.stdout), done.stderr

    def test_what_it_can_not_understand_it_says(
        self, node: NodeProcess, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Rather than to ask the node for ever."""
        monkeypatch.setenv("UNISONO_SHARED", "[1]")

        with pytest.raises(ValueError, match=r"UNISONO_SHARED is '\[1\]', want a JSON object"):
            MirrorSync(node.shared_sync().kv, Tables()).get("a")
