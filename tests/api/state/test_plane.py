"""The data plane of shared state: what it answers without the API, and that no answer is ever stale."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.store.linearizability import Operation, linearizable
from unisono.api.informer import Informer
from unisono.api.listeners import unix_listener
from unisono.api.state.plane import Plane
from unisono.api.state.rooms import States
from unisono.state.kv import Kv
from unisono.state.names import ROOT
from unisono.state.tokens import Tokens
from unisono.store.base import Broken, MaybeDone, NotDone, Put, StoreError
from unisono.store.sqlite import SqliteStore
from unisono.store.watching import Change

CREDENTIALS = "Bearer orders"


@dataclass(frozen=True)
class Front:
    """A plane with nobody behind it, and what it serves from."""

    store: SqliteStore
    states: States
    plane: Plane
    kv: Kv
    tokens: Tokens
    client: httpx.AsyncClient


@pytest.fixture
async def front(tmp_path: Path) -> AsyncIterator[Front]:
    """It knows one caller, of the application shop."""
    store = await SqliteStore.open(tmp_path / "store.db")
    tokens = await Tokens.load(store)
    path = tmp_path / "services.sock"
    listener = unix_listener(path)
    states = States(store, "node")
    plane = await Plane.open(
        store, Informer(store), listener, tmp_path / "behind.sock", take=states.timestamps
    )
    plane.learn(CREDENTIALS, "shop")
    transport = httpx.AsyncHTTPTransport(uds=str(path))
    headers = {"authorization": CREDENTIALS}
    async with httpx.AsyncClient(transport=transport, base_url="http://node", headers=headers) as client:
        kv = Kv(store, "shop", tokens)
        yield Front(store=store, states=states, plane=plane, kv=kv, tokens=tokens, client=client)
    await plane.close()
    await states.close()
    await store.close()


class TestPlain:
    async def test_a_write_and_a_read_of_a_key_need_no_api(self, front: Front) -> None:
        """They are what most requests are, and cost no Python each."""
        written = await front.client.put("/v1/kv/orders/1%20a", content=b"41")
        read = await front.client.get("/v1/kv/orders/1%20a")

        entry = (await front.kv.get("orders/1 a")).entry
        assert entry is not None
        assert (200, {"succeeded": True, "revision": entry.modified}) == (written.status_code, written.json())
        assert (b"41", f'"{entry.modified}"', str(entry.created)) == (
            read.content,
            read.headers["etag"],
            read.headers["unisono-created"],
        )

    async def test_its_tokens_are_those_of_the_api(self, front: Front) -> None:
        """A reader goes on with one at either."""
        token = (await front.client.put("/v1/kv/a", content=b"1")).headers["consistency-token"]
        read = await front.client.get("/v1/kv/a", headers={"consistency-token": token})

        revision = int(read.headers["unisono-revision"])
        assert revision == front.tokens.read("shop", token)
        assert read.headers["consistency-token"] == front.tokens.make("shop", revision)

    async def test_a_reader_that_has_seen_more_is_never_answered_here(self, front: Front) -> None:
        """Trap 45: a decision on a read that is older than the session needs the API, which refuses."""
        await front.client.put("/v1/kv/a", content=b"1")
        ahead = front.tokens.make("shop", 1000)
        foreign = front.tokens.make("blog", 1)
        answers = [
            await front.client.get("/v1/kv/a", headers={"consistency-token": token})
            for token in (ahead, foreign, "x")
        ]

        assert [503] * 3 == [answer.status_code for answer in answers]

    async def test_who_was_forgotten_is_not_answered_here(self, front: Front) -> None:
        """What a service may do can have changed."""
        await front.client.put("/v1/kv/a", content=b"1")
        front.plane._server.forget()
        answer = await front.client.get("/v1/kv/a")

        assert (503, "not-done") == (answer.status_code, answer.json()["code"])

    async def test_the_keys_of_another_application_are_not_reached(self, front: Front) -> None:
        """Whatever the path says."""
        await front.store.transact(success=[Put(key=f"{ROOT}blog/kv/a\0", value=b"secret")])
        paths = ("/v1/kv/../../blog/kv/a", "/v1/kv/%2e%2e/blog/kv/a", "/v1/kv/a")
        answers = [await front.client.get(path) for path in paths]

        assert all(answer.status_code == 503 and b"secret" not in answer.content for answer in answers)

    @pytest.mark.parametrize(
        ("error", "status", "code"),
        [
            (NotDone("too much waits"), 503, "not-done"),
            (MaybeDone("the store answers late"), 500, "maybe-done"),
            (Broken("the disk is full"), 507, "broken"),
        ],
    )
    async def test_a_write_that_fails_says_whether_it_may_have_happened(
        self, front: Front, monkeypatch: pytest.MonkeyPatch, error: StoreError, status: int, code: str
    ) -> None:
        """Trap 37: what is unknown is never called a failure."""

        async def fail(puts: Sequence[tuple[str, bytes]]) -> Sequence[int]:
            raise error

        monkeypatch.setattr(front.store, "put_each", fail)
        answer = await front.client.put("/v1/kv/a", content=b"1")

        assert (status, code) == (answer.status_code, answer.json()["code"])

    async def test_writes_that_are_not_answered_at_the_end_may_have_happened(
        self, front: Front, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nobody may take silence for a no."""
        asked = asyncio.Event()

        async def hang(puts: Sequence[tuple[str, bytes]]) -> Sequence[int]:
            asked.set()
            await asyncio.sleep(3600)
            return []

        monkeypatch.setattr(front.store, "put_each", hang)
        writing = asyncio.create_task(front.client.put("/v1/kv/a", content=b"1"))
        await asked.wait()
        front.plane._server.close()

        with pytest.raises(httpx.RemoteProtocolError):
            await writing
        assert front.plane._writing is not None
        front.plane._writing.cancel()

    async def test_what_comes_while_a_batch_is_written_makes_up_the_next(
        self, front: Front, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Many small batches would cost more than few large ones, and the disk takes one at a time anyway."""
        batches: list[int] = []
        first, go_on = asyncio.Event(), asyncio.Event()
        put_each = front.store.put_each

        async def counted(puts: Sequence[tuple[str, bytes]]) -> Sequence[int]:
            batches.append(len(puts))
            first.set()
            await go_on.wait()
            return await put_each(puts)

        monkeypatch.setattr(front.store, "put_each", counted)
        puts = [asyncio.create_task(front.client.put("/v1/kv/a", content=b"1"))]
        await first.wait()
        puts += [asyncio.create_task(front.client.put(f"/v1/kv/{n}", content=b"1")) for n in range(8)]
        await asyncio.sleep(0.2)  # they come in
        meanwhile = list(batches)
        go_on.set()
        answers = await asyncio.gather(*puts)

        assert ([1], 9) == (meanwhile, sum(batches))
        assert {200} == {answer.status_code for answer in answers}


class TestTimestamps:
    async def test_each_that_asks_gets_its_own_and_later_ones_are_larger(self, front: Front) -> None:
        """Also where so many ask at once that they are given more than one request may have."""
        counts = [1, 65_536, 2, 65_536, 3] * 4

        async def take(count: int) -> range:
            answer = (await front.client.post("/v1/tso", json={"count": count})).json()
            return range(int(answer["first"]), int(answer["first"]) + answer["count"])

        together = await asyncio.gather(*map(take, counts))
        later = await take(1)

        assert counts == [len(taken) for taken in together]
        by_first = sorted(together, key=lambda taken: taken.start)
        assert all(one.stop <= other.start for one, other in itertools.pairwise([*by_first, later]))

    async def test_they_rise_through_both_faces(self, front: Front) -> None:
        """The API and the plane have them from one oracle."""
        first = int((await front.client.post("/v1/tso", json={"count": 5})).json()["first"])
        second = await front.states.timestamps("shop", 1)
        third = int((await front.client.post("/v1/tso", json={"count": 1})).json()["first"])

        assert first + 5 <= second < third

    async def test_what_asks_wrongly_is_for_the_api(self, front: Front) -> None:
        """Which says what would be right; here it is not there."""
        bodies = [
            b"",
            b"{}",
            b"[]",
            b'{"count": 0}',
            b'{"count": 65537}',
            b'{"count": 1, "more": 2}',
            b"1" * 65,
        ]
        answers = [await front.client.post("/v1/tso", content=body) for body in bodies]

        assert [(503, "not-done")] * 7 == [(answer.status_code, answer.json()["code"]) for answer in answers]

    async def test_where_there_are_none_it_is_said(
        self, front: Front, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A timestamp that was not given is no harm, so this is never in doubt."""

        async def fail(namespace: str, count: int) -> int:
            raise NotDone("another node serves the timestamps")

        monkeypatch.setattr(front.plane, "_take", fail)
        answer = await front.client.post("/v1/tso", json={"count": 1})

        assert (503, "not-done") == (answer.status_code, answer.json()["code"])


class TestFreshness:
    async def test_a_read_sees_whatever_was_acknowledged_before_it(self, front: Front) -> None:
        """By whichever way: a put, a transaction, a removal, the end of a lease."""
        for n in range(100):
            lease = await front.store.grant(60)
            await front.kv.put("a", b"%d" % n)
            assert (await front.client.get("/v1/kv/a")).content == b"%d" % n
            await front.kv.transact(success=[Put(key="a", value=b"t%d" % n, lease=lease)])
            assert (await front.client.get("/v1/kv/a")).content == b"t%d" % n
            await front.store.revoke(lease)
            assert (await front.client.get("/v1/kv/a")).status_code == 503  # gone: the API says so

    @pytest.mark.parametrize("seed", range(3))
    async def test_histories_over_both_ways_are_linearizable(self, front: Front, seed: int) -> None:
        """Three clients through the plane and two at the store, on one key."""
        assert linearizable(await record(front, random.Random(seed)))

    async def test_the_checker_finds_a_plane_that_hears_of_commits_too_late(self, front: Front) -> None:
        """Told 5 ms after the acknowledgement, it answers with what is no longer so."""
        loop = asyncio.get_running_loop()
        follow = front.plane._follow
        front.store.unfollow(follow)

        def late(changes: Sequence[Change], revision: int) -> None:
            loop.call_later(0.005, follow, list(changes), revision)

        front.store.follow(ROOT, late)
        histories = [await record(front, random.Random(seed)) for seed in range(3)]
        front.store.unfollow(late)
        front.store.follow(ROOT, follow)

        assert not all(map(linearizable, histories))


async def record(front: Front, chance: random.Random) -> list[Operation]:
    """What five clients did with a key of their own history, in moments of one counter."""
    key = f"h{chance.random()}"
    await front.kv.put(key, b"0")
    while (await front.client.get(f"/v1/kv/{key}")).status_code != 200:  # noqa: ASYNC110 - it has no event
        await asyncio.sleep(0.001)  # only one that is told late needs it
    operations: list[Operation] = []
    moment = 0

    def tick() -> int:
        nonlocal moment
        moment += 1
        return moment

    async def client(number: int) -> None:
        for step in range(8):
            value, called = number * 100 + step + 1, tick()
            if chance.random() < 0.4:
                if number < 3:
                    assert (await front.client.put(f"/v1/kv/{key}", content=b"%d" % value)).status_code == 200
                else:
                    await front.kv.put(key, b"%d" % value)
                operations.append(Operation("write", value, called, tick()))
            else:
                if number < 3:
                    read = (await front.client.get(f"/v1/kv/{key}")).content
                else:
                    entry = (await front.kv.get(key)).entry
                    read = b"" if entry is None else entry.value
                operations.append(Operation("read", int(read), called, tick()))

    await asyncio.gather(*map(client, range(5)))
    return operations
