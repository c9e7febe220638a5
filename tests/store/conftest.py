"""The conformance suite is of plain modules: its asserts should explain themselves like a test's."""

import pytest

pytest.register_assert_rewrite(
    "tests.store.conforming_entries", "tests.store.conforming_leases", "tests.store.conforming_watches"
)
