"""Who gets into an etcd: certificates, users and passwords, on a real member that asks for them."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from tests.store.asking import put, take, write
from tests.store.etcd_server import Etcd, running, wait_healthy
from unisono.store.addresses import EtcdAddress, parse_store
from unisono.store.base import Broken, NotDone
from unisono.store.etcd import EtcdStore, connection


class Authority:
    """Certificates for a test, by the openssl command."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ca = folder / "ca.pem"
        self._openssl(
            "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
            "-days", "2", "-subj", "/CN=test", "-keyout", str(folder / "ca.key"), "-out", str(self.ca),
        )  # fmt: skip

    def certify(self, name: str) -> tuple[Path, Path]:
        """A certificate for 127.0.0.1, and its key."""
        key, asked, cert = (self.folder / f"{name}.{end}" for end in ("key", "csr", "pem"))
        extra = self.folder / "extra.cnf"
        extra.write_text("subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n")
        self._openssl(
            "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
            "-subj", f"/CN={name}", "-keyout", str(key), "-out", str(asked),
        )  # fmt: skip
        self._openssl(
            "x509", "-req", "-in", str(asked), "-CA", str(self.ca), "-CAkey", str(self.folder / "ca.key"),
            "-CAcreateserial", "-days", "2", "-extfile", str(extra), "-out", str(cert),
        )  # fmt: skip
        return cert, key

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is missing (Debian and Ubuntu: apt install openssl)")
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def guarded(authority: Authority) -> Iterator[Etcd]:
    """An etcd that speaks TLS, and asks for a certificate."""
    cert, key = authority.certify("server")
    extra = [f"--cert-file={cert}", f"--key-file={key}", f"--trusted-ca-file={authority.ca}"]
    with running(extra=[*extra, "--client-cert-auth"], scheme="https") as etcd:
        yield etcd


async def test_certificates(guarded: Etcd, authority: Authority) -> None:
    """With the right authority, and a certificate of its own, a store works, watches included."""
    cert, key = authority.certify("client")
    address = parse_store(guarded.url("tls", f"?ca={authority.ca}&cert={cert}&key={key}"))
    store = await EtcdStore.open(cast(EtcdAddress, address))

    revision = await write(store, put("k"))

    assert [batch.revision for batch in await take(store.watch("", after=revision - 1), 1)] == [revision]
    await store.close()


@pytest.mark.parametrize("query", ["", "?ca={ca}"], ids=["no TLS", "no certificate"])
async def test_without_a_certificate(
    guarded: Etcd, authority: Authority, query: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody else gets in: one error, in good time."""
    monkeypatch.setattr(connection, "PATIENCE", 0.5)
    address = parse_store(guarded.url("tls", query.format(ca=authority.ca)))

    with pytest.raises(NotDone, match="no member of the etcd"):
        await EtcdStore.open(cast(EtcdAddress, address))


async def test_a_certificate_that_is_not_there(guarded: Etcd, tmp_path: Path) -> None:
    """The error names the file."""
    address = parse_store(guarded.url("tls", f"?ca={tmp_path}/nowhere.pem"))

    with pytest.raises(Broken, match=r"nowhere\.pem: No such file"):
        await EtcdStore.open(cast(EtcdAddress, address))


@pytest.fixture(scope="module")
def users() -> Iterator[Etcd]:
    """An etcd with a user ``shop``, who may use the prefix ``shop`` alone."""
    with running() as etcd:
        etcd.ctl("user", "add", "root:root")
        etcd.ctl("user", "grant-role", "root", "root")
        etcd.ctl("user", "add", "shop:s3cret")
        etcd.ctl("role", "add", "shop")
        etcd.ctl("role", "grant-permission", "shop", "--prefix=true", "readwrite", "shop/")
        etcd.ctl("user", "grant-role", "shop", "shop")
        etcd.ctl("auth", "enable")
        yield etcd


def as_user(etcd: Etcd, password: str | None, *, prefix: str = "shop", user: str = "shop@") -> EtcdAddress:
    return replace(cast(EtcdAddress, parse_store(etcd.url(prefix, user=user))), password=password)


async def test_a_user_with_a_password(users: Etcd) -> None:
    """Reads, writes, leases and watches work; after the member lost all tokens, too."""
    store = await EtcdStore.open(as_user(users, "s3cret"))
    lease = await store.grant(60.0)
    revision = await write(store, put("k", lease=lease))
    watch = store.watch("", after=revision - 1)
    await take(watch, 1)
    users.members[0].kill()
    users.members[0].start()
    wait_healthy(users.members[0])

    again = await write(store, put("k"))
    await store.keep_alive(lease)

    assert [batch.revision for batch in await take(watch, 1)] == [again]
    await store.revoke(lease)
    await store.close()


@pytest.mark.parametrize(
    ("password", "prefix", "user", "says"),
    [
        ("wrong", "shop", "shop@", "does not know this user"),
        (None, "shop", "shop@", "password for .* is missing"),
        ("s3cret", "other", "shop@", "does not let this user"),
        (None, "shop", "", "wants a user"),
    ],
)
async def test_who_may_not(users: Etcd, password: str | None, prefix: str, user: str, says: str) -> None:
    """Each gets the reason, at once, and no password is shown."""
    with pytest.raises(Broken, match=says) as refused:
        await EtcdStore.open(as_user(users, password, prefix=prefix, user=user))
    assert "s3cret" not in str(refused.value)
    assert "wrong" not in str(refused.value)


async def test_an_etcd_without_users(users: Etcd) -> None:
    """A user is not silently left out."""
    with running() as open_to_all, pytest.raises(Broken, match="knows no users"):
        await EtcdStore.open(as_user(open_to_all, "s3cret"))
