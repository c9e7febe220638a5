"""
Every guard of the fence is broken on purpose, one at a time, and the test that watches it must fail.

A mutant is a change of the fence's text. It is loaded beside the real module, put in its place for one
participant, and one of the tests of test_fence.py or test_prepared.py is run against it.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.client.participant import test_fence as fences
from tests.client.participant import test_prepared as preparing
from tests.client.participant.conftest import enter
from tests.client.participant.worlds import World
from unisono.client.participant import branches, fence, prepared

Claim = Callable[[World], Awaitable[None]]


@dataclass(frozen=True)
class Mutant:
    """What is taken away, by which change, and which test sees that it is gone."""

    guard: str
    old: str
    new: str
    claim: Claim
    kind: str = "sqlite"


STALE = "if call.epoch < row.epoch:\n        yield Rollback()\n        return stale(call, row)\n"
REFUSED = preparing.test_34_what_can_not_be_prepared_is_refused_with_its_reason

FENCE = (
    Mutant(
        "an undo is recorded before anything is undone",
        'if (yield from insert(dialect, call, "fenced")) is not None:',
        "if (yield from find(dialect, call)) is None:",
        fences.test_20_a_forward_call_after_its_undo_is_refused,
    ),
    Mutant(
        "an undo without its forward call does nothing",
        'if (yield from insert(dialect, call, "fenced")) is not None:',
        'if (yield from insert(dialect, call, "done")) is not None and False:',
        fences.test_19_an_undo_without_its_forward_call_does_nothing_and_succeeds,
    ),
    Mutant(
        "a suspended forward call is refused, not answered with success",
        'return no("fenced", f"the branch was undone',
        'return Done(reply=None) or no("fenced", f"the branch was undone',
        fences.test_20_a_forward_call_after_its_undo_is_refused,
    ),
    Mutant(
        "a forward call whose effect was undone is refused",
        'if row.state in ("done", "finished"):',
        'if row.state in ("done", "finished", "undone"):',
        fences.test_20_a_forward_call_that_is_repeated_after_its_undo_is_refused,
    ),
    Mutant(
        "a duplicate does not run",
        'if row.state != "running" or not external:',
        'if row.state not in ("running", "done"):',
        fences.test_21_a_repeated_call_answers_the_same_and_has_no_second_effect,
    ),
    Mutant(
        "a duplicate gets the stored reply",
        "return Done(reply=decoded(row.reply))",
        "return Done(reply=None)",
        fences.test_21_a_repeated_call_answers_the_same_and_has_no_second_effect,
    ),
    Mutant(
        "a second finish does not run",
        'if row.state == "finished":\n        yield Rollback()\n        return Done()',
        "",
        fences.test_21_a_repeated_call_answers_the_same_and_has_no_second_effect,
    ),
    Mutant(
        "a refusal is kept",
        'return (yield from refuse(dialect, call, error, was="running" if external else None))',
        "return No(problem=error.problem())",
        fences.test_a_no_of_the_code_is_final,
    ),
    Mutant(
        "a refusal turns the record of an external action's beginning",
        'was="running" if external else None',
        "was=None",
        fences.test_a_no_of_an_action_with_effects_elsewhere_is_final,
    ),
    Mutant(
        "what a refused call did is rolled back",
        "except Refused as error:\n        yield Rollback()\n        if call.mode",
        "except Refused as error:\n        yield Commit()\n        if call.mode",
        fences.test_a_no_of_the_code_is_final,
    ),
    Mutant(
        "what a failed call did is rolled back",
        "except Fault as fault:\n            yield Rollback()",
        "except Fault as fault:\n            yield Commit()",
        fences.test_23_code_that_fails_leaves_neither_effect_nor_row,
    ),
    Mutant(
        "an external action is recorded before it begins",
        "if external:\n            yield Commit()",
        "if external:\n            yield Rollback()",
        fences.test_23_an_action_with_effects_elsewhere_is_undone_though_it_failed,
    ),
    Mutant(
        "an external action that began may run again",
        'if row.state != "running" or not external:',
        "if True:",
        fences.test_23_an_action_with_effects_elsewhere_runs_again_after_a_crash,
    ),
    Mutant(
        "an undo undoes what may have happened",
        'if row.state in ("fenced", "refused", "undone"):',
        'if row.state in ("fenced", "refused", "undone", "running"):',
        fences.test_25_what_code_committed_itself_is_undone,
    ),
    Mutant(
        "the transaction is the one in which the fence began (savepoint)",
        "yield Run(dialects.RELEASE)",
        "pass",
        partial(fences.test_25_code_that_ends_the_transaction_itself_is_found_out, ending="COMMIT"),
    ),
    Mutant(
        "the transaction is the one in which the fence began (mark)",
        "sql, values = sql + dialects.SAME, (*values, row.mark)",
        "pass",
        partial(fences.test_25_code_that_ends_the_transaction_itself_is_found_out, ending="COMMIT"),
        "psycopg",
    ),
    Mutant(
        "the seal finds its row",
        "if result.count != 1:\n        raise Broken(ENDED)",
        "",
        partial(fences.test_25_code_that_ends_the_transaction_itself_is_found_out, ending="ROLLBACK"),
        "psycopg",
    ),
    Mutant(
        "a stale forward call is refused",
        f'{STALE}    if row.state in ("done"',
        'if row.state in ("done"',
        fences.test_3_a_deposed_coordinator_has_no_say,
    ),
    Mutant(
        "a stale finish is refused",
        f'{STALE}    if row.state == "finished"',
        'if row.state == "finished"',
        fences.test_3_a_deposed_coordinator_has_no_say,
    ),
    Mutant(
        "a stale undo is refused",
        f'{STALE}    if row.state in ("fenced"',
        'if row.state in ("fenced"',
        fences.test_3_a_deposed_coordinator_has_no_say,
    ),
    Mutant(
        "the highest epoch is kept",
        "if call.epoch == row.epoch:",
        "if True:",
        fences.test_3_a_deposed_coordinator_has_no_say,
    ),
    Mutant(
        "a finish needs its forward call",
        'return forgotten(call) if late else no("unknown-branch", f"nothing is on record to {call.op} here")',
        "return Done()",
        fences.test_a_finish_without_its_forward_call_is_no_success,
    ),
    Mutant(
        "what was undone is not finished",
        'if row.state != "done":\n        yield Rollback()\n        return no("contradiction"',
        'if row.state != "done":\n        yield Rollback()\n        return Done() or no("contradiction"',
        fences.test_finish_and_undo_exclude_each_other,
    ),
    Mutant(
        "what was finished is not undone",
        'if row.state == "finished":\n        yield Rollback()\n        return no(',
        'if row.state == "never":\n        yield Rollback()\n        return no(',
        fences.test_finish_and_undo_exclude_each_other,
    ),
    Mutant(
        "a finish or undo that refuses is no answer",
        "return must_not_refuse(call, error)\n    yield from seal",
        "return no('x', 'y')\n    yield from seal",
        fences.test_a_finish_that_refuses_is_asked_again,
    ),
    Mutant(
        "replies have a limit",
        "if len(text) > REPLY_MAX:",
        "if False:",
        partial(
            fences.test_a_reply_that_can_not_be_kept_is_an_error_without_effect, reply={"x": "y" * 70_000}
        ),
    ),
    Mutant(
        "calls below the low-water mark are refused",
        "return bool(result.rows) and call.began_ms < result.rows[0][0]",
        "return False",
        fences.test_17_a_late_call_is_refused_after_its_row_was_purged,
    ),
    Mutant(
        "a lock that can't be had is still working, and no error",
        "if fault.why in (Why.BUSY, Why.AGAIN):",
        "if False:",
        fences.test_22_an_undo_that_meets_its_running_forward_call_waits_for_it,
    ),
    Mutant(
        "a connection that is lost leaves the outcome unknown",
        "if fault.why is Why.LOST:\n        return Unknown(",
        "if fault.why is Why.LOST:\n        return no('lost', str(fault)) or Unknown(",
        preparing.test_29_a_connection_that_is_killed_is_no_refusal,
        "psycopg",
    ),
    Mutant(
        "an undo knows the reply",
        "replace(call, reply=decoded(row.reply))",
        "call",
        fences.test_an_undo_knows_what_its_forward_call_answered,
    ),
    Mutant(
        "a message's action can't refuse",
        'if call.mode == "msg":\n            return must_not_refuse(call, error)',
        "",
        fences.test_msg_actions_run_once_and_can_not_refuse,
    ),
)

PREPARED = (
    Mutant(
        "42704 at commit is a success only with the fence's row",
        'return no(\n        "lost",',
        'return Done() or no(\n        "lost",',
        preparing.test_28_a_commit_of_what_somebody_rolled_back_is_no_success,
    ),
    Mutant(
        "42704 at commit with the row is a success",
        'if row is not None and row.state == "done":\n        return Done()',
        "",
        preparing.test_28_a_commit_of_what_somebody_committed_is_a_success,
    ),
    Mutant(
        "a rollback leaves a row that fences its prepare",
        "if row is not None:\n            yield Commit()",
        "if row is not None:\n            yield Rollback()",
        preparing.test_19_a_rollback_before_its_prepare_fences_it,
    ),
    Mutant(
        "a rollback asks again where its prepare is in flight",
        "yield Rollback()\n            continue",
        "yield Rollback()\n            return Done()\n            continue",
        preparing.test_22_a_rollback_that_meets_its_running_prepare_gets_it_in_the_end,
    ),
    Mutant(
        "a rollback of what was committed is no success",
        'if row.state == "done":\n            return no(',
        'if row.state == "never":\n            return no(',
        preparing.test_28_a_rollback_of_what_was_committed_is_no_success,
    ),
    Mutant(
        "a repeated prepare finds what it prepared",
        "if (yield from _is_listed(name)):\n            return Done()\n        return StillWorking",
        "return StillWorking",
        preparing.test_21_a_repeated_prepare_says_yes_again,
    ),
    Mutant(
        "a setting that is missing is named",
        "if fault.state == _BUSY_OR_DISABLED:\n        return Broken(",
        "if False:\n        return Broken(",
        partial(preparing.test_27_max_prepared_transactions_is_named, prepared=0),  # type: ignore[arg-type]
    ),
    Mutant(
        "a constraint that is checked at the end is a no",
        'if fault.state.startswith("23"):',
        "if False:",
        preparing.test_a_constraint_that_is_checked_at_the_end_is_a_no,
    ),
    Mutant(
        "what is prepared is the transaction in which the fence began",
        "if mark != row.mark:\n        raise Broken(ENDED)",
        "",
        preparing.test_26_code_that_ends_the_transaction_itself_gets_no_yes,
    ),
    Mutant(
        "advisory locks are refused",
        "if result.rows[0][0]:",
        "if False:",
        partial(
            REFUSED,
            statement="SELECT pg_advisory_lock(7)",
        ),
    ),
    Mutant(
        "a refused lock of the session does not outlive its branch",
        "yield Run(UNLOCK)",
        "pass",
        partial(REFUSED, statement="SELECT pg_advisory_lock(7)"),
    ),
    Mutant(
        "what can't be prepared is refused",
        "if fault.state == _NOT_POSSIBLE:",
        "if False:",
        partial(REFUSED, statement="NOTIFY somebody"),
    ),
)


@pytest.mark.parametrize("mutant", FENCE, ids=lambda one: one.guard)
async def test_a_fence_without_this_guard_fails_its_test(
    mutant: Mutant, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else nobody would notice if the guard were lost."""
    broken = _load(fence, mutant)
    monkeypatch.setattr(branches, "fence", broken.fence)

    await _must_fail(mutant, mutant.kind, request, tmp_path)


@pytest.mark.parametrize("mutant", PREPARED, ids=lambda one: one.guard)
async def test_xa_without_this_guard_fails_its_test(
    mutant: Mutant, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Likewise for prepared transactions."""
    broken = _load(prepared, mutant)
    monkeypatch.setattr(branches, "prepared", broken.prepared)

    await _must_fail(mutant, "psycopg", request, tmp_path)


async def _must_fail(mutant: Mutant, kind: str, request: pytest.FixtureRequest, folder: Path) -> None:
    async with enter(kind, request, folder) as world:
        try:
            if "prepared" in getattr(mutant.claim, "keywords", {}):
                await mutant.claim()  # type: ignore[call-arg] # makes its own world
            else:
                await mutant.claim(world)
        except Exception:
            return
        finally:
            world.go_on.set()
    pytest.fail(f"nothing fails without this guard: {mutant.guard}")


def _load(module: ModuleType, mutant: Mutant) -> Any:
    """The module with the mutant's change, under another name."""
    source = Path(str(module.__file__)).read_text()
    pattern = r"\s+".join(re.escape(word) for word in mutant.old.split())
    found = re.findall(pattern, source)
    assert len(found) == 1, f"{mutant.guard}: the text that is changed is there {len(found)} times"
    at = source.index(found[0])
    changed = source[:at] + (mutant.new or "pass") + source[at + len(found[0]) :]
    spec = importlib.util.spec_from_loader("mutant", loader=None)
    assert spec is not None
    loaded = importlib.util.module_from_spec(spec)
    sys.modules["mutant"] = loaded
    try:
        exec(compile(changed, f"<{mutant.guard}>", "exec"), loaded.__dict__)
    finally:
        del sys.modules["mutant"]
    return loaded
