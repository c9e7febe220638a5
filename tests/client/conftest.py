"""Nodes for tests of the client."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.client.nodes import NodeProcess


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    """A node that all may ask and none may harm; each uses keys and names of its own."""
    with NodeProcess(tmp_path_factory.mktemp("node")) as found:
        yield found


@pytest.fixture
def own_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    """A node to kill and to pause."""
    with NodeProcess(tmp_path_factory.mktemp("node")) as found:
        yield found
