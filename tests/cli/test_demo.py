"""What `unisono demo` says when it failed; the demo itself is run by `make demo`."""

from unisono.cli.demo import Outcome, Phase, failures_of


def phase(name: str, **seen: object) -> Phase:
    """A phase of 100 requests."""
    return Phase(**{"name": name, "seconds": 1.0, "requests": 100, "p50_ms": 1.0, "p99_ms": 2.0, **seen})  # type: ignore[arg-type]


def test_failures_are_told_with_their_answers() -> None:
    """What failed, during what, and how it was answered; nothing of what went well."""
    good = phase("steady", failures=0, statuses={"200": 100})
    bad = phase("kill -9 of the node", failures=3, statuses={"200": 97, "503": 2})

    told = failures_of(Outcome(phases=[good, bad]))

    assert told == "3 of 100 failed while kill -9 of the node: 2 times 503, 1 times no answer"
