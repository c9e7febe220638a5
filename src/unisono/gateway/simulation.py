"""
What dispatch would do with a load, without any process: the gateway's own code in virtual time.

Only the typed face: the simulation is the engine's (``engine/src/simulate``). The same scenario gives the
same report.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

from unisono import _engine
from unisono.gateway.table import Balance


@dataclass(frozen=True, kw_only=True)
class Constant:
    """Every request takes the mean time."""

    kind: str = "constant"


@dataclass(frozen=True, kw_only=True)
class Exponential:
    """Times are exponential."""

    kind: str = "exponential"


@dataclass(frozen=True, kw_only=True)
class Lognormal:
    """Times are lognormal; ``cv``: standard deviation over mean, 0 to 100."""

    cv: float
    kind: str = "lognormal"


@dataclass(frozen=True, kw_only=True)
class Bimodal:
    """A ``share`` (0 to 1) of the requests takes ``ratio`` (1 to 1 000 000) times as long as the others."""

    share: float
    ratio: float
    kind: str = "bimodal"


@dataclass(frozen=True, kw_only=True)
class Pauses:
    """An instance stops for ``for_ms``, ``every_ms`` on average (exponential), and goes on where it was."""

    every_ms: float
    for_ms: float


@dataclass(frozen=True, kw_only=True)
class Freeze:
    """An instance stops once, from ``at_ms`` on for ``for_ms``, and goes on where it was."""

    at_ms: float
    for_ms: float


@dataclass(frozen=True, kw_only=True)
class Fails:
    """An instance answers a ``share`` (0 to 1) of the requests with an error, after ``after_ms``."""

    share: float
    after_ms: float


@dataclass(frozen=True, kw_only=True)
class Instances:
    """
    ``count`` instances that are alike.

    Attributes:
        count: At least 0; 1 to 10 000 in all groups together.
        places: Requests that each works on at a time; more wait there in order.
        speed: Work per time beside an instance of speed 1, 0.001 to 1000.
        pauses: Stops again and again.
        freeze: Stops once.
        fails: Answers with errors.
    """

    count: int
    places: int = 1
    speed: float = 1.0
    pauses: Pauses | None = None
    freeze: Freeze | None = None
    fails: Fails | None = None


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """
    Everything that a run depends on. Sending takes no time; what is given up ends at the instance at once.

    Attributes:
        requests: How many come, in a Poisson process, 1 to 10 000 000.
        warm_up: The first so many of them are not in the report.
        utilisation: Requests per second over the capacity per second, up to 100.
        mean_ms: Mean time of a request on an instance of speed 1.
        service: How times are distributed.
        instances: Groups of instances.
        concurrency: Requests at a time per instance that dispatch keeps to, or "auto": as many as it finds
            good; ``None``: as many as come.
        balance: By which one of the instances with a free place is taken.
        hold: Whether a request may wait for a much faster instance.
        dispatchers: Gateways that share the instances and know nothing of each other, 1 to 64.
        deadline_ms: When a client goes away; ``None``: never.
        queue_max: Requests that may wait at once; ``None``: as in the file.
        eject: Whether instances that fail are put aside.
        retries: Further tries of a request that failed, within the default budget.
        hedge: Share of requests that may be tried a second time beside the first; ``None``: none.
        seed: Of all chance.
    """

    requests: int
    warm_up: int = 0
    utilisation: float
    mean_ms: float = 10.0
    service: Constant | Exponential | Lognormal | Bimodal
    instances: tuple[Instances, ...]
    concurrency: int | Literal["auto"] | None
    balance: Balance = "fastest"
    hold: bool = False
    dispatchers: int = 1
    deadline_ms: float | None = None
    queue_max: int | None = None
    eject: bool = True
    retries: int = 0
    hedge: float | None = None
    seed: int = 1


@dataclass(frozen=True)
class Times:
    """Mean and quantiles in milliseconds; zeros where there was nothing to count."""

    mean: float
    p50: float
    p90: float
    p99: float
    p99_9: float
    max: float


@dataclass(frozen=True)
class Report:
    """
    What a run came to, over the requests after the warm-up.

    Attributes:
        requests: Those that ended: the sum of the next five.
        good: Answered well and in time.
        late: The client went away first.
        refused: Not taken in: the queue was full, or they could not have been in time.
        shed: Taken in and sent away later.
        failed: Failed on the last instance that they were tried on.
        retries: Further tries, with those of the warm-up.
        hedges: Second tries beside a first, with those of the warm-up.
        goodput: Good answers per second over the capacity per second, until the last arrival.
        latency_ms: Of good answers, from arrival.
        wait_ms: From arrival to the beginning of work.
        waited: Share of requests that waited, of those that work began on.
        tries: What came to each instance, in the order of the groups, with the warm-up.
    """

    requests: int
    good: int
    late: int
    refused: int
    shed: int
    failed: int
    retries: int
    hedges: int
    goodput: float
    latency_ms: Times
    wait_ms: Times
    waited: float
    tries: tuple[int, ...]


def simulate(scenario: Scenario) -> Report:
    """
    Plays a scenario to its end.

    Raises:
        ValueError: A number is out of range, or the run never ends; the message says what would be right.
    """
    found: dict[str, Any] = json.loads(_engine.simulate(json.dumps(asdict(scenario))))
    latency, wait, tries = (found.pop(name) for name in ("latency_ms", "wait_ms", "tries"))
    return Report(latency_ms=Times(**latency), wait_ms=Times(**wait), tries=tuple(tries), **found)
