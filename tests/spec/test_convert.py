"""What one service means: its program, environment, number, health and life."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from tests.spec.conftest import Desk
from unisono.spec.model import Resources, Restart


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


class TestHealth:
    """When an instance counts as ready and healthy."""

    @pytest.mark.parametrize(
        ("text", "kind", "detail"),
        [
            ("http: /ready", "http", "/ready"),
            ("http: {path: /ready}", "http", "/ready"),
            ("http: {}", "http", "/"),
            ("tcp: true", "tcp", ()),
            ("command: sleep 1", "command", ("sleep", "1")),
            ("test: sleep $PORT", "command", ("/bin/sh", "-c", "sleep {port}")),
            ("test: [CMD, sleep, '1']", "command", ("sleep", "1")),
            ("test: [CMD-SHELL, sleep 1 || exit 1]", "command", ("/bin/sh", "-c", "sleep 1 || exit 1")),
            ("test: [NONE]", "none", ()),
            ("disable: true", "none", ()),
            ("interval: 5s", "none", ()),
        ],
    )
    def test_each_kind_of_probe(self, desk: Desk, text: str, kind: str, detail: Any) -> None:
        """Ours and Compose's."""
        check = desk.service(f"healthcheck: {{{text}}}").healthcheck

        assert (kind, detail) == (check.kind, check.path if kind == "http" else check.command)

    def test_timings_are_seconds(self, desk: Desk) -> None:
        """All five of them."""
        text = "{tcp: on, interval: 1m, timeout: 500ms, retries: 5, start_period: 10s, start_interval: 20ms}"
        check = desk.service(f"healthcheck: {text}").healthcheck

        assert (60.0, 0.5, 5, 10.0, 0.02) == (
            check.interval,
            check.timeout,
            check.retries,
            check.start_period,
            check.start_interval,
        )

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("{http: /, tcp: true}", "services.web.healthcheck: found http and tcp, want one of them"),
            (
                "{http: ready}",
                'services.web.healthcheck.http: found "ready", want a path that begins with /',
            ),
            (
                "{test: [sleep, '1']}",
                'found a list that begins with "sleep", want a text, or a list that begins with CMD',
            ),
            ("{interval: 0s}", "want a duration above 0"),
            ("{test: {}}", "services.web.healthcheck.test: found an empty mapping"),
            ("{command: nonesuch}", 'services.web.healthcheck.command: found the program "nonesuch"'),
        ],
    )
    def test_what_makes_no_probe_is_an_error(self, desk: Desk, text: str, message: str) -> None:
        """It names the field."""
        assert message in str(desk.service_error(f"healthcheck: {text}"))

    @pytest.mark.parametrize(
        "text",
        [
            "routes: [{path: /}]",
            "ports: ['8000:8000']",
            "expose: [80]",
            "port: 80",
            "command: sleep $PORT",
            "command: [sh, -c, 'sleep $$PORT']",
            "environment: {LISTEN: 'localhost:{port}'}",
            "healthcheck: {test: sleep $$PORT}",
            "serves: true",
        ],
    )
    def test_a_service_that_can_be_called_serves_and_must_listen(self, desk: Desk, text: str) -> None:
        """Whatever the sign of it is."""
        web = desk.service(text)

        assert web.serves
        assert web.healthcheck.kind == ("command" if "test" in text else "listen")

    def test_anything_else_is_a_worker(self, desk: Desk) -> None:
        """It is ready once it runs."""
        web = desk.service("user: root")

        assert (False, "none") == (web.serves, web.healthcheck.kind)

    def test_a_service_on_which_another_depends_serves_unless_it_completes(self, desk: Desk) -> None:
        """What is awaited to its end is restarted only when it failed."""
        services = desk.load(
            "services:\n"
            "  web:\n"
            "    command: sleep 1\n"
            "    depends_on: {api: {}, job: {condition: service_completed_successfully}}\n"
            "  api: {command: sleep 1}\n"
            "  job: {command: sleep 1}\n"
        ).application.services

        assert [(False, "always"), (True, "always"), (False, "on-failure")] == [
            (spec.serves, spec.restart.policy) for spec in services.values()
        ]


class TestLife:
    """Start, restart, stop, update."""

    @pytest.mark.parametrize(
        ("text", "restart"),
        [
            ("user: root", Restart()),
            ("restart: no", Restart(policy="no")),
            ("restart: 'no'", Restart(policy="no")),
            ("restart: unless-stopped", Restart()),
            ("restart: on-failure", Restart(policy="on-failure")),
            ("restart: on-failure:3", Restart(policy="on-failure", max_attempts=3)),
            ("deploy: {restart_policy: {condition: any, max_attempts: 2}}", Restart(max_attempts=2)),
            ("restart: no\ndeploy: {restart_policy: {condition: on-failure}}", Restart(policy="on-failure")),
        ],
    )
    def test_restart_in_both_of_composes_forms(self, desk: Desk, text: str, restart: Restart) -> None:
        """The longer one wins."""
        assert restart == desk.service(text).restart

    @pytest.mark.parametrize(("text", "name"), [("SIGINT", "SIGINT"), ("int", "SIGINT"), ("15", "SIGTERM")])
    def test_a_signal_has_a_name_or_a_number(self, desk: Desk, text: str, name: str) -> None:
        """Inside it is the name."""
        assert name == desk.service(f"stop_signal: {text}").stop_signal

    def test_a_signal_that_does_not_exist_is_an_error(self, desk: Desk) -> None:
        """It names some that do."""
        error = desk.service_error("stop_signal: SIGNOPE")

        assert ('"SIGNOPE"', "a signal such as SIGTERM, SIGINT or 15") == (error.found, error.wanted)

    def test_an_update_starts_first_unless_the_file_says_otherwise(self, desk: Desk) -> None:
        """All settings of it arrive."""
        text = "{parallelism: 0, delay: 1s, failure_action: pause, monitor: 2s, max_failure_ratio: 0.5}"
        update = desk.service(f"deploy: {{update_config: {text}}}").update

        assert ("start-first", 0, 1.0, "pause", 2.0, 0.5) == (
            update.order,
            update.parallelism,
            update.delay,
            update.failure_action,
            update.monitor,
            update.max_failure_ratio,
        )

    def test_a_program_that_insists_on_its_port_is_one_instance_that_stops_first(self, desk: Desk) -> None:
        """Two can't have one port."""
        web = desk.service("port: 9000")

        assert (9000, "stop-first") == (web.port, web.update.order)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("port: 9000\nscale: 2", "services.web.port: only one instance can have a fixed port"),
            ("port: 9000\ndeploy: {update_config: {order: start-first}}", "want stop-first"),
            ("port: 9000\nports: ['9000:9000']", "services.web.ports: the program listens at 9000 itself"),
            ("port: 0", "want a whole number from 1 to 65535"),
            (
                "deploy: {update_config: {release_command: 'sleep {port}'}}",
                "a release command, so it has no port",
            ),
        ],
    )
    def test_what_a_fixed_port_forbids_is_an_error(self, desk: Desk, text: str, message: str) -> None:
        """And a release command has none at all."""
        assert message in str(desk.service_error(text))

    def test_limits_in_both_of_composes_forms(self, desk: Desk) -> None:
        """Bytes and processors."""
        limits = Resources(cpus=0.5, memory=512 * 2**20)

        assert limits == desk.service("cpus: 0.5\nmem_limit: 512m").resources
        assert limits == desk.service("deploy: {resources: {limits: {cpus: '0.50', memory: 512M}}}").resources

    def test_limits_that_differ_are_an_error(self, desk: Desk) -> None:
        """It names both places."""
        error = desk.service_error("cpus: 1\ndeploy: {resources: {limits: {cpus: 2}}}")

        assert "services.web.cpus: differs from deploy.resources.limits.cpus in line 5" in str(error)

    def test_times_are_seconds(self, desk: Desk) -> None:
        """none means no limit."""
        web = desk.service(
            "timeout: none\nstop_grace_period: 1m30s\ndrain_period: 0s\nretries: {attempts: 5}"
        )

        assert (None, 90.0, 0.0, 5) == (
            web.timeout,
            web.stop_grace_period,
            web.drain_period,
            web.retries.attempts,
        )


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
