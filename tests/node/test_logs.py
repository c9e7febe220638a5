"""Reading logs: the last lines, since a time, and as they come."""

from __future__ import annotations

import asyncio
import tracemalloc
from datetime import UTC, datetime
from pathlib import Path

from unisono.node.logger import LogFile
from unisono.node.logs import GONE_KEPT, LogQuery, follow_logs, last_line, prune, read_logs

SHOP = LogQuery(application="shop")


def stamp(second: int) -> str:
    return f"2026-01-01T00:{second // 60:02d}:{second % 60:02d}.000Z"


def write(
    logs: Path, instance: str, *lines: tuple[int, str], service: str = "web", limit: int = 1 << 20
) -> None:
    """Lines at their seconds, as the log process writes them."""
    log = LogFile(str(logs / "shop" / service / f"{instance}.log"), file_bytes_max=limit)
    for second, text in lines:
        log.write(f"{stamp(second)} o {text}\n".encode())
    log.close()


def test_lines_of_several_instances_are_merged_by_time(tmp_path: Path) -> None:
    """Whoever wrote them."""
    write(tmp_path, "web-1", (1, "a"), (4, "d"))
    write(tmp_path, "web-2", (2, "b"), (3, "c"))

    lines = list(read_logs(tmp_path, SHOP))

    assert [(line.text, line.instance) for line in lines] == [
        ("a", "web-1"),
        ("b", "web-2"),
        ("c", "web-2"),
        ("d", "web-1"),
    ]


def test_tail_is_of_all_lines_together(tmp_path: Path) -> None:
    """The last two of the service, not two of each instance."""
    write(tmp_path, "web-1", (1, "a"), (4, "d"))
    write(tmp_path, "web-2", (2, "b"), (3, "c"))

    assert [line.text for line in read_logs(tmp_path, SHOP, 2)] == ["c", "d"]
    assert list(read_logs(tmp_path, SHOP, 0)) == []


def test_lines_are_read_across_rotations(tmp_path: Path) -> None:
    """Older parts come first."""
    write(tmp_path, "web-1", *((number, f"line {number}") for number in range(60)), limit=1000)

    lines = [line.text for line in read_logs(tmp_path, SHOP)]

    assert lines == [f"line {number}" for number in range(60)]
    assert len(list((tmp_path / "shop" / "web").iterdir())) > 1


def test_since_leaves_out_what_is_older(tmp_path: Path) -> None:
    """In whatever time zone it is given."""
    write(tmp_path, "web-1", *((number, f"line {number}") for number in range(5)))
    since = datetime(2026, 1, 1, 0, 0, 3, tzinfo=UTC)

    lines = list(read_logs(tmp_path, LogQuery(application="shop", since=since)))

    assert [line.text for line in lines] == ["line 3", "line 4"]


def test_one_service_or_one_instance_can_be_asked_for(tmp_path: Path) -> None:
    """The others' files are not even opened."""
    write(tmp_path, "web-1", (1, "a"))
    write(tmp_path, "web-2", (2, "b"))
    write(tmp_path, "api-1", (3, "c"), service="api")

    of_api = list(read_logs(tmp_path, LogQuery(application="shop", service="api")))
    of_web_2 = list(read_logs(tmp_path, LogQuery(application="shop", instance="web-2")))

    assert [line.text for line in of_api] == ["c"]
    assert [line.text for line in of_web_2] == ["b"]


def test_an_application_without_logs_has_no_lines(tmp_path: Path) -> None:
    """It may not have written anything yet."""
    assert list(read_logs(tmp_path / "logs", SHOP)) == []


def test_lines_are_read_as_they_are_asked_for_however_many_there_are(tmp_path: Path) -> None:
    """Nothing is gathered first: what lies in the files need not fit into memory."""
    log = LogFile(str(tmp_path / "shop" / "web" / "web-1.log"))
    for _ in range(20):
        log.write(b"".join(f"{stamp(1)} o {'x' * 1000}\n".encode() for _ in range(1000)))

    tracemalloc.start()
    try:
        count = sum(1 for _ in read_logs(tmp_path, SHOP))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert count >= 19_000
    assert peak < 4 << 20  # of about 20 MB that are there


def test_tail_keeps_the_order_of_lines_of_the_same_moment(tmp_path: Path) -> None:
    """As without it: instance by instance."""
    write(tmp_path, "web-1", (1, "a"), (1, "b"))
    write(tmp_path, "web-2", (1, "c"), (1, "d"))

    assert ["a", "b", "c", "d"] == [line.text for line in read_logs(tmp_path, SHOP)]
    assert ["b", "c", "d"] == [line.text for line in read_logs(tmp_path, SHOP, 3)]


def test_what_is_rotated_while_it_is_read_is_neither_missed_nor_repeated(tmp_path: Path) -> None:
    """Parts are known by what they are, not by their names, which move on."""
    write(tmp_path, "web-1", *((number, f"line {number}") for number in range(60)), limit=1000)
    for tail in (None, 100):
        lines = read_logs(tmp_path, SHOP, tail)
        found = [next(lines).text]
        write(tmp_path, "web-1", *((60, "new") for _ in range(20)), limit=1000)
        found += [line.text for line in lines]

        assert [text for text in found if text != "new"] == sorted(set(found) - {"new"}, key=_number)


def _number(text: str) -> int:
    return int(text.removeprefix("line "))


async def test_following_begins_with_the_past_and_goes_on_without_gap_or_repeat(tmp_path: Path) -> None:
    """Through rotations, and with instances that come later."""
    write(tmp_path, "web-1", (0, "past"))
    found: list[str] = []
    stream = follow_logs(tmp_path, SHOP)
    async with asyncio.timeout(20):
        found += [line.text for line in await anext(stream)]
        for number in range(1, 60):
            write(tmp_path, "web-1", (number, f"line {number}"), limit=1000)
            if number % 20 == 0:
                found += [line.text for line in await anext(stream)]
        write(tmp_path, "api-1", (60, "late"), service="api")
        while "late" not in found:
            found += [line.text for line in await anext(stream)]
    await stream.aclose()

    assert sorted(found) == sorted(["past", *(f"line {number}" for number in range(1, 60)), "late"])
    assert found[0] == "past"


async def test_following_what_does_not_exist_yet_finds_it_when_it_is_made(tmp_path: Path) -> None:
    """The folder of logs is there; nothing else has to be."""
    stream = follow_logs(tmp_path, SHOP)
    async with asyncio.timeout(20):
        nothing = await anext(stream)
        waiting = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0.05)
        write(tmp_path, "web-1", (1, "a"))
        lines = await waiting
    await stream.aclose()

    assert nothing == []
    assert [line.text for line in lines] == ["a"]


def test_the_last_line_is_of_stderr_if_it_has_one(tmp_path: Path) -> None:
    """Errors are told there; lines from before the run do not count."""
    log = LogFile(str(tmp_path / "shop" / "web" / "web-1.log"))
    log.write(f"{stamp(1)} e old\n{stamp(5)} e ImportError: foo\n{stamp(6)} o bye\n{stamp(6)} o \n".encode())
    run = datetime(2026, 1, 1, 0, 0, 2, tzinfo=UTC).timestamp()
    later = datetime(2026, 1, 1, 0, 0, 6, tzinfo=UTC).timestamp()

    assert last_line(tmp_path, "shop", "web", "web-1", since=run) == "ImportError: foo"
    assert last_line(tmp_path, "shop", "web", "web-1", since=later) == "bye"
    assert last_line(tmp_path, "shop", "web", "web-9", since=run) == ""


def test_files_of_instances_that_are_no_more_are_kept_in_bounds(tmp_path: Path) -> None:
    """Those that live lose nothing; of the others the last few stay."""
    for number in range(GONE_KEPT + 5):
        write(tmp_path, f"web-{number:02d}", (1, "a"))
    write(tmp_path, "alive", (1, "a"))

    prune(tmp_path, "shop", "web", {"alive"})

    names = {file.name for file in (tmp_path / "shop" / "web").iterdir()}
    assert "alive.log" in names
    assert len(names) == GONE_KEPT + 1
