"""
What any store must do, whatever its engine: one suite for all of them.

A store's test module makes a subclass of :class:`Conformance` and gives it a fixture ``harness``. What only
one engine does (its file, its crashes, its retention) stands in that module.

Revisions differ from engine to engine at the start, so nothing here counts on a figure.
"""

from __future__ import annotations

import pytest

from tests.store.asking import Harness
from tests.store.conforming_entries import Entries
from tests.store.conforming_leases import Leases
from tests.store.conforming_watches import Watches
from unisono.store.base import Store


class Conformance(Entries, Watches, Leases):
    """The suite."""

    @pytest.fixture
    def store(self, harness: Harness) -> Store:
        return harness.store
