"""What one service means: its program, environment, number, health and life."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.spec.conftest import Desk


class TestCommand:
    """What is started."""

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("command: sleep 1", ("sleep", "1")),
            ("command: [sleep, 1]", ("sleep", "1")),
            ("command: sh -c 'echo \"a b\"'", ("sh", "-c", 'echo "a b"')),
            ("entrypoint: [sleep]\ncommand: ['1']", ("sleep", "1")),
            ("command: sleep --port $PORT", ("sleep", "--port", "{port}")),
            ("command: sleep ${PORT:-8000} {port}", ("sleep", "{port}", "{port}")),
            ("command: [sh, -c, 'exec sleep $$PORT']", ("sh", "-c", "exec sleep $PORT")),
        ],
    )
    def test_it_is_split_like_a_shell_does_and_told_its_port(
        self, desk: Desk, text: str, words: tuple[str, ...]
    ) -> None:
        """PORT is the instance's, not the caller's."""
        assert words == desk.service(text, environ={"PORT": "1"}).command

    @pytest.mark.parametrize("operator", ["&&", "|", ";", ">"])
    def test_an_unquoted_operator_of_the_shell_is_warned_of(self, desk: Desk, operator: str) -> None:
        """No shell runs, so it is an argument."""
        assert [
            f"unisono.yaml:3:14 services.web.command: no shell runs, so {operator} is an argument like "
            "any other: for one write [sh, -c, ...]"
        ] == desk.warnings(f"command: sleep 1 {operator} sleep 2")

    @pytest.mark.parametrize(
        "text", ["command: sh -c 'a && b'", "command: [sleep, '&&']", "command: sleep a&b=c"]
    )
    def test_a_quoted_operator_is_not(self, desk: Desk, text: str) -> None:
        """The user knows what it is."""
        assert [] == desk.warnings(text)

    def test_a_release_command_is_a_command(self, desk: Desk) -> None:
        """Split like any other."""
        text = "deploy: {update_config: {release_command: sleep 9}}"

        assert ("sleep", "9") == desk.service(text).update.release_command

    def test_a_program_that_is_not_there_is_an_error(self, desk: Desk) -> None:
        """It says where was looked."""
        error = desk.service_error("command: no-such-program", environ={"PATH": "/nowhere"})

        assert str(error).startswith(
            'unisono.yaml:3:14 services.web.command: found the program "no-such-program", '
            "want one that can be run: no such program in PATH (/nowhere:"
        )

    def test_a_program_is_found_by_the_path_of_its_service(self, desk: Desk) -> None:
        """Relative entries count from working_dir."""
        desk.write("#!/bin/sh\n", "app/bin/tool").chmod(0o755)

        assert ("tool",) == desk.service("command: tool\nworking_dir: app\nenvironment: {PATH: bin}").command

    def test_a_program_beside_this_python_is_found(self, desk: Desk) -> None:
        """Also when its virtual environment is not active."""
        name = Path(sys.executable).name

        assert (name,) == desk.service(f"command: {name}", environ={"PATH": "/nowhere"}).command

    @pytest.mark.parametrize(
        ("command", "hint"),
        [
            ("cd /tmp && sleep 1", "cd is a word of the shell"),
            ("DEBUG=1 sleep 1", "set variables under environment"),
            ("run.sh", "write ./run.sh"),
            ("[sleep 1]", "each argument is an item of its own"),
        ],
    )
    def test_a_usual_mistake_gets_the_usual_remedy(self, desk: Desk, command: str, hint: str) -> None:
        """The hint fits what was written."""
        desk.write("", "run.sh")

        assert hint in (desk.service_error(f"command: {command}").hint or "")

    def test_a_service_needs_something_to_run(self, desk: Desk) -> None:
        """Neither command nor image."""
        assert "services.web.command: found no program to run" in str(
            desk.error("services: {web: {user: root}}")
        )


class TestEnvironment:
    """Which variables a program sees."""

    @pytest.mark.parametrize("text", ["{A: 1, B: yes, C: 1.10, D: ''}", "['A=1', B=yes, C=1.10, D=]"])
    def test_a_mapping_or_a_list(self, desk: Desk, text: str) -> None:
        """Values are text, as they are written."""
        assert {"A": "1", "B": "yes", "C": "1.10", "D": ""} == desk.service(
            f"environment: {text}"
        ).environment

    def test_one_without_a_value_is_the_callers(self, desk: Desk) -> None:
        """From the environment, or from .env."""
        desk.write("FROM_FILE=1", ".env")
        web = desk.service("environment: [FROM_FILE, FROM_CALLER]", environ={"FROM_CALLER": "2"})

        assert {"FROM_FILE": "1", "FROM_CALLER": "2"} == web.environment

    def test_one_that_the_caller_lacks_is_left_out(self, desk: Desk) -> None:
        """With a warning."""
        assert [
            "unisono.yaml:4:19 services.web.environment.NOPE: the variable NOPE is not set, so it is left out"
        ] == (desk.warnings("environment: [NOPE]"))

    def test_environment_wins_over_files_and_later_files_over_earlier_ones(self, desk: Desk) -> None:
        """Compose's precedence."""
        desk.write("A=1\nB=1\nC=1\n", "one.env")
        desk.write("B=2\nC=2\n", "two.env")
        web = desk.service(
            "env_file: [one.env, {path: two.env}, {path: no.env, required: false}]\nenvironment: {C: 3}"
        )

        assert {"A": "1", "B": "2", "C": "3"} == web.environment

    def test_a_raw_file_is_taken_as_it_is(self, desk: Desk) -> None:
        """For values with dollar signs."""
        desk.write("A='$X'\n", "a.env")

        assert {"A": "'$X'"} == desk.service("env_file: [{path: a.env, format: raw}]").environment

    def test_a_fixed_port_is_overridden_with_a_warning(self, desk: Desk) -> None:
        """Each instance has its own; but it says that the service serves."""
        warnings = desk.warnings("environment: {PORT: 8000}")
        web = desk.load().application.services["web"]

        assert ({}, True) == (web.environment, web.serves)
        assert ['unisono.yaml:4:25 services.web.environment.PORT: PORT "8000" is overridden'] == [
            w.partition(":")[0] + ":" + w.split(":", 1)[1].split(" is overridden")[0] + " is overridden"
            for w in warnings
        ]

    def test_a_relative_PYTHONPATH_is_meant_from_where_the_caller_stands(self, desk: Desk) -> None:  # noqa: N802
        """Its program runs elsewhere."""
        web = desk.service("", environ={"PYTHONPATH": "src:/lib"})

        assert f"{desk.folder}/src:/lib" == web.inherited["PYTHONPATH"]

    def test_only_a_few_variables_are_inherited(self, desk: Desk) -> None:
        """Those that make a program run as in the caller's shell."""
        web = desk.service("", environ={"LC_ALL": "C", "SECRET": "x", "VIRTUAL_ENV": "/v", "AWS_KEY": "y"})

        assert {"PATH", "HOME", "LC_ALL", "VIRTUAL_ENV"} == set(web.inherited)


class TestScale:
    """How many instances there are."""

    @pytest.mark.parametrize(
        ("text", "numbers"),
        [
            ("user: root", (1, None)),
            ("scale: 3", (3, None)),
            ("scale: '3'", (3, None)),
            ("scale: 0", (0, None)),
            ("deploy: {replicas: 4}", (4, None)),
            ("scale: 2\ndeploy: {replicas: 2}", (2, None)),
            ("scale: {min: 2, max: 5}", (2, 5)),
            ("scale: {max: 5}", (1, 5)),
        ],
    )
    def test_scale_and_replicas_are_one_thing(
        self, desk: Desk, text: str, numbers: tuple[int, int | None]
    ) -> None:
        """A number, or a range."""
        web = desk.service(text)

        assert numbers == (web.replicas, web.max_replicas)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (
                "scale: 2\ndeploy: {replicas: 3}",
                "services.web.scale: differs from deploy.replicas, which is 3 in line 5",
            ),
            ("scale: {min: 3, max: 2}", "services.web.scale: found max 2 below min 3"),
            ("scale: -1", "services.web.scale: found -1, want a whole number from 0 to 1000"),
            ("scale: '010'", "want a whole number"),
            ("scale: many", 'services.web.scale: found "many", want a whole number'),
        ],
    )
    def test_what_makes_no_sense_is_an_error(self, desk: Desk, text: str, message: str) -> None:
        """Naming both places where there are two."""
        assert message in str(desk.service_error(text))


def test_words_of_later_versions_are_accepted_with_a_warning(desk: Desk) -> None:
    """Validated, and named."""
    warnings = desk.warnings("scale: {max: 2, wait: {p: 0.99, below: 20ms}}")

    assert ["wait"] == [
        w.split(" ")[1].rstrip(":").split(".")[-1] for w in warnings if "not yet honoured" in w
    ]


def test_a_working_dir_counts_from_the_file(desk: Desk) -> None:
    """And must be there."""
    (desk.folder / "app").mkdir()

    assert str(desk.folder / "app") == desk.service("working_dir: app").working_dir
    assert 'services.web.working_dir: found "nope", want a folder that is there' in str(
        desk.service_error("working_dir: nope")
    )


def test_a_user_must_be_there(desk: Desk) -> None:
    """A number needs no entry."""
    assert "1234:5" == desk.service("user: 1234:5").user
    assert (
        'services.web.user: found "nobody-at-all", want a user of this machine'
        == (str(desk.service_error("user: nobody-at-all")).split(" ", 1)[1])
    )
