"""
The fence on every database and library: traps 3, 12, 17 and 19 to 25 of transactions over services.

A call is a real HTTP request to a real participant, and effects are counted in its database.
"""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.client.participant.worlds import Caller, World
from unisono.client import participant


async def test_a_forward_call_takes_effect_and_answers_what_the_code_returned(world: World) -> None:
    """Done is 200 with the reply as JSON."""
    call = Caller(world.saga())

    answer = await call("action", {"action": {"reply": {"number": 7}}})

    assert (200, {"number": 7}) == (answer.status_code, answer.json())
    assert 1 == world.effects("action")


async def test_19_an_undo_without_its_forward_call_does_nothing_and_succeeds(world: World) -> None:
    """Null compensation: recorded, answered with success, and the code does not run."""
    call = Caller(world.saga())

    answer = await call("compensate")

    assert 204 == answer.status_code
    assert 0 == world.effects()
    assert ("fenced", 1, "compensate") == world.row()


async def test_20_a_forward_call_after_its_undo_is_refused(world: World) -> None:
    """Suspension: 409 fenced, never 200, and no effect."""
    call = Caller(world.tcc())
    await call("cancel")

    answer = await call("try")

    assert (409, "fenced") == (answer.status_code, answer.json()["code"])
    assert 0 == world.effects()


async def test_20_a_forward_call_that_is_repeated_after_its_undo_is_refused(world: World) -> None:
    """The effect is no more, so 200 would be a lie."""
    call = Caller(world.saga())
    await call("action")
    await call("compensate")

    answer = await call("action")

    assert (409, "fenced") == (answer.status_code, answer.json()["code"])
    assert (1, 1) == (world.effects("action"), world.effects("compensate"))


async def test_21_a_repeated_call_answers_the_same_and_has_no_second_effect(world: World) -> None:
    """Also after the finish, which is itself repeated without effect."""
    call = Caller(world.tcc())

    first, second = await call("try"), await call("try")
    await call("confirm")
    confirmed_again = await call("confirm")
    third = await call("try")

    assert first.json() == second.json() == third.json()
    assert 204 == confirmed_again.status_code
    assert (1, 1) == (world.effects("try"), world.effects("confirm"))


async def test_21_of_calls_at_the_same_time_one_has_an_effect(world: World) -> None:
    """The others wait for it, or are told that it is still working; asked again, all hear its reply."""
    call = Caller(world.saga())

    await asyncio.gather(*(call.until(200, "action") for _ in range(6)))
    replies = {(await call("action")).text for _ in range(2)}

    assert 1 == world.effects("action")
    assert 1 == len(replies)


async def test_22_an_undo_that_meets_its_running_forward_call_waits_for_it(world: World) -> None:
    """It is told to ask again, and undoes the effect once that is there."""
    call = Caller(world.saga())
    forward = asyncio.create_task(call("action", {"action": {"hold": True}}))
    assert await asyncio.to_thread(world.entered.wait, 30)

    early = await call("compensate", Deadline_Ms="300")
    world.go_on.set()
    done = await forward
    late = await call.until(204, "compensate")

    assert (425, "still-working") == (early.status_code, early.json()["code"])
    assert (200, 204) == (done.status_code, late.status_code)
    assert (1, 1) == (world.effects("action"), world.effects("compensate"))


async def test_23_code_that_fails_leaves_neither_effect_nor_row(world: World) -> None:
    """The outcome is unknown to the coordinator, which asks again and gets it done."""
    call = Caller(world.saga())

    failed = await call("action", {"action": {"fail": "disk on fire"}})
    nothing = (world.effects(), world.row())
    again = await call("action")

    assert 500 == failed.status_code
    assert "RuntimeError" in failed.json()["detail"]
    assert (0, None) == nothing
    assert (200, 1) == (again.status_code, world.effects())


async def test_23_an_action_with_effects_elsewhere_is_undone_though_it_failed(world: World) -> None:
    """With external=True what began is on record before it begins."""
    call = Caller(world.saga(external=True))

    failed = await call("action", {"action": {"fail": "after the parcel had left"}})
    undone = await call("compensate")

    assert (500, 204) == (failed.status_code, undone.status_code)
    assert 1 == world.effects("compensate")


async def test_23_an_action_with_effects_elsewhere_runs_again_after_a_crash(world: World) -> None:
    """At least once, and its reply is kept from then on."""
    call = Caller(world.saga(external=True))
    await call("action", {"action": {"fail": "halfway"}})

    first, second = await call("action"), await call("action")

    assert (200, first.text) == (second.status_code, second.text)
    assert 1 == world.effects("action")


async def test_a_no_of_the_code_is_final(world: World) -> None:
    """A duplicate that comes in better days must not say yes: nobody would undo it."""
    call = Caller(world.tcc())

    no = await call("try", {"try": {"refuse": "no money"}})
    again = await call("try")
    cancelled = await call("cancel")

    assert (409, "insufficient", "no money") == (no.status_code, no.json()["code"], no.json()["detail"])
    assert no.json() == again.json()
    assert (204, 0) == (cancelled.status_code, world.effects())


async def test_a_no_of_an_action_with_effects_elsewhere_is_final(world: World) -> None:
    """The record of the beginning turns into the refusal."""
    call = Caller(world.saga(external=True))

    no = await call("action", {"action": {"refuse": "no"}})
    again = await call("action")

    assert (409, no.json()) == (again.status_code, again.json())
    assert "refused" == (world.row() or ("",))[0]


async def test_24_calls_of_many_branches_at_the_same_time_all_get_through(world: World) -> None:
    """Whatever deadlocks or serialization failures the database finds are tried again or asked again."""
    call = Caller(world.saga())

    async def one(number: int) -> None:
        branch = f"b{number % 4}"
        await call.until(200, "action", branch=branch)

    await asyncio.gather(*(one(number) for number in range(16)))

    assert 4 == world.effects("action")


@pytest.mark.parametrize("ending", ["COMMIT", "ROLLBACK"])
async def test_25_code_that_ends_the_transaction_itself_is_found_out(world: World, ending: str) -> None:
    """The effect and the row would not stand in one transaction any more: it is never a yes."""
    call = Caller(world.saga())

    answer = await call("action", {"action": {"sql": [ending]}})

    assert 500 == answer.status_code
    assert "leave the transaction to the fence" in answer.json()["detail"]


async def test_25_what_code_committed_itself_is_undone(world: World) -> None:
    """A row that was committed too early says that there may be effects."""
    call = Caller(world.saga())
    await call("action", {"action": {"sql": ["COMMIT"]}})

    again = await call("action")
    undone = await call("compensate")

    assert (500, 204) == (again.status_code, undone.status_code)
    assert (1, 1) == (world.effects("action"), world.effects("compensate"))


async def test_3_a_deposed_coordinator_has_no_say(world: World) -> None:
    """A call whose epoch is lower than one that was seen is refused and does nothing."""
    call = Caller(world.tcc())
    await call("try", epoch=5)
    await call("try", epoch=7)

    late = [await call(op, epoch=6) for op in ("try", "confirm", "cancel")]

    assert [(409, "fenced")] * 3 == [(answer.status_code, answer.json()["code"]) for answer in late]
    assert 1 == world.effects()


async def test_a_finish_without_its_forward_call_is_no_success(world: World) -> None:
    """Nothing is there to confirm: somebody must look."""
    call = Caller(world.tcc())

    answer = await call("confirm")

    assert (409, "unknown-branch") == (answer.status_code, answer.json()["code"])
    assert 0 == world.effects()


async def test_finish_and_undo_exclude_each_other(world: World) -> None:
    """Whichever came first stands, and the other is told of the contradiction."""
    call = Caller(world.tcc())
    for branch, first in (("b1", "confirm"), ("b2", "cancel")):
        await call("try", branch=branch)
        await call(first, branch=branch)

    answers = [await call("cancel", branch="b1"), await call("confirm", branch="b2")]

    assert [(409, "contradiction")] * 2 == [(one.status_code, one.json()["code"]) for one in answers]
    assert (1, 1) == (world.effects("confirm"), world.effects("cancel"))


async def test_a_finish_that_refuses_is_asked_again(world: World) -> None:
    """Everything is decided: the code's no is a fault of it, not an answer."""
    call = Caller(world.tcc())
    await call("try")

    no = await call("confirm", {"confirm": {"refuse": "changed my mind"}})
    yes = await call("confirm")

    assert (500, 204) == (no.status_code, yes.status_code)
    assert 1 == world.effects("confirm")


async def test_an_undo_knows_what_its_forward_call_answered(world: World) -> None:
    """current_call().reply."""
    seen = []

    def action(self: object, tx: object, payload: object) -> object:
        return {"parcel": 12}

    def compensate(self: object, tx: object, payload: object) -> None:
        seen.append(participant.current_call().reply)

    async def action_async(self: object, tx: object, payload: object) -> object:
        return action(self, tx, payload)

    async def compensate_async(self: object, tx: object, payload: object) -> None:
        compensate(self, tx, payload)

    methods = (action_async, compensate_async) if world.is_async else (action, compensate)
    kind = type("Ship", (), dict(zip(("action", "compensate"), methods, strict=True)))
    call = Caller(participant.saga(world.database)(kind))
    await call("action")
    await call("compensate")

    assert [{"parcel": 12}] == seen


@pytest.mark.parametrize("reply", [{"x": "y" * 70_000}])
async def test_a_reply_that_can_not_be_kept_is_an_error_without_effect(world: World, reply: object) -> None:
    """Replies are kept for duplicates, so they have a limit."""
    call = Caller(world.saga())

    answer = await call("action", {"action": {"reply": reply}})

    assert (500, 0) == (answer.status_code, world.effects())
    assert "at most 65536 bytes" in answer.json()["detail"]


async def test_17_a_late_call_is_refused_after_its_row_was_purged(world: World) -> None:
    """Forward calls are expired; a finish or undo is answered 410: finished and forgotten."""
    call = Caller(world.tcc())
    old = {"Transaction_Began": str(int((time.time() - 100 * 86_400) * 1000))}
    for op in ("try", "confirm"):
        await call(op, **old)
    world.age()

    purged = await world.purge()
    late = [await call(op, **old) for op in ("try", "confirm", "cancel")]

    assert 1 == purged
    assert [409, 410, 410] == [one.status_code for one in late]
    assert "expired" == late[0].json()["code"]
    assert (1, 1, 0) == (world.effects("try"), world.effects("confirm"), world.effects("cancel"))


async def test_17_a_try_that_nobody_finished_is_never_purged(world: World) -> None:
    """Its cancel may still come, and must find it."""
    call = Caller(world.tcc())
    await call("try")
    world.age()

    purged = await world.purge()
    cancelled = await call("cancel")

    assert (0, 204, 1) == (purged, cancelled.status_code, world.effects("cancel"))


async def test_a_missing_table_is_named_with_the_remedy(world: World) -> None:
    """Nothing is done, and the answer says what is to be done."""
    call = Caller(world.saga())
    world.read("DROP TABLE txn_fence")

    answer = await call("action")

    assert (500, 0) == (answer.status_code, world.effects())
    assert "create_fence" in answer.json()["detail"]


async def test_the_table_may_be_made_twice(world: World) -> None:
    """Every instance does so when it starts."""
    if world.is_async:
        await asyncio.gather(*(participant.create_fence_async(world.database) for _ in range(3)))
    else:
        participant.create_fence(world.database)

    assert [] == world.read("SELECT * FROM txn_fence")


async def test_gids_that_differ_in_case_alone_are_two_transactions(world: World) -> None:
    """MySQL compares without regard to case unless told otherwise."""
    call = Caller(world.saga())

    await call("action", gid="T1")
    await call("action", gid="t1")

    assert "done" == (world.row("T1") or ("",))[0] == (world.row("t1") or ("",))[0]
    assert 2 == int(world.read("SELECT count(*) FROM effects")[0][0])


async def test_msg_actions_run_once_and_can_not_refuse(world: World) -> None:
    """The message pattern calls the action as a finish: everything is decided before."""
    call = Caller(world.saga())
    mode = {"Transaction_Mode": "msg"}

    no = await call("action", {"action": {"refuse": "no"}}, **mode)
    yes, again = await call("action", **mode), await call("action", **mode)

    assert (500, 200, yes.text) == (no.status_code, again.status_code, again.text)
    assert 1 == world.effects()
