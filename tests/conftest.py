"""
The order in which the suite runs: what is quick and starts nothing first, whole nodes last.

Property tests draw the same examples each time in continuous integration, so that a change is judged by what
it changed; at a desk they draw new ones.

System tests form one group, so that pytest-xdist runs them one after the other on one of its workers: two
nodes side by side would take each other's processor time, and a failure would be hard to read.
That pytest-xdist heeds the group is looked at with each of them.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist looks at the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put system tests behind all others, in one group."""
    for item in items:
        if item.get_closest_marker("system"):
            item.add_marker(pytest.mark.xdist_group("system"))
    items.sort(key=lambda item: item.get_closest_marker("system") is not None)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Refuse to run a system test beside others of them."""
    if item.get_closest_marker("system") and "PYTEST_XDIST_WORKER" in os.environ:
        assert item.nodeid.endswith("@system"), (
            "pytest-xdist spreads system tests over its workers; run it with --dist loadgroup, and with a "
            "release that knows this pytest's node ids"
        )
