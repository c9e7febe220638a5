"""The token of the TCP address."""

from __future__ import annotations

import stat
from pathlib import Path

import httpx
import pytest
from starlette.responses import PlainTextResponse

from unisono.api.guard import TokenGuard
from unisono.api.tokens import BadToken, made_token, read_token


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


def test_token_is_made_once(tmp_path: Path) -> None:
    """A token is made where there is none, for its owner's eyes alone, and kept."""
    first = made_token(tmp_path / "token")
    second = made_token(tmp_path / "token")

    assert first == second
    assert len(first) >= 32
    assert stat.S_IMODE((tmp_path / "token").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("mode", "text", "words"), [(0o644, "secret", "chmod 600"), (0o600, "\n", "is empty")]
)
def test_bad_token_file(tmp_path: Path, mode: int, text: str, words: str) -> None:
    """A token that others can read, or that is none, is refused."""
    path = tmp_path / "token"
    path.write_text(text)
    path.chmod(mode)

    with pytest.raises(BadToken, match=words):
        read_token(path)
