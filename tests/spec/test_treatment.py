"""How requests are treated: the words of a service for it, their defaults, and what they must not say."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.spec.conftest import Desk
from unisono.spec.model import PublishedPort, Route, ServiceSpec
from unisono.spec.requests import (
    Balance,
    Canary,
    Certificate,
    HashOn,
    HeaderMatch,
    Hedging,
    Mirror,
    Queue,
    Retries,
    Success,
    Tls,
)

PEM = "-----BEGIN {0}-----\nAA==\n-----END {0}-----\n"
WEB = "services: {web: {command: sleep 1, ports: ['8000:80'], %s}, copy: {command: sleep 1, serves: true}}"


class TestWords:
    @pytest.mark.parametrize(
        ("text", "field", "value"),
        [
            ("concurrency: 3", "concurrency", 3),
            ("concurrency: auto", "concurrency", "auto"),
            ("balance: least_requests", "balance", Balance(policy="least_requests")),
            (
                "balance: {policy: maglev, hash_on: {header: x-user}, hash_load: none}",
                "balance",
                Balance(policy="maglev", hash_on=HashOn(of="header", name="x-user"), hash_load=None),
            ),
            (
                "balance: {policy: ring_hash, hash_on: path}",
                "balance",
                Balance(policy="ring_hash", hash_on=HashOn(of="path")),
            ),
            ("hold: true", "hold", True),
            ("retries: 5", "retries", Retries(attempts=5)),
            (
                "retries: {attempts: 2, budget: 50%, statuses: [500], backoff: 1ms, backoff_max: 1s}",
                "retries",
                Retries(attempts=2, budget=0.5, statuses=(500,), backoff=0.001, backoff_max=1.0),
            ),
            ("retries: {backoff: 1s}", "retries", Retries(backoff=1.0, backoff_max=1.0)),
            ("hedge: true", "hedge", Hedging()),
            ("hedge: {after: measured}", "hedge", Hedging()),
            ("hedge: {after: 50ms, budget: 5%}", "hedge", Hedging(after=0.05, budget=0.05)),
            ("hedge: false", "hedge", None),
            ("eject: false", "eject", False),
            ("slow_start: 0s", "slow_start", 0.0),
            ("queue: {max: 5, bytes: 1m, wait: 2s}", "queue", Queue(max=5, bytes=1 << 20, wait=2.0)),
            ("sticky: at", "sticky", "at"),
            ("protocol: grpc", "protocol", "grpc"),
            ("mode: tcp", "mode", "tcp"),
            ("routes: [{path: /a, priority: high}]", "routes", (Route(path="/a", priority="high"),)),
        ],
    )
    def test_each_word_has_its_meaning(self, desk: Desk, text: str, field: str, value: object) -> None:
        """In the units of the model."""
        assert value == getattr(desk.service(text), field)

    def test_a_mirror_without_another_service_is_given_no_example(self, desk: Desk) -> None:
        """There is none to name."""
        found = str(desk.error("services: {web: {command: sleep 1, ports: ['8000:80'], mirror: b}}"))

        assert "want another service" in found
        assert "such as" not in found

    def test_a_mirror_is_a_service_of_the_same_file(self, desk: Desk) -> None:
        """By its name, or with a share."""
        short = desk.load(WEB % "mirror: copy").application.services["web"]
        long = desk.load(WEB % "mirror: {service: copy, percent: 12.5%}").application.services["web"]

        assert (Mirror(service="copy"), Mirror(service="copy", share=0.125)) == (short.mirror, long.mirror)

    def test_one_that_says_what_it_speaks_serves(self, desk: Desk) -> None:
        """Nobody would say it of a worker."""
        assert (True, True, False) == (
            desk.service("protocol: h2").serves,
            desk.service("mode: tcp").serves,
            desk.service("hold: false").serves,
        )

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (
                "concurrency: many",
                'found "many", want a whole number from 1 to 1000000, or auto',
            ),
            ("concurrency: 0", "concurrency: found 0, want a whole number from 1 to 1000000"),
            ("balance: luck", 'balance: found "luck", want fastest or least_requests'),
            ("balance: maglev", "balance: maglev has nothing to go by, want hash_on"),
            ("balance: {policy: maglev, hash_on: ip}", 'found "ip", want path, client, {header: NAME}'),
            ("balance: {policy: maglev, hash_on: {header: a b}}", 'found "a b", want a name'),
            ("retries: 0", "retries: found 0, want a whole number from 1 to 100"),
            ("retries: {statuses: [200]}", "found 200, want a whole number from 400 to 599"),
            ("retries: {statuses: 503}", "found 503, want a list of statuses"),
            ("retries: {backoff: 2s, backoff_max: 1s}", "backoff_max: found 1s below backoff, which is 2s"),
            ("hedge: {after: soon}", "want a duration such as 500ms, 10s or 1m30s, or measured"),
            ("hedge: {after: 0s}", "want a duration of 1ms or more, or measured"),
            ("hedge: 3", "hedge: found 3, want true, false, or a mapping"),
            ("sticky: a b", 'sticky: found "a b", want a name'),
            ("mirror: nobody", 'mirror: found no service "nobody", want another service'),
            ("mirror: web", 'mirror: found the service "web", want another service'),
            ("protocol: http3", 'protocol: found "http3", want http1 or h2 or grpc'),
            ("routes: [{priority: first}]", 'routes[0].priority: found "first", want high or normal or low'),
            (
                "routes: [{path: /a}, {path: /a, priority: low}]",
                "routes: the route /a is there twice with different priorities",
            ),
            ("mode: tcp\nroutes: [{path: /a}]", "routes: a tcp service has no paths"),
            (
                "mode: tcp\nbalance: {policy: maglev, hash_on: path}",
                "balance.hash_on: with mode: tcp only the client is known",
            ),
        ],
    )
    def test_what_makes_no_sense_is_named(self, desk: Desk, text: str, message: str) -> None:
        """With what was found and what would be right."""
        assert message in str(desk.service_error(text))

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("balance: {policy: random, hash_on: path}", "hash_on: has no effect: random does not hash"),
            ("mode: tcp\nhedge: true", "hedge: has no effect: with mode: tcp"),
            ("protocol: grpc\nhealthcheck: {http: /ready}", "http: asks over HTTP/1.1"),
            ("priority: consistent", "priority: says nothing of requests in this version"),
        ],
    )
    def test_what_has_no_effect_is_warned_of(self, desk: Desk, text: str, message: str) -> None:
        """It is no error."""
        assert any(message in warning for warning in desk.warnings(text))


class TestPriority:
    def test_balanced_is_the_default(self, desk: Desk) -> None:
        """It changes nothing."""
        plain, named = desk.service("serves: true"), desk.service("serves: true\npriority: balanced")

        assert plain == named

    def test_realtime_is_a_set_of_defaults(self, desk: Desk) -> None:
        """As the guide says."""
        web = desk.service("priority: realtime\nserves: true")

        assert ("auto", 5.0, 0.5, Hedging()) == (web.concurrency, web.timeout, web.queue.wait, web.hedge)
        assert Retries(backoff=0.01, backoff_max=0.1) == web.retries

    def test_each_default_can_be_overridden(self, desk: Desk) -> None:
        """What is written beside it counts; what is not stays the preset's."""
        web = desk.service(
            "priority: realtime\nconcurrency: 2\ntimeout: none\nhedge: false\n"
            "queue: {max: 9}\nretries: {attempts: 1}"
        )

        assert (2, None, None) == (web.concurrency, web.timeout, web.hedge)
        assert Queue(max=9, wait=0.5) == web.queue
        assert Retries(attempts=1, backoff=0.01, backoff_max=0.1) == web.retries


class TestTls:
    def test_paths_are_meant_from_the_file(self, desk: Desk) -> None:
        """Published ports and the public address; the gateway needs absolute ones."""
        desk.write(PEM.format("CERTIFICATE"), "tls/a.pem")
        desk.write(PEM.format("PRIVATE KEY"), "tls/a.key")
        pair = "certificate: tls/a.pem, key: tls/a.key"
        own = f"{{certificates: [{{{pair}}}], client_ca: tls/a.pem}}"
        loaded = desk.load(
            f"tls: {{{pair}}}\nservices: {{web: {{command: sleep 1, routes: [{{path: /}}], "
            f"ports: [{{target: 443, published: 8443, tls: {own}}}]}}}}"
        )
        web = loaded.application.services["web"]

        folder = desk.folder / "tls"
        certificate = Certificate(certificate=str(folder / "a.pem"), key=str(folder / "a.key"))
        assert (certificate,) == web.tls
        secured = Tls(certificates=(certificate,), client_ca=str(folder / "a.pem"))
        assert (PublishedPort(port=8443, tls=secured),) == web.ports

    def test_what_is_printed_has_them(self, desk: Desk) -> None:
        """Loading it gives the same."""
        desk.write(PEM.format("CERTIFICATE") + PEM.format("RSA PRIVATE KEY"), "a.pem")
        first = desk.load(
            "tls: {certificate: a.pem, key: a.pem}\nservices: {web: {command: sleep 1, routes: [{path: /}], "
            "ports: [{target: 443, published: 8443, tls: {certificate: a.pem, key: a.pem}}]}}"
        )
        desk.write(str(first.resolved).replace("'", '"').replace("True", "true").replace("False", "false"))

        assert first.application.services == desk.load(name=None).application.services

    @pytest.mark.parametrize(
        ("tls", "message"),
        [
            ("{certificate: no.pem, key: a.key}", 'tls.certificate: found "no.pem", want a PEM file'),
            ("{certificate: a.pem, key: a.pem}", 'tls.key: found the file "a.pem" without one, want a PEM'),
            ("{certificate: a.pem}", "tls: found a mapping, want certificate and key in it"),
            ("{certificates: []}", "tls: found a mapping, want certificate and key in it"),
            (
                "{certificate: a.pem, certificates: [{certificate: a.pem, key: a.key}]}",
                "tls: found certificates beside certificate or key",
            ),
        ],
    )
    def test_files_that_do_not_do_are_named(self, desk: Desk, tls: str, message: str) -> None:
        """When the file is applied, not when the first client comes."""
        desk.write(PEM.format("CERTIFICATE"), "a.pem")
        desk.write(PEM.format("EC PRIVATE KEY"), "a.key")

        error = desk.error(f"tls: {tls}\nservices: {{web: {{command: sleep 1, routes: [{{path: /}}]}}}}")

        assert message in str(error)


class TestCanary:
    def test_a_share_is_a_step(self, desk: Desk) -> None:
        """With the other defaults."""
        web = desk.service("deploy: {update_config: {canary: 10%}}")

        assert (Canary(share=0.1),) == web.update.canary

    def test_steps_follow_one_another(self, desk: Desk) -> None:
        """Each with a share, a header, a time and a condition of its own."""
        web = desk.service(
            "deploy: {update_config: {canary: [{weight: 0, header: {name: x-canary, value: 'yes'}}, "
            "{weight: 50%, monitor: 2m, success: {ratio: 99.5%, p99: 200ms, min_requests: 5}}]}}"
        )

        first = Canary(share=0.0, header=HeaderMatch(name="x-canary", value="yes"))
        success = Success(ratio=0.995, p99=0.2, min_requests=5)
        assert (first, Canary(share=0.5, monitor=120.0, success=success)) == web.update.canary

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("canary: 200%", 'found "200%", want a percentage'),
            ("canary: []", "found 0 steps, want 1 to 20 steps"),
            ("canary: {header: a b}", 'found "a b", want a name'),
            ("canary: {success: {ratio: 2}}", "found 2, want a percentage"),
        ],
    )
    def test_what_makes_no_sense_is_named(self, desk: Desk, text: str, message: str) -> None:
        """Before anything is rolled out."""
        assert message in str(desk.service_error(f"deploy: {{update_config: {{{text}}}}}"))

    def test_a_fixed_port_leaves_no_room(self, desk: Desk) -> None:
        """Two instances can't run at once."""
        error = desk.service_error("port: 9000\ndeploy: {update_config: {canary: 5%}}")

        assert "there is no room for a canary" in str(error)


class TestRevision:
    @pytest.mark.parametrize(
        "text",
        [
            "concurrency: 3",
            "balance: random",
            "retries: 1",
            "hedge: true",
            "priority: realtime",
            "queue: {wait: 1s}",
            "routes: [{path: /, priority: low}]",
            "deploy: {update_config: {canary: 5%}}",
        ],
    )
    def test_how_requests_are_treated_needs_no_new_instances(self, desk: Desk, text: str) -> None:
        """It takes effect on the running ones."""
        plain = desk.service("serves: true").revision_hash()

        assert plain == desk.service(f"serves: true\n{text}").revision_hash()

    @pytest.mark.parametrize("text", ["protocol: h2", "protocol: grpc", "mode: tcp"])
    def test_what_the_program_speaks_is_what_it_was_started_with(self, desk: Desk, text: str) -> None:
        """Another protocol means another program."""
        plain = desk.service("serves: true").revision_hash()

        assert plain != desk.service(f"serves: true\n{text}").revision_hash()

    def test_words_that_came_later_leave_known_digests_alone(self) -> None:
        """Else every service would be rolled out when unisono is upgraded."""
        spec = ServiceSpec(name="web", command=("serve",))

        assert spec.revision_hash() == "83d49ddf1dd46727"


@pytest.mark.parametrize(
    "make",
    [
        lambda: ServiceSpec(name="a", concurrency=0),
        lambda: ServiceSpec(name="a", sticky="a b"),
        lambda: ServiceSpec(name="a", slow_start=-1),
        lambda: Balance(policy="maglev"),
        lambda: Balance(hash_load=0.5),
        lambda: HashOn(of="header"),
        lambda: Retries(attempts=0),
        lambda: Retries(budget=2),
        lambda: Retries(statuses=(200,)),
        lambda: Retries(backoff=2, backoff_max=1),
        lambda: Hedging(after=0),
        lambda: Queue(max=-1),
        lambda: Mirror(service="a", share=2),
        lambda: Canary(share=2),
        lambda: Success(ratio=2),
        lambda: Tls(certificates=()),
    ],
)
def test_none_that_is_made_is_invalid(make: Callable[[], object]) -> None:
    """What comes over the API has not been read from a file; the gateway would refuse the whole table."""
    with pytest.raises(ValueError, match="want"):
        make()
