"""The parts of the store on etcd that need no etcd: addresses, order of writes, deadlines, generated code."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import pytest

from unisono.store import opening
from unisono.store.addresses import BadStoreAddress, EtcdAddress, SqliteAddress, parse_store
from unisono.store.etcd import wire_pb2
from unisono.store.etcd.keys import Keys
from unisono.store.etcd.leases import Deadlines
from unisono.store.etcd.order import Order
from unisono.store.etcd.plans import written_at


@pytest.mark.parametrize(
    ("text", "endpoints", "prefix", "user"),
    [
        ("etcd://a", ("a:2379",), "unisono", None),
        ("etcd://a:1,b/shop", ("a:1", "b:2379"), "shop", None),
        ("etcd://me@[::1]:7,[fe80::2]/a/b/", ("[::1]:7", "[fe80::2]:2379"), "a/b", "me"),
        ("etcd://m%40e@a/x%2Fy", ("a:2379",), "x/y", "m@e"),
    ],
)
def test_addresses(text: str, endpoints: tuple[str, ...], prefix: str, user: str | None) -> None:
    """Members with or without ports, a prefix, a user."""
    assert parse_store(text) == EtcdAddress(endpoints=endpoints, prefix=prefix, user=user)


def test_files_of_an_address() -> None:
    """They make connections TLS, and are absolute, for a node may start elsewhere."""
    address = parse_store("etcd://a?ca=x/ca.pem&cert=/c.pem&key=/k.pem")

    assert isinstance(address, EtcdAddress)
    assert (address.ca, address.cert, address.key) == (
        Path.cwd() / "x/ca.pem",
        Path("/c.pem"),
        Path("/k.pem"),
    )
    assert address.tls
    assert parse_store("sqlite:/x/y.db") == SqliteAddress(path=Path("/x/y.db"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("nonsense", "is no address of a store"),
        ("sqlite:", "names no file"),
        ("sqlite://x", "names no file"),
        ("etcd://", "no member"),
        ("etcd://a,,b", "no member"),
        ("etcd://::1", "IPv6 in brackets"),
        ("etcd://a:0", "port"),
        ("etcd://a:x", "port"),
        ("etcd://a:" + "9" * 5000, "port"),
        ("etcd://@a", "without a user"),
        ("etcd://u:pw@a", "holds a password"),
        ("etcd://a?cert=/c", "go together"),
        ("etcd://a?ca=", "needs one file"),
        ("etcd://a?timeout=3", "'timeout' is not known"),
        ("etcd://a/%00", "prefix"),
    ],
)
def test_bad_addresses(text: str, says: str) -> None:
    """What is no address says what would be, and never repeats what may be a password."""
    with pytest.raises(BadStoreAddress, match=says) as refused:
        parse_store(text)
    assert "pw" not in str(refused.value)


def test_a_password_is_not_shown() -> None:
    """Neither as text nor in a trace."""
    address = EtcdAddress(endpoints=("a:1",), user="me", password="s3cret")

    assert "s3cret" not in f"{address} {address!r}"


def test_the_store_used_last_is_found(tmp_path: Path) -> None:
    """What was kept holds until something else is asked for; a password is read from its file each time."""
    kept, secret = tmp_path / "store", tmp_path / "secret"
    secret.write_text("one\n")
    secret.chmod(0o600)
    default = tmp_path / "store.db"

    first = opening.choose(None, kept=kept, default=default)
    opening.keep(kept, "etcd://me@a/x", secret)
    secret.write_text("two\n")
    second = opening.choose(None, kept=kept, default=default)
    third = opening.choose("sqlite:/other.db", kept=kept, default=default)

    assert first == SqliteAddress(path=default)
    assert second == EtcdAddress(endpoints=("a:2379",), prefix="x", user="me", password="two")
    assert third == SqliteAddress(path=Path("/other.db"))


@pytest.mark.parametrize(("mode", "text", "says"), [(0o644, "x", "chmod 600"), (0o600, "\n", "is empty")])
def test_bad_password_files(tmp_path: Path, mode: int, text: str, says: str) -> None:
    """Others must not be able to read it, and something must be in it."""
    path = tmp_path / "secret"
    path.write_text(text)
    path.chmod(mode)

    with pytest.raises(BadStoreAddress, match=says):
        opening.read_password(path)


async def test_writes_to_one_key_take_turns() -> None:
    """In the order in which they came; others, and those who share, go side by side."""
    order, said = Order(), list[str]()
    gates = {name: asyncio.Event() for name in ("a1", "a2", "b", "s1", "s2", "all", "late")}

    async def turn(name: str, alone: set[str], shared: set[str], everything: bool = False) -> None:
        turn = order.enter(alone, shared, everything=everything)
        await turn.come()
        said.append(name)
        await gates[name].wait()
        order.leave(turn)

    async def settle() -> list[str]:
        for _ in range(10):
            await asyncio.sleep(0)
        return said

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(turn("a1", {"a"}, set()))
        tasks.create_task(turn("a2", {"a"}, set()))
        tasks.create_task(turn("b", {"b"}, {"lease"}))
        tasks.create_task(turn("s1", set(), {"lease"}))
        tasks.create_task(turn("s2", {"lease"}, set()))
        tasks.create_task(turn("all", set(), set(), everything=True))
        tasks.create_task(turn("late", {"z"}, set()))
        assert await settle() == ["a1", "b", "s1"]
        gates["a1"].set()
        assert await settle() == ["a1", "b", "s1", "a2"]
        for name in ("a2", "b", "s1"):
            gates[name].set()
        assert await settle() == ["a1", "b", "s1", "a2", "s2"]
        gates["s2"].set()
        assert await settle() == ["a1", "b", "s1", "a2", "s2", "all"]
        gates["all"].set()
        gates["late"].set()

    assert said[-1] == "late"
    assert order._lanes == {}


def test_a_lease_ends_here_by_when_it_was_asked_for() -> None:
    """Its time counts from the request; a renewal that was overtaken moves nothing back."""
    deadlines = Deadlines()
    deadlines.add(7, 10.0, asked=100.0)
    deadlines.renew(7, asked=105.0)
    deadlines.renew(7, asked=101.0)

    assert not deadlines.ended(7, 114.9)
    assert deadlines.ended(7, 115.0)
    assert not deadlines.ended(8, 1e9)


def test_the_mark_is_no_key() -> None:
    """A scan or removal of everything leaves the mark out; a watch of everything has it."""
    keys = Keys("x")

    assert keys.under("")[0] > keys.mark
    assert keys.everything()[0] == keys.mark
    assert keys.under("a") == (b"x/data/a", b"x/data/b")


def test_records_of_others_are_old() -> None:
    """A slot's record tells when it was written; what is not one counts as very old."""
    assert (written_at(b"y 1700000000"), written_at(b"junk")) == (1_700_000_000, 0)


def test_the_generated_code_is_current() -> None:
    """wire_pb2 was made from wire.proto as it is: else run scripts/etcd_wire.sh."""
    folder = Path(wire_pb2.__file__).parent
    digest = hashlib.sha256((folder / "wire.proto").read_bytes()).hexdigest()

    for name in ("wire_pb2.py", "wire_pb2.pyi"):
        assert digest in (folder / name).read_text().partition("\n")[0]


def test_messages_have_a_package_of_their_own() -> None:
    """No other client's messages have such names, so both can be in one process."""
    assert wire_pb2.DESCRIPTOR.package == "unisono.store.etcd"
    assert wire_pb2.DESCRIPTOR.name == "unisono/store/etcd/wire.proto"
