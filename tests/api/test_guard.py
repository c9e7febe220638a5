"""The token of the TCP address."""

from __future__ import annotations

import httpx
import pytest
from starlette.responses import PlainTextResponse

from unisono.api.guard import TokenGuard


async def ask(header: str | None) -> httpx.Response:
    """An answer from behind the guard, whose token is "secret"."""
    transport = httpx.ASGITransport(TokenGuard(PlainTextResponse("in"), "secret"))
    async with httpx.AsyncClient(transport=transport, base_url="http://node") as client:
        return await client.get("/anything", headers={} if header is None else {"Authorization": header})


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (None, 401),
        ("Bearer wrong", 401),
        ("Bearer ", 401),
        ("secret", 401),
        ("Basic secret", 401),
        ("Bearer secret", 200),
    ],
)
async def test_token(header: str | None, status: int) -> None:
    """Only the right token, presented as a bearer token, lets anyone in."""
    assert (await ask(header)).status_code == status


async def test_refusal_says_what_is_wanted() -> None:
    """The refusal is a problem and names the scheme."""
    answer = await ask(None)

    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["www-authenticate"] == "Bearer"
