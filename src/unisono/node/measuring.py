"""
What the gateway has counted, in the words of the controller: revisions and seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unisono.control.records import Figures
from unisono.control.snapshot import Measured


def measured(document: Mapping[str, Any]) -> Measured:
    """
    The figures of each revision, from the gateway's ``GET /v1/measurements``.

    A target whose revision is no number of ours, as of a gateway of another version, is passed over.
    """
    found: dict[tuple[str, str, int], Figures] = {}
    for name, service in document.get("services", {}).items():
        application, _, short = name.partition("/")
        for revision, counts in service.get("revisions", {}).items():
            if revision.isdecimal():
                found[application, short, int(revision)] = Figures(
                    requests=counts["requests"],
                    failures=counts["failures"],
                    latency=tuple((upper / 1_000_000, count) for upper, count in counts["latency_us"]),
                )
    return found
