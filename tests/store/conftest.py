"""The conformance suite is a plain module: its asserts should explain themselves like a test's."""

import pytest

pytest.register_assert_rewrite("tests.store.conformance")
