"""What of shared state is mirrored in memory: the word for it, who gets to see which table."""

from __future__ import annotations

import pytest

from tests.spec.conftest import Desk
from unisono.spec.shared import Table

CONFIG = Table(prefix="config/", size=16 << 20)
PRICES = Table(prefix="prices/", size=32 << 10)
SERVICES = """
services:
  web: {command: sleep 1}
  desk: {command: sleep 1, access: {read: [config/]}}
  shut: {command: sleep 1, access: {read: [config/a]}}
"""


class TestWords:
    def test_each_prefix_has_a_table_of_its_size(self, desk: Desk) -> None:
        """Without the word there is none."""
        services = desk.load(f"shared: {{config/: 16m, prices/: 32k}}\n{SERVICES}").application.services

        assert (CONFIG, PRICES) == services["web"].shared
        assert () == desk.service("restart: always").shared

    def test_a_service_gets_the_tables_of_which_it_may_read_everything(self, desk: Desk) -> None:
        """Memory can't ask who reads it, so one that holds more than the service may read is not for it."""
        services = desk.load(f"shared: {{config/: 16m, prices/: 32k}}\n{SERVICES}").application.services

        assert (CONFIG,) == services["desk"].shared
        assert () == services["shut"].shared

    def test_a_table_for_nobody_is_warned_of(self, desk: Desk) -> None:
        """It would take memory for nothing, so none is made."""
        loaded = desk.load("shared: {a/: 16k}\nservices: {web: {command: sleep 1, access: {}}}")

        assert "shared.a/: has no effect" in str(loaded.warnings[0])

    def test_what_it_is_told_at_its_start_makes_a_new_instance(self, desk: Desk) -> None:
        """Its tables are; how large they are is not."""
        services = "services: {web: {command: sleep 1}}"
        none, small, large = (
            desk.load(f"{shared}{services}").application.services["web"].revision_hash()
            for shared in ("", "shared: {a/: 16k}\n", "shared: {a/: 32k}\n")
        )

        assert none != small
        assert small == large

    def test_what_is_printed_gives_the_same_again(self, desk: Desk) -> None:
        """Prefixes and sizes."""
        loaded = desk.load(f"shared: {{config/: 16m, prices/: 32k}}\n{SERVICES}")

        assert {"config/": "16m", "prices/": "32k"} == loaded.resolved["shared"]

    @pytest.mark.parametrize(
        ("shared", "message"),
        [
            ("[a/]", "want a mapping from prefixes to sizes"),
            ("{a/: 1k}", 'shared.a/: found "1k", want a size from 16k to 4g'),
            ("{a/: 5g}", "want a size from 16k to 4g"),
            ("{a/: much}", "want a size such as 512m or 1.5g"),
            ('{"": 1m}', "want a prefix of 1 to 512 bytes"),
            ("{a/: 1m, a/b: 1m}", "want prefixes of which none begins with another"),
            (f"{{{', '.join(f'p{n:02}/: 16k' for n in range(17))}}}", "found 17 prefixes, want at most 16"),
        ],
    )
    def test_what_is_no_table_is_refused(self, desk: Desk, shared: str, message: str) -> None:
        """The error names what was found and what would be right."""
        assert message in str(desk.error(f"shared: {shared}\n{SERVICES}"))


class TestTable:
    @pytest.mark.parametrize(
        ("prefix", "size"), [("", 1 << 20), ("a\0", 1 << 20), ("a/", 100), ("a/", 1 << 33)]
    )
    def test_a_record_is_checked_as_a_file_is(self, prefix: str, size: int) -> None:
        """It may have come over the API."""
        with pytest.raises(ValueError, match="shared"):
            Table(prefix=prefix, size=size)
