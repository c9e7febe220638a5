"""XA on PostgreSQL with every library: traps 26 to 34 of prepared transactions."""

from __future__ import annotations

import asyncio
import threading

import psycopg
import pytest

from tests.client.participant.worlds import Caller, World, on_postgres
from tests.databases import Postgres, running
from unisono.client import participant
from unisono.client.participant.prepared import is_looked_at

NAME = "test:t1:b1"


async def test_what_was_prepared_is_there_after_the_commit_alone(on_pg: World) -> None:
    """Prepare, commit, and both again: one effect."""
    call = Caller(on_pg.xa())

    prepared = await call("prepare")
    before, names = on_pg.effects(), listed(on_pg)
    committed, again = await call("commit"), await call("commit")
    late = await call("prepare")

    assert (204, 0, [NAME]) == (prepared.status_code, before, names)
    assert (204, 204, 204) == (committed.status_code, again.status_code, late.status_code)
    assert (1, []) == (on_pg.effects(), listed(on_pg))


async def test_what_was_rolled_back_is_gone_and_stays_gone(on_pg: World) -> None:
    """Rollback, again, and a prepare that comes late: refused."""
    call = Caller(on_pg.xa())

    await call("prepare")
    undone, again = await call("rollback"), await call("rollback")
    late = await call("prepare")

    assert (204, 204) == (undone.status_code, again.status_code)
    assert (409, "fenced") == (late.status_code, late.json()["code"])
    assert (0, []) == (on_pg.effects(), listed(on_pg))


async def test_17_calls_of_a_time_that_was_purged_are_refused(on_pg: World) -> None:
    """A prepare is expired and does nothing; a commit is answered 410 and marks nothing heuristic."""
    call = Caller(on_pg.xa())
    old = {"Transaction_Began": "1000"}
    on_pg.read("INSERT INTO txn_fence VALUES ('', '', 'mark', 'mark', 2000, NULL, 2000)")

    prepared, committed = await call("prepare", **old), await call("commit", **old)

    assert (409, "expired") == (prepared.status_code, prepared.json()["code"])
    assert 410 == committed.status_code
    assert (0, []) == (on_pg.effects(), listed(on_pg))


async def test_a_participant_that_starts_does_not_wait_for_what_is_prepared(on_pg: World) -> None:
    """It makes the fence's table at its start, and is the one who has to finish what holds locks on it."""
    call = Caller(on_pg.xa())
    await call("prepare")

    if on_pg.is_async:
        making = asyncio.create_task(participant.create_fence_async(on_pg.database))
    else:
        making = asyncio.create_task(asyncio.to_thread(participant.create_fence, on_pg.database))
    done, _ = await asyncio.wait([making], timeout=20)
    await call("rollback")
    await making

    assert done


async def test_19_a_rollback_before_its_prepare_fences_it(on_pg: World) -> None:
    """Null rollback: success, and the prepare that follows does nothing."""
    call = Caller(on_pg.xa())

    undone, late = await call("rollback"), await call("prepare")

    assert (204, 409) == (undone.status_code, late.status_code)
    assert (0, []) == (on_pg.effects(), listed(on_pg))


async def test_21_a_repeated_prepare_says_yes_again(on_pg: World) -> None:
    """Its row is locked by what is prepared, which is asked for by name."""
    call = Caller(on_pg.xa())
    await call("prepare")

    again = await call("prepare", **{"Deadline-Ms": "300"})
    await call("commit")

    assert (204, 1) == (again.status_code, on_pg.effects())


async def test_21_of_prepares_at_the_same_time_one_works(on_pg: World) -> None:
    """All hear yes in the end."""
    call = Caller(on_pg.xa())

    await asyncio.gather(*(call.until(204, "prepare", **{"Deadline-Ms": "400"}) for _ in range(4)))
    await call("commit")

    assert 1 == on_pg.effects()


async def test_22_a_rollback_that_meets_its_running_prepare_gets_it_in_the_end(on_pg: World) -> None:
    """Still working at first; then nothing stays prepared and there is no effect."""
    call = Caller(on_pg.xa())
    forward = asyncio.create_task(call("prepare", {"prepare": {"hold": True}}))
    assert await asyncio.to_thread(on_pg.entered.wait, 30)

    early = await call("rollback", **{"Deadline-Ms": "200"})
    on_pg.go_on.set()
    await forward
    await call.until(204, "rollback")

    assert 425 == early.status_code
    assert (0, []) == (on_pg.effects(), listed(on_pg))


async def test_a_no_of_the_code_prepares_nothing(on_pg: World) -> None:
    """And is final."""
    call = Caller(on_pg.xa())

    no = await call("prepare", {"prepare": {"refuse": "no money"}})
    again, undone = await call("prepare"), await call("rollback")

    assert (409, "insufficient", 409, 204) == (
        no.status_code,
        no.json()["code"],
        again.status_code,
        undone.status_code,
    )
    assert (0, []) == (on_pg.effects(), listed(on_pg))


async def test_24_a_stricter_isolation_by_default_changes_nothing(on_pg: World) -> None:
    """Under REPEATABLE READ a row that came meanwhile could not be read after its insert had met it."""
    (name,) = on_pg.read("SELECT current_database()")[0]
    on_pg.read(f"ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'")
    _terminate_all(on_pg)  # new connections begin with it
    call = Caller(on_pg.xa())
    try:
        await asyncio.gather(*(call.until(204, "prepare") for _ in range(4)))
        await asyncio.gather(*(call.until(204, "commit") for _ in range(4)))
    finally:
        on_pg.read(f"ALTER DATABASE {name} RESET default_transaction_isolation")

    assert (1, []) == (on_pg.effects(), listed(on_pg))


async def test_26_code_that_goes_on_after_a_failed_statement_gets_no_yes(on_pg: World) -> None:
    """PREPARE in an aborted block succeeds with the tag ROLLBACK and prepares nothing."""
    code = _swallow_async if on_pg.is_async else _swallow
    call = Caller(participant.xa(on_pg.database, prefix="test")(code))

    answer = await call("prepare")

    assert 500 == answer.status_code
    assert "a statement of the participant's code failed" in answer.json()["detail"]
    assert [] == listed(on_pg)


async def test_26_code_that_ends_the_transaction_itself_gets_no_yes(on_pg: World) -> None:
    """PREPARE outside a block likewise."""
    call = Caller(on_pg.xa())

    answer = await call("prepare", {"prepare": {"sql": ["ROLLBACK"]}})

    assert (500, [], None) == (answer.status_code, listed(on_pg), on_pg.row())


@pytest.mark.parametrize("prepared", [0, 1])
async def test_27_max_prepared_transactions_is_named(prepared: int) -> None:
    """Not set, or used up: the answer is no yes, and says which setting it is."""
    with running(lambda folder: Postgres(folder, prepared=prepared)) as server:
        async with on_postgres("psycopg-async", server) as world:
            call = Caller(world.xa())
            for number in range(prepared):
                assert 204 == (await call("prepare", branch=f"first{number}")).status_code

            answer = await call("prepare")

    assert 500 == answer.status_code
    assert "max_prepared_transactions" in answer.json()["detail"]


async def test_28_a_commit_of_what_somebody_rolled_back_is_no_success(on_pg: World) -> None:
    """The fence has no row of it: lost, and never swallowed."""
    call = Caller(on_pg.xa())
    await call("prepare")
    on_pg.read(f"ROLLBACK PREPARED '{NAME}'")

    answer = await call("commit")

    assert (409, "lost") == (answer.status_code, answer.json()["code"])


async def test_28_a_commit_of_what_somebody_committed_is_a_success(on_pg: World) -> None:
    """The fence's row is the evidence."""
    call = Caller(on_pg.xa())
    await call("prepare")
    on_pg.read(f"COMMIT PREPARED '{NAME}'")

    answer = await call("commit")

    assert (204, 1) == (answer.status_code, on_pg.effects())


async def test_28_a_rollback_of_what_was_committed_is_no_success(on_pg: World) -> None:
    """And a commit of what was rolled back neither."""
    call = Caller(on_pg.xa())
    for branch, op in (("b1", "commit"), ("b2", "rollback")):
        await call("prepare", branch=branch)
        await call(op, branch=branch)

    answers = [await call("rollback", branch="b1"), await call("commit", branch="b2")]

    assert [(409, "contradiction")] * 2 == [(one.status_code, one.json()["code"]) for one in answers]


async def test_29_a_connection_that_is_killed_leaves_the_outcome_unknown(on_pg: World) -> None:
    """57P01 is asked again on a fresh connection, at prepare as at commit."""
    call = Caller(on_pg.xa())
    kill = "SELECT pg_terminate_backend(pg_backend_pid())"

    lost = await call("prepare", {"prepare": {"sql": [kill]}})
    nothing = on_pg.effects(), listed(on_pg)
    yes = await call.until(204, "prepare")
    _terminate_all(on_pg)
    committed = await call.until(204, "commit")

    assert 503 == lost.status_code
    assert (0, []) == nothing
    assert (204, 204, 1) == (yes.status_code, committed.status_code, on_pg.effects())


async def test_29_a_connection_that_is_killed_is_no_refusal(on_pg: World) -> None:
    """Of a saga's action likewise: unknown, and done when it is asked again."""
    call = Caller(on_pg.saga())

    lost = await call("action", {"action": {"sql": ["SELECT pg_terminate_backend(pg_backend_pid())"]}})
    again = await call.until(200, "action")

    assert 503 == lost.status_code
    assert (200, 1) == (again.status_code, on_pg.effects())


async def test_30_orphans_are_found_by_their_prefix_alone(on_pg: World) -> None:
    """Another cluster's, and such whose name only begins alike, are never seen (31)."""
    call, others = Caller(on_pg.xa("test")), Caller(on_pg.xa("tes"))
    await call("prepare")
    await others("prepare", gid="t2")
    await Caller(on_pg.xa("test2"))("prepare", gid="t3")

    if on_pg.is_async:
        found = await participant.orphans_async(on_pg.database, prefix="test")
        await participant.finish_orphan_async(on_pg.database, found[0], "rollback", prefix="test")
    else:
        found = participant.orphans(on_pg.database, prefix="test")
        participant.finish_orphan(on_pg.database, found[0], "rollback", prefix="test")
    late = await call("prepare")
    left = listed(on_pg)
    await others("rollback", gid="t2")
    await Caller(on_pg.xa("test2"))("rollback", gid="t3")

    assert [("t1", "b1")] == [(one.gid, one.branch) for one in found]
    assert 0 <= found[0].age < 60
    assert (409, ["tes:t2:b1", "test2:t3:b1"]) == (late.status_code, left)


@pytest.mark.parametrize(
    ("status", "age", "wanted"),
    [
        ("committing", 0, "commit"),
        ("committed", 9, "commit"),
        ("aborting", 0, "rollback"),
        ("aborted", 9, "rollback"),
        ("active", 900, None),
        ("preparing", 900, None),
        (None, 5, None),  # its enrolment may be on the way
        (None, 61, "rollback"),
    ],
)
def test_30_the_log_decides_what_an_orphan_wants(status: str | None, age: float, wanted: str | None) -> None:
    """Unknown and old is presumed aborted; unknown and young is left alone."""
    assert wanted == participant.verdict(status, age, grace=60)


async def test_32_a_lock_that_somebody_else_holds_does_not_hold_the_call(on_pg: World) -> None:
    """Still working, long before the coordinator's patience ends; nothing is prepared meanwhile."""
    call = Caller(on_pg.xa())
    on_pg.read("INSERT INTO effects VALUES ('other', 'x', 0)")
    locking = threading.Event(), threading.Event()
    holder = asyncio.create_task(asyncio.to_thread(_hold_rows, on_pg, *locking))
    assert await asyncio.to_thread(locking[0].wait, 30)
    update = {"prepare": {"sql": ["UPDATE effects SET n = 1 WHERE gid = 'other'"]}}

    busy = await call("prepare", update, **{"Deadline-Ms": "400"})
    nothing = listed(on_pg)
    locking[1].set()
    await holder
    yes = await call("prepare", update)
    await call("commit")

    assert (425, [], 204) == (busy.status_code, nothing, yes.status_code)


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TEMPORARY TABLE mine (n int)",
        "NOTIFY somebody",
        "SELECT pg_advisory_lock(7)",
        "SELECT pg_advisory_xact_lock(7)",
    ],
)
async def test_34_what_can_not_be_prepared_is_refused_with_its_reason(on_pg: World, statement: str) -> None:
    """A definite no at once, instead of an unknown until the deadline."""
    call = Caller(on_pg.xa())

    answer = await call("prepare", {"prepare": {"sql": [statement]}})

    assert (409, "unpreparable") == (answer.status_code, answer.json()["code"])
    assert (0, []) == (on_pg.effects(), listed(on_pg))
    assert [(0,)] == on_pg.read("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")


def test_34_advisory_locks_are_looked_for_in_all_early_prepares_and_in_some_of_each_that_follow() -> None:
    """Looking at each would halve what a server can prepare."""
    looked = [n for n in range(1000) if is_looked_at(n)]

    assert list(range(100)) == looked[:100]
    assert list(range(100, 1000, 50)) == looked[100:]


async def test_a_constraint_that_is_checked_at_the_end_is_a_no(on_pg: World) -> None:
    """PREPARE rolls back then, and leaves nothing to roll back."""
    on_pg.read("DROP TABLE IF EXISTS late; CREATE TABLE late (n int UNIQUE DEFERRABLE INITIALLY DEFERRED)")
    call = Caller(on_pg.xa())

    answer = await call("prepare", {"prepare": {"sql": ["INSERT INTO late VALUES (1), (1)"]}})

    assert (409, "constraint") == (answer.status_code, answer.json()["code"])
    assert [] == listed(on_pg)


def test_xa_is_offered_on_postgresql_alone() -> None:
    """Elsewhere the decorator says what to use instead."""
    with pytest.raises(TypeError, match="offer tcc or saga there"):
        participant.xa("bank.db")(lambda tx, payload: None)


def listed(world: World) -> list[str]:
    """The names of what is prepared in the world's database."""
    rows = world.read("SELECT gid FROM pg_prepared_xacts WHERE database = current_database() ORDER BY gid")
    return [row[0] for row in rows]


def _hold_rows(world: World, holding: threading.Event, release: threading.Event) -> None:
    """Lock a row in a session of its own until told."""
    port, name = world.read("SELECT inet_server_port(), current_database()")[0]
    with psycopg.connect(f"postgresql://unisono@127.0.0.1:{port}/{name}") as connection:
        connection.execute("SELECT * FROM effects WHERE gid = 'other' FOR UPDATE")
        holding.set()
        release.wait(30)


def _terminate_all(world: World) -> None:
    world.read(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )


def _swallow(tx: object, payload: object) -> None:
    run = getattr(tx, "exec_driver_sql", None) or tx.execute  # type: ignore[attr-defined]
    try:
        run("SELECT 1 / 0")
    except Exception:
        return


async def _swallow_async(tx: object, payload: object) -> None:
    run = getattr(tx, "exec_driver_sql", None) or tx.execute  # type: ignore[attr-defined]
    try:
        await run("SELECT 1 / 0")
    except Exception:
        return
