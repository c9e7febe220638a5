"""What one service means: its health, and how its instances start, stop and are replaced."""

from __future__ import annotations

from typing import Any

import pytest

from tests.spec.conftest import Desk
from unisono.spec.model import Resources, Restart


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
