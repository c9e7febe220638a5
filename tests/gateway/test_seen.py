"""What is seen of requests: metrics, the access log, the trace that they belong to."""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import suppress
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.gateway.backend import Peer, answering, resetting, silent
from tests.gateway.conftest import SERVICE, Stage, eventually
from unisono.gateway.table import AccessLog

GET = b"GET /a?key=secret HTTP/1.1\r\nHost: a\r\nConnection: close\r\n%s\r\n"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
TRACEPARENT = f"traceparent: 00-{TRACE}-{PARENT}-01\r\n".encode()


class Metrics:
    """The gateway's metrics at a moment, read as Prometheus's own library reads them."""

    def __init__(self, text: str) -> None:
        self._samples = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def __call__(self, name: str, **labels: str) -> float:
        """The value of a series of the service; 0 if there is none."""
        labels = {"service": SERVICE, **labels}
        return self._samples.get((f"unisono_gateway_{name}", frozenset(labels.items())), 0.0)


async def metrics(stage: Stage) -> Metrics:
    return Metrics(await stage.link.metrics())


async def rises(stage: Stage, before: Metrics, by: int, name: str, **labels: str) -> None:
    """Wait until a count has risen by so much: an answer is counted once its end is out."""

    async def has_risen() -> bool:
        return (await metrics(stage))(name, **labels) - before(name, **labels) >= by

    await eventually(has_risen)
    assert (await metrics(stage))(name, **labels) - before(name, **labels) == by


async def test_a_request_is_counted_with_what_it_took(stage: Stage) -> None:
    """By method and status, with its duration, its wait, its bytes, and the try that was made."""
    await stage.serve(answering())
    before = await metrics(stage)

    await stage.ask(GET % b"")

    await rises(stage, before, 1, "requests_total", method="GET", code="200")
    after = await metrics(stage)
    for name in (
        "request_duration_seconds_count",
        "queue_wait_seconds_count",
        "upstream_duration_seconds_count",
    ):
        assert after(name) - before(name) == 1
    assert after("request_duration_seconds_bucket", le="+Inf") == after("request_duration_seconds_count")
    assert after("bytes_total", direction="out") - before("bytes_total", direction="out") == 2
    assert after("attempts_total", outcome="ok") - before("attempts_total", outcome="ok") == 1


async def test_a_body_is_counted_as_it_comes(stage: Stage) -> None:
    """Also one without a length."""
    await stage.serve(swallowing)
    before = await metrics(stage)

    await stage.ask(
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        b"5\r\nhello\r\n0\r\n\r\n"
    )

    await rises(stage, before, 5, "bytes_total", direction="in")


async def swallowing(peer: Peer) -> None:
    """Reads a chunked body and answers."""
    await peer.head()
    await peer.reader.readuntil(b"0\r\n\r\n")
    await peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


async def test_an_answer_of_the_gateways_own_is_counted_by_its_reason(stage: Stage) -> None:
    """And so are the tries behind it, the further ones apart."""
    await stage.serve(resetting, resetting)
    before = await metrics(stage)

    answer = await stage.ask(GET % b"")

    assert answer.reason == "upstream_reset"
    await rises(stage, before, 1, "own_answers_total", reason="upstream_reset")
    after = await metrics(stage)
    tries = after("attempts_total", outcome="reset") - before("attempts_total", outcome="reset")
    further = after("retries_total", outcome="made") - before("retries_total", outcome="made")
    assert tries == further + 1 == 3


async def test_an_answer_that_an_instance_breaks_off_is_not_the_clients_doing(stage: Stage) -> None:
    """The client got the status, and waited for the rest in vain."""

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n")
        await asyncio.sleep(0.1)
        peer.reset()

    await stage.serve(script)
    before = await metrics(stage)
    client = await stage.connect()
    await client.say(GET % b"")

    async with asyncio.timeout(20):
        with suppress(ConnectionError):
            await client.reader.read()

    await rises(stage, before, 1, "own_answers_total", reason="upstream_reset")
    after = await metrics(stage)
    assert after("own_answers_total", reason="client_abort") == before(
        "own_answers_total", reason="client_abort"
    )


async def test_a_client_that_leaves_is_counted(stage: Stage) -> None:
    """With the status that nginx has for it, since it got none."""
    await stage.serve(silent)
    before = await metrics(stage)
    client = await stage.connect()
    await client.say(GET % b"")
    await stage.until("in_flight", 1)

    client.writer.transport.abort()

    await rises(stage, before, 1, "requests_total", method="GET", code="499")
    await rises(stage, before, 1, "own_answers_total", reason="client_abort")
    await rises(stage, before, 1, "attempts_total", outcome="abandoned")


async def test_an_invented_method_makes_no_series(stage: Stage) -> None:
    """Who sends requests must not decide how much is kept in memory."""
    await stage.serve(answering())
    before = await metrics(stage)

    await stage.ask(b"BREW / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")

    await rises(stage, before, 1, "requests_total", method="other", code="200")


async def logged(path: Path) -> str:
    """What an access log says, once it says something."""

    async def says_something() -> bool:
        return bool(text_of(path))

    await eventually(says_something)
    return text_of(path)


def text_of(path: Path) -> str:
    return path.read_text() if path.exists() else ""


async def test_the_access_log_tells_a_requests_story(stage: Stage, tmp_path: Path) -> None:
    """Each try with its instance and its end, but nothing that may be secret."""
    stage.access_log = AccessLog(format="json", path=str(tmp_path / "access.log"))
    await stage.serve(resetting, answering())
    await stage.ask(GET % (TRACEPARENT + b"Authorization: Bearer hidden\r\n"))
    text = await logged(tmp_path / "access.log")
    line = json.loads(text)

    assert (line["method"], line["path"], line["status"], line["service"]) == ("GET", "/a", 200, SERVICE)
    assert line["attempts"][-1]["outcome"] == "answered"
    assert line["instance"] == line["attempts"][-1]["instance"]
    assert (line["trace_id"], line["reason"], line["bytes_out"]) == (TRACE, None, 2)
    assert "secret" not in text
    assert "hidden" not in text


async def test_the_access_log_can_be_combined(stage: Stage, tmp_path: Path) -> None:
    """As programs that read Apache's and nginx's logs want it."""
    stage.access_log = AccessLog(format="combined", path=str(tmp_path / "access.log"))
    await stage.serve(answering())
    await stage.ask(GET % b"")

    line = await logged(tmp_path / "access.log")

    assert line.startswith("127.0.0.1 - - [")
    assert line.endswith('] "GET /a HTTP" 200 2 "-" "-"\n')


async def test_a_trace_goes_on_with_a_span_for_each_try(stage: Stage) -> None:
    """Its state as it came; the gateway's own spans stand between the client's and the instances'."""
    backends = await stage.serve(resetting, resetting, resetting)

    answer = await stage.ask(GET % (TRACEPARENT + b"tracestate: vendor=1\r\n"))

    heads = [head.decode().lower() for backend in backends for head in backend.heads]
    parents = [line for head in heads for line in head.split("\r\n") if line.startswith("traceparent: ")]
    assert len(parents) == len(set(parents)) == 3
    assert all(
        parent.startswith(f"traceparent: 00-{TRACE}-") and parent.endswith("-01") for parent in parents
    )
    assert not any(PARENT in parent for parent in parents)
    assert all("tracestate: vendor=1\r\n" in head for head in heads)
    assert json.loads(answer.body)["trace_id"] == TRACE


@pytest.mark.parametrize("given", [b"", b"traceparent: 00-zz\r\ntracestate: vendor=1\r\n"])
async def test_a_request_without_a_trace_begins_one(stage: Stage, given: bytes) -> None:
    """Not sampled, and without the state of a trace that is not known."""
    [backend] = await stage.serve(answering())

    await stage.ask(GET % given)

    [head] = [head.decode().lower() for head in backend.heads]
    [parent] = [line for line in head.split("\r\n") if line.startswith("traceparent: ")]
    assert len(parent) == len("traceparent: ") + 55
    assert parent.endswith("-00")
    assert "tracestate" not in head


async def test_every_series_is_documented_and_every_documented_series_is_there(stage: Stage) -> None:
    """The table of ``docs/reference/metrics.md``; what guides name is in it."""
    await stage.serve(answering())
    served = set(re.findall(r"^# TYPE (\S+) ", await stage.link.metrics(), re.MULTILINE))
    docs = Path(__file__).parents[2] / "docs"

    reference = (docs / "reference/metrics.md").read_text().partition("The node adds ")[0]
    documented = {
        f"unisono_gateway_{name}" for name in re.findall(r"^\| `(\w+)` \|", reference, re.MULTILINE)
    }
    pages = "".join(page.read_text() for page in docs.rglob("*.md"))
    named = set(re.findall(r"unisono_gateway_\w*[a-z]", pages))

    assert served == documented
    assert {re.sub("_(bucket|sum|count)$", "", name) for name in named} <= served
