"""
How requests are treated, as it is written: the models of the mappings that say it, one for each.

Other mappings inside a service are :mod:`unisono.spec.sections`'; what the words mean together is
:mod:`unisono.spec.treatment`'s.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from unisono.spec.base import Model, text_as
from unisono.spec.fields import (
    FILE,
    PERCENT,
    SHARE,
    SIZE,
    TEXT,
    TRUTH,
    Also,
    duration,
    many,
    one_of,
    unfit,
    whole,
)
from unisono.spec.kinds import AFTER, HASH_ON, HOST, LOAD, NAME, PATH, STATUSES
from unisono.spec.nodes import ListNode, MapNode, Node, Scalar
from unisono.spec.requests import POLICIES, HashOn

MAX_CANARIES = 20


class Route(Model):
    """Requests at the gateway's public address that belong to the service."""

    path: Annotated[str, PATH] = Field("/", description="What the path begins with; the longest route wins.")
    host: Annotated[str, HOST] | None = Field(
        None, description="Only requests for this host; any by default."
    )
    priority: Annotated[str, one_of("high", "normal", "low")] = Field(
        "normal", description="Which requests are served first when not all can be: high, normal or low."
    )


class Balance(Model):
    """Which instance a request goes to: the name of a policy, or this."""

    policy: Annotated[str, one_of(*POLICIES)] = Field(
        "fastest",
        description="fastest (the default), least_requests, round_robin, weighted, random, p2c_ewma, "
        "ring_hash, maglev or prequal.",
    )
    hash_on: Annotated[HashOn, HASH_ON] | None = Field(
        None,
        description="What ring_hash and maglev go by: path, client, {header: NAME} or {cookie: NAME}.",
    )
    hash_load: Annotated[float, LOAD] | None = Field(
        None, description="No instance gets more than so many times the mean; 1.25 by default, or none."
    )


class Retries(Model):
    """Further tries of requests that may be sent again: a number of tries in all, or this."""

    attempts: Annotated[int, whole(1, 100)] | None = Field(
        None, description="Tries of one request in all; 3 by default."
    )
    budget: Annotated[float, PERCENT] | None = Field(
        None, description="Share of requests that may be further tries; 20% by default."
    )
    statuses: Annotated[tuple[int, ...], STATUSES] | None = Field(
        None, description="Answers that count as failed; [502, 503, 504] by default."
    )
    backoff: Annotated[float, duration()] | None = Field(
        None, description="The first pause is up to this, each one after it up to twice the last; 25ms."
    )
    backoff_max: Annotated[float, duration()] | None = Field(
        None, description="No pause is longer; 250ms by default."
    )


class Hedge(Model):
    """A second try beside the first, when that takes long: true, false, or this."""

    after: Annotated[float | None, AFTER] = Field(
        None,
        description="How long the first try has: a duration, or measured (the default: p99 or twice p50).",
    )
    budget: Annotated[float, PERCENT] | None = Field(
        None, description="Share of requests that may be second tries; 2% by default."
    )


class Queue(Model):
    """Requests that wait for an instance."""

    max: Annotated[int, whole(0, 1_000_000)] | None = Field(
        None, description="At once; 50 for each place of an instance by default, from 128 to 10000."
    )
    bytes: Annotated[int, SIZE] | None = Field(None, description="Of their heads and bodies; 64m by default.")
    wait: Annotated[float, duration()] | None = Field(
        None, description="Longest wait of one; 10s by default."
    )


class Mirror(Model):
    """Copies of requests to another service, whose answers nobody sees: its name, or this."""

    service: Annotated[str, TEXT] = Field(description="A service of the same file.")
    percent: Annotated[float, SHARE] | None = Field(
        None, description="Share of requests that are copied; 100% by default."
    )


class Certificate(Model):
    """PEM files of one certificate."""

    certificate: Annotated[Node, FILE] = Field(
        description="The certificate, and those between it and its authority."
    )
    key: Annotated[Node, FILE] = Field(description="Its private key.")


class PublicTls(Model):
    """TLS at an address: certificate and key of one, or a list of several in certificates."""

    certificate: Annotated[Node, FILE] | None = Field(
        None, description="PEM file of the certificate, and of those between it and its authority."
    )
    key: Annotated[Node, FILE] | None = Field(None, description="PEM file of its private key.")
    certificates: Annotated[list[Certificate], Also(many("a list of {certificate, key}"))] | None = Field(
        None, description="Several, chosen by the name that a client asks for; the first for all others."
    )


class Tls(PublicTls):
    """TLS at a published port: certificate and key of one, or a list of several in certificates."""

    client_ca: Annotated[Node, FILE] | None = Field(
        None, description="PEM file of the authorities whose clients are let in; all are by default."
    )


class HeaderMatch(Model):
    """Requests that have a header: its name, or this."""

    name: Annotated[str, NAME] = Field(description="The header.")
    value: Annotated[str, TEXT] | None = Field(None, description="What it says; anything by default.")


class Success(Model):
    """What a canary must show for the rollout to go on."""

    ratio: Annotated[float, PERCENT] | None = Field(
        None, description="So many of its requests must succeed; 99% by default."
    )
    p99: Annotated[float, duration(positive=True)] | None = Field(
        None, description="99 % of them must be answered within this; not judged by default."
    )
    min_requests: Annotated[int, whole(0, 1_000_000)] | None = Field(
        None, description="Fewer say nothing, so that it waits for more; 20 by default, 0: none are needed."
    )


class Canary(Model):
    """A step in which the new revision gets a share of the requests and is judged: the share, or this."""

    weight: Annotated[float, SHARE] | None = Field(
        None, description="The share of requests that it gets; 5% by default."
    )
    header: Annotated[HeaderMatch, Also(text_as("name"), {"type": "string"})] | None = Field(
        None, description="Requests with this header go to it in any case."
    )
    monitor: Annotated[float, duration()] | None = Field(
        None, description="How long it is watched once its instances are ready; 30s by default."
    )
    success: Success | None = Field(None, description="What it must show.")


def switch(node: Node) -> Node:
    """true and false as a mapping without keys; which of the two it was is the converter's to see."""
    if isinstance(node, Scalar) and node.text.lower() in TRUTH:
        return MapNode([], node.mark, {}, path=node.path)
    if not isinstance(node, MapNode):
        raise unfit(node, "true, false, or a mapping with after and budget")
    return node


def steps(node: Node) -> Node:
    """One step as a list of it."""
    one = node if isinstance(node, ListNode) else ListNode([node], node.mark, path=node.path)
    if not 1 <= len(one) <= MAX_CANARIES:
        raise unfit(node, f"1 to {MAX_CANARIES} steps", found=f"{len(one)} steps")
    return one
