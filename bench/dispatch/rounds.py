"""
Rounds: the same load on the same instances through one peer after the other, in random order, several times.

A round uses the same seeds for all peers, so that each gets the same arrivals and the same service times;
figures are compared within a round, and the median of the ratios is what is reported. In full mode rounds in
which others used the processor are measured again; each finding says how much they did.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psutil

from bench.dispatch import optimum
from bench.dispatch.instances import Instances, build
from bench.harness import Finding, quantile
from bench.peers import Peer, Running, Setting
from unisono._engine import Load

FOREIGN_MAX = 0.10  # share of the machine that others may use in a round
NICENESS = -15  # so that what else runs here disturbs less; given up silently without the right to it


@dataclass(frozen=True, kw_only=True)
class Case:
    """Instances and the load on them."""

    service: str = "lognormal:10:1"  # milliseconds; see bench/instances/src/chance.rs
    mean_ms: float = 10.0
    places: int = 1
    speeds: tuple[float, ...] = (1.0,) * 8
    utilisation: float = 0.75  # of what all places can serve
    rate: float | None = None  # requests/s, instead of the utilisation
    is_closed: bool = False  # each connection asks again as soon as it is answered, instead of either
    pauses: str = "-"
    workers: int = 1
    connections: int = 1024
    timeout: float = 60.0
    headers: tuple[tuple[str, str], ...] = ()
    warm_up: float = 2.0
    seconds: float = 10.0

    @property
    def capacity(self) -> float:
        """Requests/s that all places can serve."""
        return sum(self.places / (self.mean_ms / 1e3 * speed) for speed in self.speeds)

    @property
    def arrivals(self) -> float:
        """Requests/s."""
        return self.rate or self.utilisation * self.capacity


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One request."""

    at: float  # seconds from the start to when it was to go out
    ms: float
    status: int  # 0: no answer

    @property
    def is_good(self) -> bool:
        """Whether it got what it asked for."""
        return 200 <= self.status < 400


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a peer did in one round, its warm-up left out."""

    samples: Sequence[Sample]
    unsent: int
    cpu_us: float  # of the peer for each request
    foreign: float  # share of the machine that others used
    log: Sequence[Mapping[str, Any]] = ()

    @property
    def failed(self) -> int:
        """Requests without a good answer."""
        return sum(not sample.is_good for sample in self.samples)

    def ms(self, q: float) -> float:
        """A quantile of the latency; a failed request counts as one that took forever."""
        return quantile([s.ms if s.is_good else float("inf") for s in self.samples], q)


def samples_of(report: str, warm_up: float = 0.0) -> tuple[list[Sample], int]:
    """The requests of a load's report after its warm-up, in their order; how many went unsent."""
    document = json.loads(report)
    found = [Sample(at=at / 1e6, ms=took / 1e3, status=status) for at, took, status in document["samples"]]
    return sorted((s for s in found if s.at >= warm_up), key=lambda s: s.at), document["unsent"]


class Machine:
    """Watches how much of the machine others use; what is ours is named at the end."""

    def __init__(self) -> None:
        self._began = self._busy(), time.monotonic(), self._own()

    def foreign(self, ours: float) -> float:
        """The share that neither this process nor others of ours, with so many CPU seconds, have used."""
        busy, began, own = self._began
        used = self._busy() - busy - (self._own() - own) - ours
        return max(0.0, used / ((time.monotonic() - began) * (os.cpu_count() or 1)))

    @staticmethod
    def _busy() -> float:
        times = psutil.cpu_times()
        return float(sum(times) - times.idle - times.iowait - times.guest - times.guest_nice)

    @staticmethod
    def _own() -> float:
        times = os.times()
        return times.user + times.system


def measure(peer: Peer, case: Case, seed: int) -> Outcome:
    """One round of one peer."""
    with Instances(
        places=case.places, service=case.service, speeds=case.speeds, seed=seed, pauses=case.pauses
    ) as instances:
        setting = Setting(
            ports=instances.ports,
            places=case.places,
            workers=case.workers,
            service=case.service,
            speeds=case.speeds,
        )
        with peer.start(setting) as running:
            return put_load(running, instances, case, seed)


def put_load(running: Running, instances: Instances, case: Case, seed: int) -> Outcome:
    """The case's load on a peer that runs."""
    load = Load(
        f"http://127.0.0.1:{running.port}/",
        connections=case.connections,
        rate=None if case.is_closed else case.arrivals,
        duration=case.warm_up + case.seconds,
        timeout=case.timeout,
        headers=case.headers,
        samples=True,
        seed=seed,
    )
    machine, cpu, instances_cpu = Machine(), running.cpu_seconds(), instances.cpu_seconds()
    report = load.run()
    cpu, instances_cpu = running.cpu_seconds() - cpu, instances.cpu_seconds() - instances_cpu
    foreign = machine.foreign(cpu + instances_cpu)
    everything, unsent = samples_of(report)
    return Outcome(
        samples=[sample for sample in everything if sample.at >= case.warm_up],
        unsent=unsent,
        cpu_us=cpu / max(1, len(everything)) * 1e6,
        foreign=foreign,
        log=instances.log(),
    )


Rounds = dict[str, list[Outcome]]


def compare(
    what: str,
    case: Case,
    peers: Sequence[Peer],
    how: Mode,
    *,
    by: Callable[[Peer, Case, int], Outcome] = measure,
    q: float = 0.99,
) -> Rounds:
    """So many rounds of a case with each peer; a line on stderr for each."""
    found: Rounds = {peer.name: [] for peer in peers}
    for number in range(how.rounds):
        for peer in random.sample(peers, len(peers)):
            outcome = by(peer, case, 1000 + number)
            for _ in range(how.again_max):
                if outcome.foreign <= FOREIGN_MAX:
                    break
                again = by(peer, case, 1000 + number)
                outcome = min(outcome, again, key=lambda one: one.foreign)
            found[peer.name].append(outcome)
            say(
                f"{what} round {number + 1} {peer.name}: {len(outcome.samples)} requests,"
                f" p50 {outcome.ms(0.5):.2f},"
                f" p{q * 100:g} {outcome.ms(q):.2f} ms, {outcome.failed} failed, {outcome.unsent} unsent,"
                f" {outcome.cpu_us:.0f} us CPU each, foreign {outcome.foreign:.0%}"
            )
    return found


def available(*peers: Peer) -> list[Peer]:
    """The peers that can be started here; one line for each other."""
    for peer in peers:
        if peer.missing():
            say(f"left out: {peer.missing()}")
    return [peer for peer in peers if not peer.missing()]


def median(found: Rounds, name: str, figure: Callable[[Outcome], float]) -> float:
    """The median of a figure over a peer's rounds."""
    return statistics.median(map(figure, found[name]))


def ratio(found: Rounds, ours: str, theirs: str, figure: Callable[[Outcome], float]) -> float:
    """The median over the rounds of our figure as a multiple of theirs."""
    return statistics.median(
        divide(figure(a), figure(b)) for a, b in zip(found[ours], found[theirs], strict=True)
    )


def divide(ours: float, theirs: float) -> float:
    """Ours as a multiple of theirs; infinite if we have failed, even where they have too."""
    return ours / theirs if ours < float("inf") else float("inf")


def against(
    claim: str, found: Rounds, ours: str, goals: Mapping[str, float], q: float = 0.99
) -> list[Finding]:
    """Our quantile as a multiple of each peer's, against goals by the peers' names."""

    def figure(outcome: Outcome) -> float:
        return outcome.ms(q)

    name = f"p{q * 100:g}"
    return [
        Finding(
            claim=f"{claim}: {name} of {ours} / {peer}",
            figure=round(ratio(found, ours, peer, figure), 3),
            unit="x",
            goal=goal,
            details=facts(found, (ours, peer), q),
        )
        for peer, goal in goals.items()
        if peer in found
    ]


def facts(found: Rounds, names: Sequence[str], q: float) -> dict[str, Any]:
    """What is worth saying of some peers' rounds."""
    said: dict[str, Any] = {}
    for name in names:
        each = [outcome.ms(q) for outcome in found[name]]
        said[f"{name} ms"] = f"{statistics.median(each):.2f} ({min(each):.2f} to {max(each):.2f})"
        failed = sum(outcome.failed for outcome in found[name])
        if failed:
            said[f"{name} failed"] = failed
    said["rounds"] = len(found[names[0]])
    said["foreign CPU"] = f"{max(outcome.foreign for name in names for outcome in found[name]):.0%} at most"
    return said


def bound(case: Case, rounds: int, q: float = 0.99) -> list[float]:
    """Of each round, the quantile in ms of one queue before all places; lognormal service only."""
    _, mean, cv = case.service.split(":")
    found = []
    for number in range(rounds):
        seed = 1000 + number
        pairs = optimum.latencies(
            case.places * len(case.speeds),
            optimum.arrivals(case.arrivals, case.warm_up + case.seconds, seed),
            optimum.lognormal(float(mean) / 1e3, float(cv), seed),
        )
        found.append(quantile([latency * 1e3 for at, latency in pairs if at >= case.warm_up], q))
    return found


def say(text: str) -> None:
    """A line of progress."""
    print(text, file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Mode:
    """How long to measure."""

    quick: bool

    @property
    def rounds(self) -> int:
        """Of each case."""
        return 3 if self.quick else 5

    @property
    def again_max(self) -> int:
        """How often a round in which others used the machine is measured again."""
        return 0 if self.quick else 2

    def seconds(self, quick: float, full: float) -> float:
        """Of a round, by mode."""
        return quick if self.quick else full


def mode(*, is_real_time: bool = True) -> Mode:
    """
    Reads ``--quick`` from the command line, and makes ready to measure.

    Peers, instances and load get real-time priority, the same for all, where that is allowed: what else runs
    on the machine then disturbs much less. Not for what uses the processors fully, which would stop the rest.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="short rounds, three of them")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that nothing is left running then either
    build()
    with suppress(PermissionError):
        if is_real_time:
            os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
        else:
            os.nice(NICENESS)
    return Mode(arguments.quick)
