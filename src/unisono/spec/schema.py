"""
The file as it is written: the models of a file and of a service in it, with a description for each field.

The mappings inside a service are in :mod:`unisono.spec.sections`, those that say how requests are treated in
:mod:`unisono.spec.written`.

Keys that are not here are errors with the nearest right one; those that Compose has and we can't honour
(:mod:`unisono.spec.compose`) are taken out with a warning; ``x-`` keys are anybody's. The JSON Schema for
editors comes from the same models. What the values mean together is :mod:`unisono.spec.convert`'s.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, ValidationError

from unisono.spec import compose
from unisono.spec.base import Model, text_as
from unisono.spec.errors import Problem, Report
from unisono.spec.fields import (
    ANYTHING,
    FLAG,
    SIZE,
    TEXT,
    TEXTS,
    Also,
    duration,
    many,
    number,
    one_of,
    unfit,
    whole,
)
from unisono.spec.kinds import COMMAND, CONCURRENCY, ENVIRONMENT, NAME, RESTART, SIGNAL, TABLES
from unisono.spec.nodes import ListNode, MapNode, Node, Scalar, find, problem
from unisono.spec.requests import POLICIES
from unisono.spec.sections import (
    MAX_REPLICAS,
    Access,
    Dependency,
    Deploy,
    EnvFile,
    HealthCheck,
    Port,
    Scale,
    Transactions,
)
from unisono.spec.shared import Table
from unisono.spec.written import (
    Balance,
    Hedge,
    Mirror,
    PublicTls,
    Queue,
    Retries,
    Route,
    switch,
)

MAX_SERVICES = 1000
MAX_PORTS = 1000


def _scale(node: Node) -> Node:
    if not isinstance(node, Scalar):
        return node
    whole(0, MAX_REPLICAS).read(node)
    entries = [("min", node), ("max", node)]
    return MapNode(entries, node.mark, {"min": node.mark, "max": node.mark}, path=node.path)


def _names(node: Node) -> Node:
    """A list of names as a mapping to nothing."""
    if isinstance(node, MapNode):
        entries = [(key, _or_empty(child)) for key, child in node.items()]
        return MapNode(entries, node.mark, node.keys_at, path=node.path)
    if not isinstance(node, ListNode):
        raise unfit(node, "a list of services, or a mapping from them to conditions")
    items: dict[str, Node] = {}
    marks = {}
    for item in node:
        if not isinstance(item, Scalar) or item.is_null:
            raise unfit(item, "the name of a service")
        items[item.text] = MapNode([], item.mark, {}, path=item.path)
        marks[item.text] = item.mark
    return MapNode(items.items(), node.mark, marks, path=node.path)


def _or_empty(node: Node) -> Node:
    if isinstance(node, Scalar) and node.is_null:
        return MapNode([], node.mark, {}, path=node.path)
    return node


def _env_files(node: Node) -> Node:
    return node if isinstance(node, ListNode) else ListNode([node], node.mark, path=node.path)


def _ports(node: Node) -> Node:
    if not isinstance(node, ListNode):
        raise unfit(node, 'a list such as ["8000:8000"]')
    if len(node) > MAX_PORTS:
        raise unfit(node, f"at most {MAX_PORTS}", found=f"{len(node)} ports")
    return node


def _services(node: Node) -> Node:
    if not isinstance(node, MapNode):
        raise unfit(node, "a mapping from names to services")
    if len(node) > MAX_SERVICES:
        raise unfit(node, f"at most {MAX_SERVICES}", found=f"{len(node)} services")
    return node


_NAMES = {"type": "array", "items": {"type": "string"}}
_TEXT_SCHEMA = {"type": "string"}
_COUNT = {"type": "integer", "minimum": 0, "maximum": MAX_REPLICAS}
_EnvFile = Annotated[EnvFile, Also(text_as("path"), _TEXT_SCHEMA)]
_Port = Annotated[Port, Also(text_as("target"), {"type": ["string", "integer"]})]


class Service(Model):
    """One service: a program, how many instances of it run, and how requests reach them."""

    not_honoured = compose.SERVICE
    command: Annotated[tuple[str, ...], COMMAND] | None = Field(
        None,
        description="The program and its arguments, with no shell. {port} or $PORT is the instance's port.",
    )
    entrypoint: Annotated[tuple[str, ...], COMMAND] | None = Field(
        None, description="Stands before command: the program, if command holds only arguments."
    )
    working_dir: Annotated[Node, ANYTHING] | None = Field(
        None, description="Where the program runs; the folder of this file by default."
    )
    environment: Annotated[dict[str, str | None], ENVIRONMENT] | None = Field(
        None, description="Variables, as a mapping or a list; one without a value is taken from the caller's."
    )
    env_file: Annotated[list[_EnvFile], Also(_env_files, _TEXT_SCHEMA)] | None = Field(
        None, description="Files of variables; later ones win, environment wins over all."
    )
    user: Annotated[str, TEXT] | None = Field(
        None, description="Who the program runs as: a name or number, with :group if wanted."
    )
    depends_on: Annotated[dict[str, Dependency], Also(_names, _NAMES)] | None = Field(
        None, description="Services that start first. PAYMENTS_URL leads to the service payments."
    )
    healthcheck: HealthCheck | None = Field(
        None, description="How an instance is known to be ready and healthy."
    )
    routes: Annotated[list[Route], Also(many("a list such as [{path: /orders}]"))] | None = Field(
        None, description="Requests at the gateway's public address that belong to the service."
    )
    ports: Annotated[list[_Port], Also(_ports)] | None = Field(
        None, description="Ports of its own at which the gateway answers for the service."
    )
    expose: Annotated[tuple[str, ...], TEXTS] | None = Field(
        None, description="Compose's; here it says that the service serves."
    )
    port: Annotated[int, whole(1, 65535)] | None = Field(
        None,
        description="The port that the program insists on, if it can't be told one; it has one instance.",
    )
    serves: Annotated[bool, FLAG] | None = Field(
        None, description="Whether it listens at a port; found out from the other fields by default."
    )
    scale: (
        Annotated[
            Scale,
            Also(_scale, _COUNT, _TEXT_SCHEMA),
        ]
        | None
    ) = Field(None, description="Number of instances, or a range of it.")
    deploy: Deploy | None = Field(None, description="How instances are limited and replaced.")
    cpus: Annotated[float, number(0, 100_000, above=True)] | None = Field(
        None, description="The same as deploy.resources.limits.cpus."
    )
    mem_limit: Annotated[int, SIZE] | None = Field(
        None, description="The same as deploy.resources.limits.memory."
    )
    restart: Annotated[str, RESTART] | None = Field(
        None,
        description="When an ended instance is started again: always (the default; Compose's is no), "
        "on-failure, on-failure:N or no; unless-stopped means always.",
    )
    stop_signal: Annotated[str, SIGNAL] | None = Field(
        None, description="Tells the program to end; SIGTERM by default."
    )
    stop_grace_period: Annotated[float, duration()] | None = Field(
        None, description="From the stop signal to SIGKILL; 10s by default."
    )
    drain_period: Annotated[float, duration()] | None = Field(
        None, description="Longest wait for running requests before the stop signal; 30s by default."
    )
    mode: Annotated[str, one_of("http", "tcp")] | None = Field(
        None, description="tcp: connections are carried to instances as they are; http by default."
    )
    protocol: Annotated[str, one_of("http1", "h2", "grpc")] | None = Field(
        None, description="What the program speaks: http1 (the default), h2 or grpc, both in clear text."
    )
    priority: Annotated[str, one_of("realtime", "balanced", "consistent")] | None = Field(
        None,
        description="A set of defaults, each of which can be overridden; balanced by default. "
        "See the guide, page dispatch.",
    )
    concurrency: Annotated[Any, CONCURRENCY] | None = Field(
        None,
        description="Requests at a time per instance: a number, or auto, which learns it; no limit by "
        "default.",
    )
    balance: Annotated[Balance, Also(text_as("policy"), {"enum": list(POLICIES)})] | None = Field(
        None, description="Which instance a request goes to; fastest by default."
    )
    hold: Annotated[bool, FLAG] | None = Field(
        None,
        description="true: a request waits for a much faster instance rather than go to a slow one at once.",
    )
    timeout: Annotated[float, duration(positive=True, never=True)] | None = Field(
        None, description="From a request's arrival to the head of its answer; 60s by default, or none."
    )
    queue: Queue | None = Field(None, description="Requests that wait for an instance.")
    retries: (
        Annotated[Retries, Also(text_as("attempts"), {"type": "integer", "minimum": 1, "maximum": 100})]
        | None
    ) = Field(None, description="Further tries of requests that may be sent again.")
    hedge: Annotated[Hedge, Also(switch, {"type": "boolean"})] | None = Field(
        None, description="A second try beside the first, when that takes long; none by default."
    )
    eject: Annotated[bool, FLAG] | None = Field(
        None, description="false: an instance that fails again and again goes on getting requests."
    )
    slow_start: Annotated[float, duration()] | None = Field(
        None, description="How long the number of requests of a new instance rises; 10s by default."
    )
    sticky: Annotated[str, NAME] | None = Field(
        None, description="A cookie; requests with it go on to the instance that they had first."
    )
    mirror: Annotated[Mirror, Also(text_as("service"), _TEXT_SCHEMA)] | None = Field(
        None, description="Copies of requests to another service, whose answers nobody sees."
    )
    access: Access | None = Field(
        None, description="What it may do with shared state; everything of its application by default."
    )
    profiles: Annotated[tuple[str, ...], TEXTS] | None = Field(
        None, description="The service runs only with one of these profiles; always by default."
    )
    extends: Annotated[Node, ANYTHING] | None = Field(
        None, description="A service to start from: its name, or {service, file}."
    )
    image: Annotated[str, TEXT] | None = Field(
        None, description="A container's image; processes have a command."
    )
    build: Annotated[Node, ANYTHING] | None = Field(None, description="How a container's image is built.")

    @classmethod
    def _remedy(cls, key: str, _value: Node) -> str | None:
        if key == "tls":
            return "tls stands in one of ports, or at the top of the file for the address where routes are"
        return None


class File(Model):
    """A file of services."""

    not_honoured = compose.TOP_LEVEL
    name: Annotated[str, TEXT] | None = Field(
        None, description="The application's name: a-z, 0-9, _ and -; the folder's by default."
    )
    services: Annotated[dict[str, Service], Also(_services)] | None = Field(
        None, description="The services by name."
    )
    tls: PublicTls | None = Field(
        None, description="The gateway speaks TLS at its public address; clear text by default."
    )
    transactions: Transactions | None = Field(
        None, description="What transactions may call beside the services; nothing by default."
    )
    shared: Annotated[tuple[Table, ...], TABLES] | None = Field(
        None,
        description="Prefixes of shared state that each machine mirrors in memory, each with the size of its "
        "memory, such as {prices/: 16m}; none by default.",
    )
    include: Annotated[Node, ANYTHING] | None = Field(
        None, description="Other files whose services belong to the application too."
    )

    @classmethod
    def _remedy(cls, _key: str, value: Node) -> str | None:
        if isinstance(value, MapNode) and not {"command", "image", "build"}.isdisjoint(value):
            return "services stand under services:"
        return None


def validate(tree: Node, report: Report) -> File:
    """
    The file in ``tree``, whose nodes know their paths.

    Raises:
        SpecError: It does not fit; every field that does not is named.
    """
    try:
        file = File.model_validate(tree, context={"report": report})
    except ValidationError as error:
        for detail in error.errors(include_url=False, include_input=False):
            report.error(_problem(tree, detail))
    report.check()
    return file


def _problem(tree: Node, detail: Any) -> Problem:
    context = detail.get("ctx", {})
    if isinstance(context.get("node"), Scalar | MapNode | ListNode):
        return problem(context["node"], context["wanted"], found=context["found"], hint=context["hint"])
    parent = find(tree, detail["loc"][:-1])
    missing = detail["loc"][-1]
    return problem(parent, f"the key {missing} in it")


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a file of services, for editors."""
    schema = File.model_json_schema()
    for definition in (schema, *schema.get("$defs", {}).values()):
        definition.pop("title", None)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "unisono.yaml",
        **schema,
    }
