"""Secrets are shown by nothing that may be logged."""

from __future__ import annotations

from pathlib import Path

import pytest

from unisono.api.listeners import Endpoint
from unisono.client.questions import Node
from unisono.daemon.settings import Settings
from unisono.node.identity import Identities
from unisono.node.paths import StateFolder
from unisono.store.addresses import EtcdAddress

SECRET = "hunter2-hunter2-hunter2-hunter2-"


@pytest.mark.parametrize(
    "made",
    [
        Settings(folder=StateFolder(Path("/nowhere")), token=SECRET, store_password=SECRET),
        Endpoint(None, token=SECRET),  # type: ignore[arg-type]
        Node.at("http://127.0.0.1:1", token=SECRET),
        EtcdAddress(endpoints=("a:1",), prefix="x", user="me", password=SECRET),
        Identities(SECRET.encode()),
    ],
    ids=lambda made: type(made).__name__,
)
def test_a_secret_is_in_no_text_of_what_holds_it(made: object) -> None:
    """A log line or a traceback may show any of them."""
    assert SECRET not in f"{made} {made!r}"
