"""What services mean together: dependencies and profiles."""

from __future__ import annotations

import pytest

from tests.spec.conftest import Desk
from unisono.spec.model import Condition, Dependency


class TestDependencies:
    """What starts after what."""

    def test_a_list_or_a_mapping(self, desk: Desk) -> None:
        """With conditions in Compose's words."""
        services = desk.load(
            "services:\n"
            "  a: {command: sleep 1, depends_on: [b]}\n"
            "  b: {command: sleep 1, depends_on: {c: {condition: service_healthy, required: false}}}\n"
            "  c: {command: sleep 1}\n"
        ).application.services

        assert (Dependency(service="b"),) == services["a"].depends_on
        assert (Dependency(service="c", condition=Condition.HEALTHY, required=False),) == services[
            "b"
        ].depends_on

    def test_a_circle_is_an_error_that_shows_it(self, desk: Desk) -> None:
        """Without those that only lead into it."""
        error = desk.error(
            "services:\n"
            "  a: {command: sleep 1, depends_on: [b]}\n"
            "  b: {command: sleep 1, depends_on: [c]}\n"
            "  c: {command: sleep 1, depends_on: [b]}\n"
        )

        assert "unisono.yaml:3:38 services.b.depends_on.c: found the circle b → c → b" in str(error)

    def test_an_unknown_service_is_an_error_with_the_nearest_name(self, desk: Desk) -> None:
        """The likely typo."""
        error = desk.error(
            "services:\n  payments: {command: sleep 1}\n  a: {command: sleep 1, depends_on: [payment]}\n"
        )

        assert ('no service "payment"', "payments") == (error.found, error.wanted)

    def test_two_that_would_share_a_variable_are_an_error(self, desk: Desk) -> None:
        """A_B_URL can't lead to both."""
        error = desk.error(
            "services:\n  a-b: {command: sleep 1}\n  a.b: {command: sleep 1}\n"
            "  c: {command: sleep 1, depends_on: [a-b, a.b]}\n"
        )

        assert "would both be A_B_URL" in str(error)


PROFILES = """
services:
  foo: {command: sleep 1}
  bar: {command: sleep 1, profiles: [test]}
  baz: {command: sleep 1, profiles: [test], depends_on: [bar]}
  zot: {command: sleep 1, profiles: [debug], depends_on: [bar]}
"""


class TestProfiles:
    """Which services take part; the example of the Compose specification."""

    @pytest.mark.parametrize(
        ("profiles", "services", "names"),
        [
            ([], [], {"foo"}),
            (["test"], [], {"foo", "bar", "baz"}),
            (["debug", "test"], [], {"foo", "bar", "baz", "zot"}),
            (["*"], [], {"foo", "bar", "baz", "zot"}),
            ([], ["bar"], {"bar"}),
            ([], ["baz"], {"baz", "bar"}),
            (["test"], ["zot"], {"zot", "bar"}),
        ],
    )
    def test_profiles_and_names_select(
        self, desk: Desk, profiles: list[str], services: list[str], names: set[str]
    ) -> None:
        """A service that is named brings its profiles and what it depends on."""
        assert names == set(desk.load(PROFILES, profiles=profiles, services=services).application.services)

    @pytest.mark.parametrize(("profiles", "services"), [(["debug"], []), ([], ["zot"])])
    def test_a_dependency_without_its_profile_is_an_error(
        self, desk: Desk, profiles: list[str], services: list[str]
    ) -> None:
        """It names the profile that is missing."""
        error = desk.error(PROFILES, profiles=profiles, services=services)

        assert "services.zot.depends_on.bar: bar is not active, it has the profile test" in str(error)

    def test_a_name_that_is_no_service_is_an_error(self, desk: Desk) -> None:
        """With the nearest one."""
        assert 'found no service "fo", want foo' == str(desk.error(PROFILES, services=["fo"]))
