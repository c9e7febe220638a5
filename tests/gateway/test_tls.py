"""TLS with clients: versions of HTTP, certificates by name, their renewal, clients' own certificates."""

from __future__ import annotations

import asyncio
import datetime
import ssl
from contextlib import suppress
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.gateway.backend import answering
from tests.gateway.conftest import Client, Stage
from unisono.gateway.errors import Unbound
from unisono.gateway.table import Certificate, Tls

GET = b"GET / HTTP/1.1\r\nHost: %s\r\n\r\n"


@dataclass
class Authority:
    """Signs certificates and writes them to a folder."""

    folder: Path

    def __post_init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "authority")])
        builder = self._builder(self.name, self.key)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        self.path = self.folder / "authority.pem"
        self.path.write_bytes(
            builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        )

    def issue(self, file: str, *names: str) -> Certificate:
        """A certificate for names, under a file name; one that is there is replaced."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, names[0])])
        alternatives: list[x509.GeneralName] = [
            x509.IPAddress(ip_address(name)) if name[0].isdigit() else x509.DNSName(name) for name in names
        ]
        builder = self._builder(subject, key).add_extension(
            x509.SubjectAlternativeName(alternatives), critical=False
        )
        made = Certificate(certificate=str(self.folder / f"{file}.pem"), key=str(self.folder / f"{file}.key"))
        self._write(builder, Path(made.certificate))
        Path(made.key).write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return made

    def context(self, *alpn: str) -> ssl.SSLContext:
        """For a client that trusts this authority."""
        context = ssl.create_default_context(cafile=str(self.path))
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if alpn:
            context.set_alpn_protocols(list(alpn))
        return context

    def _write(self, builder: x509.CertificateBuilder, path: Path) -> None:
        signed = builder.sign(self.key, hashes.SHA256())
        path.write_bytes(signed.public_bytes(serialization.Encoding.PEM))

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=1))
        )


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


async def connect(stage: Stage, context: ssl.SSLContext, name: str) -> Client:
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", stage.port, ssl=context, server_hostname=name, limit=1 << 20
    )
    return Client(reader, writer)


def read(path: str) -> bytes:
    return Path(path).read_bytes()


def write(path: str, data: bytes) -> None:
    Path(path).write_bytes(data)


def shown(client: Client) -> set[str]:
    """The names of the certificate that a client was shown."""
    certificate = client.writer.get_extra_info("ssl_object").getpeercert()
    return {name for _, name in certificate["subjectAltName"]}


async def test_alpn_agrees_on_the_version(stage: Stage, authority: Authority) -> None:
    """A client that knows HTTP/2 speaks it; one that doesn't speaks HTTP/1.1; both come as https."""
    (backend,) = await stage.serve(answering())
    stage.tls = Tls(certificates=(authority.issue("a", "shop.test"),))
    await stage.push()

    modern = await stage.connect_http2(authority.context("h2", "http/1.1"), "shop.test")
    status = (await modern.answer(await modern.request(host="shop.test"))).status
    plain = await connect(stage, authority.context("http/1.1"), "shop.test")
    await plain.say(GET % b"shop.test")
    answer = await plain.answer()

    chosen = modern.writer.get_extra_info("ssl_object").selected_alpn_protocol()
    schemes = [b"\r\nx-forwarded-proto: https\r\n" in head.lower() for head in backend.heads]
    assert (chosen, status, answer.status, schemes) == ("h2", 200, 200, [True, True])


async def test_the_certificate_is_chosen_by_name(stage: Stage, authority: Authority) -> None:
    """Each name gets its own certificate, a wildcard covers one label, others get the first."""
    await stage.serve(answering())
    stage.tls = Tls(
        certificates=(
            authority.issue("a", "a.test", "localhost"),
            authority.issue("b", "b.test"),
            authority.issue("w", "*.w.test"),
        )
    )
    await stage.push()

    names = [
        shown(await connect(stage, authority.context(), name)) for name in ("b.test", "x.w.test", "localhost")
    ]

    assert names == [{"b.test"}, {"*.w.test"}, {"a.test", "localhost"}]


async def test_a_host_of_another_certificate_is_sent_elsewhere(stage: Stage, authority: Authority) -> None:
    """421, so that a browser that reuses a connection opens another; a host without certificate passes."""
    await stage.serve(answering())
    stage.tls = Tls(certificates=(authority.issue("a", "a.test"), authority.issue("b", "b.test")))
    await stage.push()
    client = await connect(stage, authority.context(), "a.test")

    statuses = []
    for host in (b"a.test", b"b.test:443", b"c.test"):
        await client.say(GET % host)
        statuses.append((await client.answer()).status)

    assert statuses == [200, 421, 200]


async def test_a_renewed_certificate_is_shown_from_then_on(stage: Stage, authority: Authority) -> None:
    """Nobody restarts or pushes anything; connections that are there go on."""
    await stage.serve(answering())
    stage.tls = Tls(certificates=(authority.issue("a", "a.test"),))
    await stage.push()
    old = await connect(stage, authority.context(), "a.test")
    authority.issue("a", "a.test", "new.test")

    new = await connect(stage, authority.context(), "new.test")
    await old.say(GET % b"a.test")

    assert (shown(new), (await old.answer()).status) == ({"a.test", "new.test"}, 200)


async def test_a_broken_renewal_keeps_the_old_certificate(stage: Stage, authority: Authority) -> None:
    """A file that is cut, or a key that is another's, changes nothing; mending it does."""
    await stage.serve(answering())
    pair = authority.issue("a", "a.test")
    stage.tls = Tls(certificates=(pair,))
    await stage.push()

    write(pair.certificate, b"-----BEGIN CERTIFICATE-----\nAAAA")
    cut = shown(await connect(stage, authority.context(), "a.test"))
    other = authority.issue("other", "a.test", "b.test")
    write(pair.certificate, read(other.certificate))
    another_key = shown(await connect(stage, authority.context(), "a.test"))
    write(pair.key, read(other.key))
    mended = shown(await connect(stage, authority.context(), "a.test"))

    assert (cut, another_key, mended) == ({"a.test"}, {"a.test"}, {"a.test", "b.test"})


async def test_a_table_with_a_certificate_that_is_not_there_changes_nothing(
    stage: Stage, authority: Authority
) -> None:
    """The refusal names the file."""
    await stage.serve(answering())
    stage.tls = Tls(certificates=(replace(authority.issue("a", "a.test"), key="/nowhere/a.key"),))

    with pytest.raises(Unbound, match=r"a\.key"):
        await stage.push()

    assert (await stage.ask(GET % b"a")).status == 200


async def test_clients_show_certificates_where_that_is_asked(stage: Stage, authority: Authority) -> None:
    """With client_ca a client without a certificate of that authority gets nowhere."""
    (backend,) = await stage.serve(answering())
    stage.tls = Tls(certificates=(authority.issue("a", "a.test"),), client_ca=str(authority.path))
    await stage.push()
    own = authority.issue("client", "someone")
    known = authority.context()
    known.load_cert_chain(own.certificate, own.key)

    stranger = await connect(stage, authority.context(), "a.test")
    with suppress(ssl.SSLError, ConnectionError):
        await stranger.say(GET % b"a.test")
        assert await stranger.is_closed()
    client = await connect(stage, known, "a.test")
    await client.say(GET % b"a.test")

    assert ((await client.answer()).status, len(backend.heads)) == (200, 1)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
async def test_old_tls_is_refused(stage: Stage, authority: Authority) -> None:
    """1.2 is the oldest version that is spoken."""
    await stage.serve(answering())
    stage.tls = Tls(certificates=(authority.issue("a", "a.test"),))
    await stage.push()
    fine, old = authority.context(), authority.context()
    fine.maximum_version = ssl.TLSVersion.TLSv1_2
    old.set_ciphers("ALL:@SECLEVEL=0")
    old.minimum_version = ssl.TLSVersion.TLSv1_1
    old.maximum_version = ssl.TLSVersion.TLSv1_1

    version = (await connect(stage, fine, "a.test")).writer.get_extra_info("ssl_object").version()
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await connect(stage, old, "a.test")

    assert version == "TLSv1.2"


async def test_a_large_answer_passes_through_tls(stage: Stage, authority: Authority) -> None:
    """More than all buffers hold, to a client that reads late."""
    body = b"0123456789abcdef" * 500_000

    await stage.serve(answering(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body))
    stage.tls = Tls(certificates=(authority.issue("a", "a.test"),))
    await stage.push()
    client = await connect(stage, authority.context(), "a.test")
    await client.say(GET % b"a.test")
    await stage.until("in_flight", 1)

    answer = await client.answer()

    assert answer.body == body


async def test_clear_text_on_a_tls_port_is_refused(stage: Stage, authority: Authority) -> None:
    """The connection ends, and others are served."""
    await stage.serve(answering())
    stage.tls = Tls(certificates=(authority.issue("a", "a.test"),))
    await stage.push()
    client = await stage.connect()
    await client.say(GET % b"a.test")

    async with asyncio.timeout(30):
        said = await client.reader.read()

    assert not said.startswith(b"HTTP")
