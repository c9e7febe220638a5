"""
Ray Serve with replicas of its own, as it carries its instances in itself; they take the same service times.

Run in the environment of `python -m bench.peers install`: `ray_service.py PORT REPLICAS PLACES SERVICE
SPEEDS`, with SPEEDS joined by commas. Prints `ready` and serves until standard input ends.
"""

from __future__ import annotations

import asyncio
import math
import os
import random
import sys
from contextlib import suppress

import ray
from ray import serve
from starlette.responses import PlainTextResponse


def drawer(text: str):
    """A function for service times in seconds from bench-instances' way to write them."""
    kind, *parts = text.split(":")
    numbers = [float(part) for part in parts]
    if kind == "constant":
        return lambda: numbers[0] / 1e3
    if kind == "exponential":
        return lambda: random.expovariate(1e3 / numbers[0])
    if kind == "lognormal":
        sigma = math.sqrt(math.log(1 + numbers[1] ** 2))
        return lambda: numbers[0] / 1e3 * math.exp(random.gauss(-sigma * sigma / 2, sigma))
    mean, share, factor = numbers
    short = mean / (1 - share + share * factor) / 1e3
    return lambda: short * (factor if random.random() <= share else 1.0)


def main() -> None:
    """Serve."""
    port, replicas, places, service, speeds = sys.argv[1:]
    # It needs the whole machine: with the real-time priority of the rest nothing else could run beside it.
    with suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        os.nice(-15)
    factors = [float(one) for one in speeds.split(",")]

    @serve.deployment(
        num_replicas=int(replicas),
        max_ongoing_requests=int(places),
        ray_actor_options={"num_cpus": 0.01},
        logging_config={"enable_access_log": False},
    )
    class Instance:
        def __init__(self) -> None:
            self.draw = drawer(service)
            rank = serve.get_replica_context().rank  # which of the speeds is this replica's
            self.speed = factors[getattr(rank, "rank", rank) or 0]

        async def __call__(self, _request) -> PlainTextResponse:
            span = self.draw() * self.speed
            if span:
                await asyncio.sleep(span)
            return PlainTextResponse("ok")

    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    serve.start(http_options={"host": "127.0.0.1", "port": int(port)})
    serve.run(Instance.bind(), route_prefix="/")
    print("ready", os.getpid(), flush=True)
    sys.stdin.read()
    serve.shutdown()
    ray.shutdown()


main()
