"""What a service may do with shared state: the words for it, and what they let pass."""

from __future__ import annotations

import pytest

from tests.spec.conftest import Desk
from unisono.spec.access import ALL, Access


class TestWords:
    def test_without_the_word_everything_is_allowed(self, desk: Desk) -> None:
        """An application whose services trust each other says nothing."""
        assert desk.service("restart: always").access is None

    def test_what_is_not_named_is_not_allowed(self, desk: Desk) -> None:
        """The word closes, and then opens what it names."""
        assert Access(read=("prices/",), write=()) == desk.service("access: {read: [prices/]}").access

    def test_all_stands_for_every_prefix(self, desk: Desk) -> None:
        """Once written, it must be possible to say that nothing is closed."""
        assert (
            Access(read=ALL, write=("orders/",))
            == desk.service("access: {read: all, write: [orders/]}").access
        )

    def test_a_change_takes_effect_on_running_instances(self, desk: Desk) -> None:
        """Nobody should have to restart a service to take a right from it."""
        open_, closed = desk.service("restart: always"), desk.service("access: {}")

        assert open_.revision_hash() == closed.revision_hash()

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("access: all", 'access: found "all", want a mapping with keys such as read, write'),
            ("access: {reads: [a]}", 'access: found the unknown key "reads", want read'),
            ("access: {read: prices/}", 'access.read: found "prices/", want a list of prefixes, or all'),
            ('access: {read: [""]}', "want a prefix of 1 to 512 bytes, or all in place of the list"),
            ('access: {write: ["a\\n"]}', "want a prefix without control characters"),
            (f"access: {{write: [{'é' * 257}]}}", "want a prefix of 1 to 512 bytes"),
            (
                f"access: {{write: [{', '.join(map(str, range(101)))}]}}",
                "found 101 prefixes, want at most 100",
            ),
        ],
    )
    def test_what_is_no_prefix_is_refused(self, desk: Desk, text: str, message: str) -> None:
        """The error names what was found and what would be right."""
        assert message in str(desk.service_error(text))


class TestAccess:
    def test_what_may_be_written_may_be_read(self) -> None:
        """A write under a condition finds a value out anyway."""
        access = Access(read=("prices/",), write=("orders/",))

        assert (True, True, True, False) == (
            access.may_read("prices/1"),
            access.may_read("orders/1"),
            access.may_write("orders/1"),
            access.may_write("prices/1"),
        )

    def test_a_shorter_prefix_than_allowed_is_refused(self) -> None:
        """A scan of ord would show what begins with ordinary, too."""
        access = Access(write=("orders/",))

        assert (False, False, True) == (
            access.may_read(""),
            access.may_write("ord"),
            access.may_write("orders/a"),
        )

    def test_nothing_named_allows_nothing(self) -> None:
        """Not even a name that is empty."""
        assert (False, False) == (Access().may_read(""), Access().may_write("a"))

    @pytest.mark.parametrize("prefix", ["", "a\0", "\ud800", "x" * 513])
    def test_a_prefix_that_no_name_has_is_refused(self, prefix: str) -> None:
        """A record that came over the API is checked as a file is."""
        with pytest.raises(ValueError, match="access has the prefix"):
            Access(read=("a", prefix))
