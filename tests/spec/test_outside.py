"""Which addresses beyond its services an application's transactions may call."""

from __future__ import annotations

import pytest

from tests.spec.conftest import Desk
from unisono.spec.outside import Outside

SERVICES = "services: {web: {command: sleep 1}}\n"


class TestWords:
    def test_without_the_word_nothing_is_allowed(self, desk: Desk) -> None:
        """The services are enough for most."""
        assert Outside() == desk.load(SERVICES).application.transactions

    def test_what_is_named_is_allowed(self, desk: Desk) -> None:
        """In the order of the file, without doubles."""
        text = (
            SERVICES + "transactions: {allow: [https://b.example, http://10.0.0.7:8080/a, https://b.example]}"
        )

        assert (
            Outside(allow=("https://b.example", "http://10.0.0.7:8080/a"))
            == desk.load(text).application.transactions
        )

    def test_config_prints_it(self, desk: Desk) -> None:
        """What is printed means the same."""
        loaded = desk.load(SERVICES + "transactions: {allow: [https://b.example/$$x]}")

        assert {"allow": ["https://b.example/$$x"]} == loaded.resolved["transactions"]

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("[https://b.example]", "want a mapping with keys such as allow"),
            ("{allowed: [https://b.example]}", 'found the unknown key "allowed", want allow'),
            ("{allow: https://b.example}", "want a list of addresses, such as [https://pay.example.com]"),
            ("{allow: [b.example]}", "want an address such as https://pay.example.com"),
            ("{allow: [ftp://b.example]}", "want an address such as https://pay.example.com"),
            ("{allow: ['https://b.example:99999']}", "want an address such as https://pay.example.com"),
            ("{allow: ['https://u:p@b.example']}", "without user, query, fragment and wildcards"),
            ("{allow: ['https://*.example']}", "without user, query, fragment and wildcards"),
            ("{allow: ['https://b.example/?a=1']}", "without user, query, fragment and wildcards"),
            ("{allow: ['https://b.example/a/../b']}", "without . and .. in its path"),
            (f"{{allow: [{', '.join(f'http://a{n}' for n in range(101))}]}}", "want at most 100"),
        ],
    )
    def test_what_is_no_address_is_refused(self, desk: Desk, text: str, message: str) -> None:
        """The error names what was found and what would be right."""
        assert message in str(desk.error(f"{SERVICES}transactions: {text}"))


ALLOWED = Outside(allow=("https://pay.example.com", "http://10.0.0.7:8080/ledger/"))


@pytest.mark.parametrize(
    "url",
    [
        "https://pay.example.com/charge",
        "https://pay.example.com",
        "https://pay.example.com:443/charge",
        "https://PAY.example.com/charge",
        "http://10.0.0.7:8080/ledger",
        "http://10.0.0.7:8080/ledger/north",
    ],
)
def test_what_lies_below_is_permitted(url: str) -> None:
    """The port may be left out where it is the usual one."""
    assert ALLOWED.permits(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://pay.example.com/charge",  # in clear text
        "https://pay.example.com:8443/charge",
        "https://pay.example.com.evil.example/",
        "https://evilpay.example.com/",
        "https://pay.example.com@evil.example/",
        "https://evil.example/https://pay.example.com/",
        "https://evil.example\\@pay.example.com/",
        "https://pay.example.com\\.evil.example/",
        "https://user@pay.example.com/",
        "https://pay.example.com./charge",
        "http://10.0.0.7:8080/ledgers",
        "http://10.0.0.7:8080/",
        "http://10.0.0.7:8080/ledger/../admin",
        "http://10.0.0.7:8080/ledger/%2e%2e/admin",
        "http://10.0.0.7:8080/ledger/%252e%252e/admin",
        "http://10.0.0.7:8080/ledger/..%2fadmin",
        "http://10.0.0.7:8080/ledger/..%5cadmin",
        "http://10.0.0.7/ledger/",
        "http://167772167:8080/ledger",
        "http://169.254.169.254/latest",
    ],
)
def test_what_only_looks_like_it_is_not(url: str) -> None:
    """However a server or a parser may read it."""
    assert not ALLOWED.permits(url)
