"""Leases as plain bookkeeping: time is a value."""

from __future__ import annotations

from unisono.store.sqlite.leases import Leases


def test_a_lease_ends_at_its_deadline() -> None:
    """Alive just before its time is up, ended at it."""
    leases = Leases({7: 10.0}, now=100.0)

    assert leases.alive(7, 109.9)
    assert not leases.alive(7, 110.0)
    assert leases.due(109.9) == []
    assert leases.due(110.0) == [7]


def test_an_ended_lease_is_due_once() -> None:
    """It is known until it is removed, but handed out once, or again where it was postponed."""
    leases = Leases({7: 10.0}, now=0.0)
    leases.due(10.0)

    assert leases.due(11.0) == []
    assert leases.known(7)
    leases.postpone(7, 12.0)
    assert (leases.next_deadline(), leases.due(12.0)) == (12.0, [7])


def test_renewing_moves_the_deadline() -> None:
    """A renewed lease is due later, and the next look after its first deadline sees that."""
    leases = Leases({7: 10.0}, now=0.0)

    assert leases.renew(7, 9.0)
    assert leases.due(10.0) == []
    assert leases.next_deadline() == 19.0


def test_an_ended_lease_is_not_renewed() -> None:
    """Late by a moment is late, though nobody has looked yet; so is a lease that never was."""
    leases = Leases({7: 10.0}, now=0.0)

    assert not leases.renew(7, 10.0)
    assert not leases.renew(8, 0.0)


def test_the_earliest_is_due_first() -> None:
    """Leases that are due together come in the order of their deadlines; a removed one does not come."""
    leases = Leases({}, now=0.0)
    for id, ttl in ((1, 3.0), (2, 1.0), (3, 2.0)):
        leases.add(id, ttl, 0.0)
    leases.remove(3)

    assert leases.next_deadline() == 1.0
    assert leases.due(5.0) == [2, 1]
    assert leases.next_deadline() is None
