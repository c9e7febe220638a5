"""
Ports as Compose writes them, to those at which the gateway answers for a service.

``"8000:8000"`` means that the gateway listens at 8000 and gives what comes there to the service; what
stands behind the colon is a port inside a container, of which a process knows nothing.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass

from unisono.spec.errors import Problem, Report, field_path
from unisono.spec.model import PublishedPort
from unisono.spec.nodes import MapNode, Node, find, problem, quoted
from unisono.spec.sections import Port
from unisono.spec.tls import tls

MAX_RANGE = 100
_WANTED = "ports such as 8000:8000 or 127.0.0.1:8000:80, each from 1 to 65535"
_SHORT = re.compile(
    r"(?:(?:(?P<host>\[[0-9a-fA-F:.%]+\]|[0-9a-fA-F.]*|[^:]*):)?(?P<published>[0-9-]*):)?(?P<target>[0-9-]+)(?:/(?P<protocol>[a-z]+))?"
)


@dataclass(frozen=True)
class Parsed:
    """One entry of ``ports``: where the gateway listens (nowhere: empty), and the ports behind it."""

    published: tuple[PublishedPort, ...]
    targets: tuple[int, ...]


def parse_port(port: Port, node: Node, report: Report) -> Parsed:
    """What an entry means; ``node`` is where it was written. What has no effect is warned of."""
    if port.published is None and port.host_ip is None:
        match = _SHORT.fullmatch(port.target)
        if match is None:
            report.error(problem(node, _WANTED))
            return Parsed((), ())
        host, published = match["host"], match["published"]
        target, protocol = match["target"], match["protocol"] or port.protocol
    else:
        host, published, target, protocol = port.host_ip, port.published, port.target, port.protocol
    targets = _range(target)
    numbers = _range(published) if published else ()
    if targets is None or numbers is None:
        report.error(problem(node, _WANTED))
        return Parsed((), ())
    path = field_path(node.path)
    if protocol not in (None, "tcp"):
        report.warn(
            f"has no effect: the gateway speaks HTTP over TCP, not {protocol}", mark=node.mark, path=path
        )
        return Parsed((), targets)
    if not numbers:
        message = (
            f"has no effect: {target} alone is a port inside a container; "
            f'to have the gateway listen there write "{target}:{target}"'
        )
        report.warn(message, mark=node.mark, path=path)
        return Parsed((), targets)
    if len(numbers) != len(targets):
        if len(targets) > 1:
            report.error(problem(node, "two ranges of the same length"))
            return Parsed((), ())
        report.warn(f"only the first port of {published} is used", mark=node.mark, path=path)
        numbers = numbers[:1]
    address = _address(host, node, report)
    secured = tls(port.tls, node.get("tls", node) if isinstance(node, MapNode) else node, report)
    published_at = tuple(PublishedPort(port=number, host_ip=address, tls=secured) for number in numbers)
    return Parsed(published_at, targets)


def insisted_port(ports: Sequence[Parsed], command: str) -> int | None:
    """The one port behind a published one that the command names; ``None``: there is none, or several."""
    published = {port.port for parsed in ports for port in parsed.published}
    named = {target for parsed in ports for target in parsed.targets if names_port(command, target)}
    return named.pop() if len(named) == 1 and not named & published else None


def names_port(command: str, port: int) -> bool:
    """Whether a command has the number in it, as a number of its own."""
    return re.search(rf"(?<![\d.]){port}(?![\d.])", command) is not None


def _range(text: str) -> tuple[int, ...] | None:
    """The ports of ``8000`` or ``8000-8010``; ``None`` if it is neither."""
    if not re.fullmatch(r"[0-9]{1,5}(-[0-9]{1,5})?", text):
        return None
    first, _, last = text.partition("-")
    low, high = int(first), int(last or first)
    if not 1 <= low <= high <= 65535 or high - low >= MAX_RANGE:
        return None
    return tuple(range(low, high + 1))


def _address(host: str | None, node: Node, report: Report) -> str:
    if not host:
        return PublishedPort.host_ip
    text = host.strip("[]")
    if text == "localhost":
        return "127.0.0.1"
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        report.error(
            problem(node, "an IP address such as 127.0.0.1 or 0.0.0.0", found=f"the host {quoted(text)}")
        )
        return PublishedPort.host_ip


def collisions(tree: Node, published: dict[str, tuple[PublishedPort, ...]], report: Report) -> None:
    """Note every port that two services want; an address that means all collides with each."""
    taken: dict[int, list[tuple[str, str]]] = {}
    for service, ports in published.items():
        for port in ports:
            node = find(tree, ("services", service, "ports"))
            for other, host_ip in taken.get(port.port, ()):
                if other != service and _overlap(host_ip, port.host_ip):
                    first = find(tree, ("services", other, "ports")).mark
                    message = f"the port {port.port} is also wanted by {other} in {first}"
                    report.error(Problem(mark=node.mark, path=field_path(node.path), message=message))
                    break
            taken.setdefault(port.port, []).append((service, port.host_ip))


def _overlap(one: str, other: str) -> bool:
    return one == other or any(ipaddress.ip_address(host).is_unspecified for host in (one, other))
