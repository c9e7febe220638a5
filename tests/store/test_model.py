"""The store on SQLite does what the simple model does, whatever is asked of it in whatever order."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from tests.store.asking import LIMIT
from tests.store.model import Model
from unisono.store.base import Compacted, Compare, Delete, Field, Put, StoreError
from unisono.store.sqlite import SqliteStore

KEYS = st.sampled_from(["a", "a/", "a/1", "a/2", "ab", "b", "ü/1"])
PREFIXES = st.sampled_from(["", "a", "a/", "b", "ü", "zz"])
VALUES = st.sampled_from([b"", b"0", b"1", b"x" * 3000])
COMPARES = st.one_of(
    st.builds(Compare, key=KEYS, field=st.just(Field.VALUE), target=VALUES),
    st.builds(
        Compare, key=KEYS, field=st.sampled_from([Field.CREATED, Field.MODIFIED]), target=st.integers(0, 12)
    ),
)


@st.composite
def operations(draw: st.DrawFn, leases: Sequence[int] = ()) -> list[Put | Delete]:
    """A list that changes no key twice."""
    names = draw(st.lists(KEYS, max_size=4, unique=True))
    lease = st.sampled_from([None, *leases])
    found: list[Put | Delete] = []
    for name in names:
        if draw(st.booleans()):
            found.append(Put(key=name, value=draw(VALUES), lease=draw(lease)))
        else:
            found.append(Delete(key=name))
    prefix = draw(st.none() | PREFIXES)
    if prefix is not None and not any(o.key.startswith(prefix) for o in found):
        found.insert(0, Delete(key=prefix, prefix=True))
    return found


class StoreMachine(RuleBasedStateMachine):
    """Every rule does one thing to both and compares what they say, errors included."""

    leases: Bundle[int] = Bundle("leases")
    watches: Bundle[Any] = Bundle("watches")

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = tempfile.TemporaryDirectory()
        self.now = 0.0
        self.model = Model()
        self.store = self.run(self.open())

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        async def limited() -> Any:
            async with asyncio.timeout(LIMIT):
                return await work

        return self.loop.run_until_complete(limited())

    async def open(self) -> SqliteStore:
        return await SqliteStore.open(Path(self.folder.name) / "store.db", clock=lambda: self.now)

    async def outcome(self, work: Coroutine[Any, Any, Any]) -> object:
        try:
            return await work
        except StoreError as error:
            return type(error), str(error)

    def expected(self, function: Any, *arguments: Any) -> object:
        try:
            return function(*arguments)
        except StoreError as error:
            return type(error), str(error)

    @rule(data=st.data(), compares=st.lists(COMPARES, max_size=2), lease=st.none() | leases)
    def transact(self, data: st.DataObject, compares: list[Compare], lease: int | None) -> None:
        leases = [] if lease is None else [lease]
        success, failure = data.draw(operations(leases)), data.draw(operations(leases))
        found = self.run(
            self.outcome(self.store.transact(compares=compares, success=success, failure=failure))
        )
        assert found == self.expected(self.model.transact, self.now, compares, success, failure)

    @rule(lists=st.lists(st.tuples(st.lists(COMPARES, max_size=1), operations()), min_size=2, max_size=6))
    def transact_at_once(self, lists: list[tuple[list[Compare], list[Put | Delete]]]) -> None:
        async def all_at_once() -> list[object]:
            calls = [self.store.transact(compares=compares, success=success) for compares, success in lists]
            return list(await asyncio.gather(*calls))

        found = self.run(all_at_once())
        assert found == [self.model.transact(self.now, compares, success, ()) for compares, success in lists]

    @rule(prefix=PREFIXES, back=st.integers(0, 8))
    def scan_the_past(self, prefix: str, back: int) -> None:
        revision = max(0, self.model.revision - back)
        found = self.run(self.outcome(self.store.scan(prefix, revision=revision)))
        assert found == self.expected(self.model.scan, prefix, revision)

    @rule(key=KEYS)
    def get(self, key: str) -> None:
        assert self.run(self.store.get(key)) == self.model.states[-1].get(key)

    @rule(target=watches, prefix=PREFIXES, back=st.integers(0, 8))
    def watch(self, prefix: str, back: int) -> Any:
        after = max(0, self.model.revision - back)
        return self.take_all(prefix, after, self.store.watch(prefix, after=after))

    @rule(target=watches, one=consumes(watches))
    def take(self, one: Any) -> Any:
        return self.take_all(*one)

    def take_all(self, prefix: str, after: int, watch: Any) -> Any:
        """All that is new to a watch; one that has not begun may find that it is too late."""
        if watch._hub is not self.store._hub:
            return multiple()  # ended when the store was reopened
        for number, batch in enumerate(self.model.history(prefix, after)):
            found = self.run(self.outcome(anext(watch)))
            if number == 0 and after < self.model.compacted and isinstance(found, tuple):
                assert found == (Compacted, str(Compacted(self.model.compacted)))
                return multiple()
            assert found == batch
        # One that nobody has asked for anything yet still stands where it was made.
        return prefix, self.model.revision if watch._feed.live else after, watch

    @rule(target=leases, ttl=st.integers(1, 5))
    def grant(self, ttl: int) -> int:
        lease: int = self.run(self.store.grant(ttl))
        assert lease not in self.model.leases
        self.model.leases[lease] = (ttl, self.now + ttl)
        return lease

    @rule(lease=leases)
    def keep_alive(self, lease: int) -> None:
        found = self.run(self.outcome(self.store.keep_alive(lease)))
        assert found == self.expected(self.model.check_lease, lease, self.now)
        if found is None:
            ttl = self.model.leases[lease][0]
            self.model.leases[lease] = (ttl, self.now + ttl)

    @rule(lease=leases)
    def revoke(self, lease: int) -> None:
        self.run(self.store.revoke(lease))
        self.model.end_lease(lease)

    @rule(seconds=st.integers(1, 3))
    def pass_time(self, seconds: int) -> None:
        self.now += seconds
        self.loop.call_soon(self.store._expire)
        self.run(self.store.revoke(-1))
        self.run(self.store.compact(0))  # is answered after what the timer has queued
        self.model.expire(self.now)

    @rule(back=st.integers(0, 6))
    def compact(self, back: int) -> None:
        revision = max(0, self.model.revision - back)
        self.run(self.store.compact(revision))
        self.model.compacted = max(self.model.compacted, revision)

    @rule()
    def reopen(self) -> None:
        self.run(self.store.close())
        self.store = self.run(self.open())
        for lease, (ttl, _) in self.model.leases.items():
            self.model.leases[lease] = (ttl, self.now + ttl)

    @invariant()
    def same_entries(self) -> None:
        assert self.run(self.store.scan("")) == self.model.scan("")

    def teardown(self) -> None:
        self.run(self.store.close())
        self.loop.close()
        self.folder.cleanup()


TestStoreMachine = StoreMachine.TestCase
TestStoreMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
