"""Which files are read, with which variables, and how problems are told."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.spec.conftest import ENVIRON, Desk
from unisono.spec.load import SpecError, load
from unisono.spec.model import ServiceSpec


class TestFiles:
    """Which files are read, and how they are put together."""

    def test_the_nearest_file_above_is_found(self, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        """Programs run in its folder."""
        desk.write("services: {web: {command: sleep 1}}")
        (desk.folder / "a" / "b").mkdir(parents=True)
        monkeypatch.chdir(desk.folder / "a" / "b")

        assert str(desk.folder) == load(environ=ENVIRON).application.services["web"].working_dir

    def test_our_own_file_goes_before_composes(self, desk: Desk) -> None:
        """With a warning that the other is not read."""
        desk.write("services: {ours: {command: sleep 1}}")
        desk.write("services: {theirs: {command: sleep 1}}", "compose.yaml")
        loaded = load(environ=ENVIRON)

        assert ["ours"] == list(loaded.application.services)
        assert ["unisono.yaml is used; compose.yaml beside it is not"] == [str(w) for w in loaded.warnings]

    def test_composes_override_file_is_picked_up(self, desk: Desk) -> None:
        """As Compose does."""
        desk.write("services: {web: {command: sleep 1}}", "compose.yaml")
        desk.write("services: {web: {scale: 3}}", "compose.override.yml")

        assert 3 == load(environ=ENVIRON).application.services["web"].replicas

    def test_no_file_at_all_is_an_error(self, desk: Desk) -> None:
        """It says what would be read."""
        with pytest.raises(SpecError, match=r"found no file of services in .*, want unisono.yaml"):
            load(environ=ENVIRON)

    def test_later_files_lie_on_earlier_ones(self, desk: Desk) -> None:
        """Relative paths count from the folder of the first."""
        desk.write("services: {web: {command: sleep 1, environment: {A: 1, B: 1}}}", "base.yaml")
        desk.write("services: {web: {environment: [B=2], working_dir: .}}", "sub/over.yaml")
        web = desk.load(None, "base.yaml", "sub/over.yaml").application.services["web"]

        assert ({"A": "1", "B": "2"}, str(desk.folder)) == (web.environment, web.working_dir)

    def test_documents_in_one_file_lie_on_each_other(self, desk: Desk) -> None:
        """As in Compose."""
        application = desk.load(
            "services: {web: {command: sleep 1}}\n---\nservices: {web: {scale: 2}}\n"
        ).application

        assert 2 == application.services["web"].replicas

    def test_a_service_extends_one_of_its_own_file(self, desk: Desk) -> None:
        """What it says itself lies on top."""
        services = desk.load(
            "services:\n"
            "  base: {command: sleep 1, scale: 2, environment: {A: 1}}\n"
            "  web: {extends: base, environment: {B: 2}, scale: 3}\n"
        ).application.services

        assert (("sleep", "1"), 3, {"A": "1", "B": "2"}) == (
            services["web"].command,
            services["web"].replicas,
            services["web"].environment,
        )

    def test_a_service_extends_one_of_another_file(self, desk: Desk) -> None:
        """Relative paths there count from that file."""
        desk.write("A=1", "common/base.env")
        desk.write(
            "services: {base: {command: sleep 1, env_file: base.env, working_dir: .}}", "common/base.yaml"
        )
        web = desk.load(
            "services: {web: {extends: {file: common/base.yaml, service: base}}}"
        ).application.services["web"]

        assert ({"A": "1"}, str(desk.folder / "common")) == (web.environment, web.working_dir)

    def test_an_included_file_brings_its_services(self, desk: Desk) -> None:
        """With its own folder and its own .env."""
        desk.write("N=2", "other/.env")
        desk.write("services: {api: {command: sleep 1, scale: $N}}", "other/compose.yaml")
        api = desk.load(
            "include: [other/compose.yaml]\nservices: {web: {command: sleep 1, depends_on: [api]}}"
        ).application.services["api"]

        assert (2, str(desk.folder / "other")) == (api.replicas, api.working_dir)

    def test_an_included_service_of_a_name_that_is_taken_is_an_error(self, desk: Desk) -> None:
        """Nothing is merged there."""
        desk.write("services: {web: {command: sleep 2}}", "other.yaml")
        error = desk.error("include:\n  - other.yaml\nservices: {web: {command: sleep 1}}")

        assert 'unisono.yaml:2:5 include: the service "web" of this file is also in unisono.yaml:3:12' == str(
            error
        )

    @pytest.mark.parametrize(
        ("given", "written", "name"),
        [
            (None, "", "my-shop_1"),
            (None, "name: shop", "shop"),
            ("cart", "name: shop", "cart"),
            (None, "name: $N", "n1"),
        ],
    )
    def test_the_application_is_named_by_caller_file_or_folder(
        self, desk: Desk, given: str | None, written: str, name: str
    ) -> None:
        """A folder's name is made to fit as Compose does it."""
        desk.write(f"{written}\nservices: {{web: {{command: sleep 1}}}}", "_My-Shop_1!/unisono.yaml")
        loaded = desk.load(None, "_My-Shop_1!/unisono.yaml", name=given, environ={"N": "n1"})

        assert name == loaded.application.name

    def test_a_name_that_does_not_fit_is_an_error(self, desk: Desk) -> None:
        """Of the application, or of a service."""
        text = "name: My Shop\nservices: {web: {command: sleep 1}}"

        assert 'unisono.yaml:1:7 name: found "My Shop", want a-z' in str(desk.error(text, name=None))
        assert 'unisono.yaml:1:12 services: found the service "-x", want' in str(
            desk.error("services: {-x: {command: sleep 1}}")
        )


class TestVariables:
    """Where variables come from."""

    def test_the_environment_wins_over_the_file_beside(self, desk: Desk) -> None:
        """Then the default."""
        desk.write("A=file\nB=file\n", ".env")
        web = desk.service("environment: {X: '$A $B ${C:-default}'}", environ={"A": "caller"})

        assert {"X": "caller file default"} == web.environment

    def test_a_named_file_takes_the_place_of_the_one_beside(self, desk: Desk) -> None:
        """And must be there."""
        desk.write("A=beside\n", ".env")
        desk.write("A=named\n", "prod.env")

        assert {"X": "named"} == desk.service("environment: {X: $A}", env_file=Path("prod.env")).environment
        assert "no.env: can't be read: No such file" in str(
            desk.service_error("user: root", env_file=Path("no.env"))
        )

    def test_a_variable_that_is_not_set_is_empty_with_a_warning(self, desk: Desk) -> None:
        """It names the place."""
        assert [
            "unisono.yaml:4:22 services.web.environment.X: the variable NOPE is not set, so it is empty here"
        ] == (desk.warnings("environment: {X: $NOPE}"))

    def test_a_number_may_be_a_variable(self, desk: Desk) -> None:
        """What it is, is decided after it is replaced."""
        assert 3 == desk.service("scale: ${N:-3}").replicas

    def test_outside_of_what_a_program_is_told_PORT_is_the_callers(self, desk: Desk) -> None:  # noqa: N802
        """Ports of the gateway are a user's choice."""
        web = desk.service("ports: ['$PORT:80']", environ={"PORT": "8000"})

        assert [8000] == [port.port for port in web.ports]

    def test_extension_fields_are_nobodys_business(self, desk: Desk) -> None:
        """They may hold anchors, and their variables are not looked at."""
        loaded = desk.load(
            "x-env: &env {A: 1}\nx-other: ${NOPE:?never}\n"
            "services: {web: {command: sleep 1, environment: *env, x-note: $NOPE}}"
        )

        assert ({"A": "1"}, ()) == (loaded.application.services["web"].environment, loaded.warnings)


def test_several_problems_are_told_together(desk: Desk) -> None:
    """In the order of the file, each with its hint."""
    error = desk.error("services:\n  web:\n    comand: sleep 1\n    scale: x\n    timeout: 10\n")

    assert [
        'unisono.yaml:3:5 services.web: found the unknown key "comand", want command',
        'unisono.yaml:4:12 services.web.scale: found "x", want a whole number from 0 to 1000',
        "unisono.yaml:5:14 services.web.timeout: found 10, want a number with its unit, such as 10s or 10ms, "
        "or none",
    ] == str(error).splitlines()


def test_twenty_problems_are_shown_and_the_rest_counted(desk: Desk) -> None:
    """Nobody reads more."""
    lines = str(
        desk.error("services: {web: {command: sleep 1, " + ", ".join(f"q{i}: 1" for i in range(30)) + "}}")
    )

    assert (21, "and 10 more") == (len(lines.splitlines()), lines.splitlines()[-1])


def test_loading_changes_nothing(desk: Desk) -> None:
    """No file is written, and the environment stays as it is."""
    before = (sorted(os.listdir(desk.folder)), dict(os.environ))
    loaded = desk.load("services: {web: {command: sleep 1}}")

    assert isinstance(loaded.application.services["web"], ServiceSpec)
    assert (["unisono.yaml"], before[1]) == (sorted(os.listdir(desk.folder)), dict(os.environ))
    assert json.loads(json.dumps(loaded.resolved)) == loaded.resolved


class TestComposeVariables:
    """Those that Compose itself reads from the environment or from .env."""

    FILE = "name: own\nservices: {a: {command: sleep 1}, b: {command: sleep 1, profiles: [debug]}}"

    def test_a_project_name(self, desk: Desk) -> None:
        """It comes before the file's, and after the caller's."""
        named = {"COMPOSE_PROJECT_NAME": "other"}

        assert desk.load(self.FILE, name=None, environ=named).application.name == "other"
        assert desk.load(name="mine", environ=named).application.name == "mine"
        assert desk.load(name=None, environ={"COMPOSE_PROJECT_NAME": ""}).application.name == "own"

    def test_profiles(self, desk: Desk) -> None:
        """Separated by commas; those of the caller count alone."""
        active = {"COMPOSE_PROFILES": "debug,test"}

        assert set(desk.load(self.FILE, environ=active).application.services) == {"a", "b"}
        assert set(desk.load(environ=active, profiles=["other"]).application.services) == {"a"}

    def test_from_dotenv(self, desk: Desk) -> None:
        """As people keep them."""
        desk.write("COMPOSE_PROJECT_NAME=kept\nCOMPOSE_PROFILES=debug\n", ".env")

        found = desk.load(self.FILE, name=None).application

        assert (found.name, set(found.services)) == ("kept", {"a", "b"})
