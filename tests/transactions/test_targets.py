"""Where branches may lead: services, what a file allows besides, and what names lead to (trap 18)."""

from __future__ import annotations

import asyncio

import pytest

from tests.transactions.conftest import Bench, Services
from tests.transactions.participants import Asked, Says, serving
from unisono.spec.outside import Outside
from unisono.transactions.calls import HttpCaller, Reply
from unisono.transactions.errors import UrlNotAllowed
from unisono.transactions.submission import Submission
from unisono.transactions.targets import Address, is_outside, locate

ALLOWED = Outside(allow=("https://pay.example.com", "http://10.0.0.7:8080", "http://localhost:9"))


@pytest.fixture
def services() -> Services:
    """One service, and what is allowed besides."""
    found = Services()
    found.ports["stock"] = 20_001
    found.outside = ALLOWED
    return found


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://stock/a", Address("127.0.0.1", 20_001, False, "stock", "/a")),
        ("http://127.0.0.1:20001/a", Address("127.0.0.1", 20_001, False, "127.0.0.1:20001", "/a")),
        (
            "https://pay.example.com/a",
            Address("pay.example.com", 443, True, "pay.example.com", "/a", outside=True),
        ),
        ("http://10.0.0.7:8080/a", Address("10.0.0.7", 8080, False, "10.0.0.7:8080", "/a")),
        ("http://localhost:9/a", Address("localhost", 9, False, "localhost:9", "/a", outside=True)),
    ],
)
def test_a_service_may_call_services_and_what_is_allowed(
    services: Services, url: str, expected: Address
) -> None:
    """A name that is allowed must lead outside; an address that is written down is meant."""
    assert expected == locate(services, "shop", url, trusted=False)


@pytest.mark.parametrize(
    "url",
    [
        "https://stock/a",  # a service is reached through the gateway, in clear text
        "http://127.0.0.1:22/a",
        "http://localhost:20002/a",
        "http://[::ffff:127.0.0.1]:20002/a",
        "http://2130706433:20001/a",
        "http://127.1:20001/a",
        "http://0.0.0.0:20001/a",
        "http://169.254.169.254/latest",
        "http://pay.example.com/a",
    ],
)
def test_nothing_else_may_be_called(services: Services, url: str) -> None:
    """And the error says what can be done about it."""
    with pytest.raises(UrlNotAllowed, match="under transactions: allow"):
        locate(services, "shop", url, trusted=False)


@pytest.mark.parametrize(
    ("address", "outside"),
    [
        ("93.184.216.34", True),
        ("10.0.0.7", True),
        ("2606:2800:220:1::1", True),
        ("fd12::7", True),
        ("127.0.0.1", False),
        ("127.9.9.9", False),
        ("::1", False),
        ("0.0.0.0", False),
        ("::", False),
        ("169.254.169.254", False),
        ("fe80::1%eth0", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:169.254.169.254", False),
        ("2002:7f00:1::", False),  # 127.0.0.1 by 6to4
        ("224.0.0.1", False),
    ],
)
def test_what_is_outside(address: str, outside: bool) -> None:
    """Neither this machine nor its link, in whatever form."""
    assert outside is is_outside(address)


async def test_a_name_that_leads_to_this_machine_is_not_followed() -> None:
    """Whoever answers for an allowed name can make it lead anywhere; here /etc/hosts does."""
    async with serving() as party:
        port = int(party.url.rpartition(":")[2])
        guarded = await _call(Address("localhost", port, False, f"localhost:{port}", "/a", outside=True))
        free = await _call(Address("localhost", port, False, f"localhost:{port}", "/a"))

    assert (0, 200) == (guarded.status, free.status)
    assert "localhost leads to 127.0.0.1" in guarded.error or "localhost leads to ::1" in guarded.error
    assert 1 == len(party.asked)


async def test_what_is_allowed_is_called_and_its_redirects_are_not_followed(bench: Bench) -> None:
    """Else one that is allowed could have any other called."""
    async with serving() as elsewhere:
        answers = [Says(307, {"location": f"{elsewhere.url}/a/action"}), Says()]

        async def script(asked: Asked) -> Says:
            return answers.pop(0)

        bench.party.script = script
        bench.services.outside = Outside(allow=(bench.party.url,))
        branches = [{"id": "a", "url": f"{bench.party.url}/a"}]
        submission = Submission.of({"mode": "saga", "branches": branches})
        await bench.coordinator.begin("shop", submission)
        view = await bench.end(submission.gid)

    assert "committed" == view["status"]
    assert [] == elsewhere.asked
    assert "redirects are not followed" == view["timeline"][0]["note"]


async def _call(address: Address) -> Reply:
    caller = HttpCaller()
    answered: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
    request = (
        b"Content-Length: 0\r\nTransaction-Id: g\r\nTransaction-Branch: a\r\nTransaction-Op: action\r\n\r\n"
    )
    caller.call(address, request, 10.0, answered.set_result)
    reply = await answered
    await caller.close()
    return reply
