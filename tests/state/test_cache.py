"""What is kept of what was read: the newest answer for each key, up to a number of bytes."""

from __future__ import annotations

from unisono.state.cache import Cache, Seen
from unisono.store.base import Entry

MIB = 1 << 20


def seen(revision: int, value: bytes = b"") -> Seen:
    """An answer of the store at a revision."""
    entry = Entry(key="k", value=value, created=1, modified=revision, lease=None)
    return Seen(entry=entry, revision=revision, asked=0.0)


def test_what_was_used_longest_ago_goes_when_there_is_no_more_room() -> None:
    """Sixteen MiB are kept; a look counts as use."""
    cache = Cache()
    cache.put("looked at", seen(1, bytes(MIB)))
    cache.put("forgotten", seen(2, bytes(MIB)))

    for n in range(14):
        cache.get("looked at")
        cache.put(f"k{n}", seen(3 + n, bytes(MIB)))

    assert cache.get("looked at") is not None
    assert cache.get("forgotten") is None


def test_an_answer_that_was_overtaken_on_its_way_does_not_replace_the_newer_one() -> None:
    """Who reads at ``eventual`` goes back no further than it must."""
    cache = Cache()
    cache.put("k", seen(2))

    cache.put("k", seen(1))

    found = cache.get("k")
    assert found is not None
    assert 2 == found.revision


def test_what_is_replaced_takes_no_room() -> None:
    """Or a key that is read often would drive out all others."""
    cache = Cache()
    cache.put("other", seen(1))

    for revision in range(2, 40):
        cache.put("k", seen(revision, bytes(MIB)))

    assert cache.get("other") is not None
