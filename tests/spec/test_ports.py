"""Ports and routes: where requests come in."""

from __future__ import annotations

import pytest

from tests.spec.conftest import Desk
from unisono.spec.model import PublishedPort, Route


class TestPorts:
    """Where the gateway listens."""

    @pytest.mark.parametrize(
        ("text", "published"),
        [
            ("'8000:80'", [(8000, "127.0.0.1")]),
            ("8000:80", [(8000, "127.0.0.1")]),
            ("22:22", [(22, "127.0.0.1")]),
            ("'0.0.0.0:8000:80/tcp'", [(8000, "0.0.0.0")]),
            ("'[::1]:8000:80'", [(8000, "::1")]),
            ("8000-8002:80-82", [(8000, "127.0.0.1"), (8001, "127.0.0.1"), (8002, "127.0.0.1")]),
            ("{target: 80, published: 8000}", [(8000, "127.0.0.1")]),
            ("{target: 80, published: '8000', host_ip: 10.0.0.1, protocol: tcp}", [(8000, "10.0.0.1")]),
            ("'8000'", []),
            ("'8000:80/udp'", []),
        ],
    )
    def test_each_form_of_a_port(self, desk: Desk, text: str, published: list[tuple[int, str]]) -> None:
        """Short and long; the port inside a container has no meaning for a process."""
        web = desk.service(f"ports: [{text}]")

        assert [PublishedPort(port=port, host_ip=host) for port, host in published] == list(web.ports)

    @pytest.mark.parametrize(
        "text",
        ["abc", "'70000:1'", "'0:80'", "'1-2:1-3'", "'x:80:80'", "{published: 80}", "[1]", "'80-70:80'"],
    )
    def test_what_is_no_port_is_an_error(self, desk: Desk, text: str) -> None:
        """It names the entry."""
        assert "services.web.ports[0]" in str(desk.service_error(f"ports: [{text}]"))

    @pytest.mark.parametrize(
        ("one", "other"),
        [("80:80", "80:81"), ("80:80", "0.0.0.0:80:80"), ("127.0.0.1:80:80", "'[::]:80:80'")],
    )
    def test_a_port_that_two_services_want_is_an_error_with_both_places(
        self, desk: Desk, one: str, other: str
    ) -> None:
        """An address that means all collides with each."""
        error = desk.error(
            "services:\n"
            f"  a: {{command: sleep 1, ports: [{one}]}}\n"
            f"  b: {{command: sleep 1, ports: [{other}]}}\n"
        )

        assert (
            "unisono.yaml:3:32 services.b.ports: the port 80 is also wanted by a in unisono.yaml:2:32"
            == str(error)
        )

    def test_a_command_with_the_published_port_in_it_is_warned_of(self, desk: Desk) -> None:
        """Program and gateway would both listen there."""
        (warning,) = desk.warnings("command: sleep 8000\nports: ['8000:8000']")

        assert (
            "services.web.command: names the port 8000, at which the gateway listens: write {port}" in warning
        )

    @pytest.mark.parametrize(
        ("text", "port"),
        [
            ("command: sleep --port 8000\nports: ['80:8000']", 8000),
            ("command: sleep --port=8000\nports: ['80:8000', '81:9000']", 8000),
            ("command: sleep --port {port}\nports: ['80:8000']", None),
            ("command: sleep\nenvironment: {PORT: 8000}\nports: ['80:8000']", None),
            ("command: sleep 8000.5\nports: ['80:8000']", None),
            ("command: sleep 8000 9000\nports: ['80:8000', '81:9000']", None),
        ],
    )
    def test_a_port_behind_a_published_one_that_the_command_names_is_the_programs(
        self, desk: Desk, text: str, port: int | None
    ) -> None:
        """As in a container, where nobody tells the program its port."""
        assert port == desk.service(text).port

    @pytest.mark.parametrize(
        "text", ["scale: 2", "scale: {min: 1, max: 3}", "deploy: {update_config: {order: start-first}}"]
    )
    def test_a_named_port_that_several_instances_would_take_is_warned_of(self, desk: Desk, text: str) -> None:
        """Instances of a container would each have one of their own."""
        warnings = desk.warnings(f"command: sleep 8000\nports: ['80:8000']\n{text}")

        assert any("names the port 8000, which only one instance at a time can have" in w for w in warnings)

    def test_routes_have_a_path_and_maybe_a_host(self, desk: Desk) -> None:
        """A host is lower case."""
        web = desk.service("routes: [{path: /a}, {host: Shop.Example, path: /}, {path: /a}]")

        assert (Route(path="/a"), Route(path="/", host="shop.example")) == web.routes

    @pytest.mark.parametrize(
        "text", ["{path: a}", "{path: '/a b'}", "{host: 'a:80'}", "{host: '*.a'}", "/a", "{}x"]
    )
    def test_what_is_no_route_is_an_error(self, desk: Desk, text: str) -> None:
        """It names the field, or the place."""
        assert "unisono.yaml:4" in str(desk.service_error(f"routes: [{text}]"))

    def test_two_services_on_one_route_are_an_error_with_both_places(self, desk: Desk) -> None:
        """The gateway could not choose."""
        error = desk.error(
            "services:\n"
            "  a: {command: sleep 1, routes: [{path: /x}]}\n"
            "  b: {command: sleep 1, routes: [{path: /x}]}\n"
        )

        assert (
            "unisono.yaml:3:34 services.b.routes: the route /x also belongs to a in unisono.yaml:2:34"
            == str(error)
        )
