"""
The traps of transactions over services, each with the tests that a coordinator or participant fails if it
falls into one. What no test can show, because databases are made so, docs/guide/participants.md says.

Besides, the simulation (test_simulation.py, and its mutants) stops at every step, and tests/system/bank.py
kills real processes.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parent.parent
GUIDE = TESTS.parent / "docs/guide/participants.md"

COORDINATOR = "transactions/test_coordinator.py"
ANSWERS = "transactions/test_answers.py"
DOUBT = "transactions/test_doubt.py"
TAKEOVER = "transactions/test_takeover.py"
RETENTION = "transactions/test_retention.py"
PARTICIPANTS = "transactions/test_participants.py"
FENCE = "client/participant/test_fence.py"
PREPARED = "client/participant/test_prepared.py"
SWEEPING = "client/participant/test_sweeping.py"
POOLING = "client/participant/test_pooling.py"
IN_DOUBT = "client/test_in_doubt.py"

TRAPS: dict[tuple[int, str], dict[str, tuple[str, ...]]] = {
    (1, "a crash before or after every write and call"): {
        "transactions/test_simulation.py": ("a_crash_at_each_single_step_breaks_nothing",),
        TAKEOVER: ("a_restart_takes_everything_up_at_once",),
    },
    (2, "the decision is durable before anybody is called or told"): {
        COORDINATOR: ("the_decision_is_durable_before_the_first_confirm",),
        IN_DOUBT: ("a_commit_whose_node_dies_is_repeated_until_it_is_known",),
    },
    (3, "two coordinators own one transaction"): {
        TAKEOVER: (
            "another_node_takes_over_when_one_is_gone",
            "an_owner_that_is_back_is_not_taken_over_from",
            "an_answer_behind_the_end_of_a_term_leads_to_no_call_of_that_term",
        ),
        FENCE: ("3_a_deposed_coordinator_has_no_say",),
    },
    (4, "a commit without an answer is in doubt, not failed"): {
        COORDINATOR: ("the_same_gid_with_the_same_content_is_the_same_transaction",),
        IN_DOUBT: (
            "a_commit_whose_node_dies_is_repeated_until_it_is_known",
            "a_commit_that_nobody_can_answer_is_in_doubt_and_ends_by_its_deadline",
        ),
    },
    (5, "a gid with another content, or used again"): {
        COORDINATOR: ("a_gid_with_another_content_is_refused",),
        RETENTION: ("what_is_forgotten_is_refused_and_not_carried_out_again",),
    },
    (6, "a branch is durable before it is called"): {
        COORDINATOR: ("a_branch_is_durable_before_it_is_called",)
    },
    (7, "an enrolment that comes too late"): {
        COORDINATOR: ("an_enrolment_after_the_decision_is_refused_and_nothing_is_called",)
    },
    (8, "a deadline after the decision"): {COORDINATOR: ("the_deadline_means_nothing_after_the_decision",)},
    (9, "storms of retries, one dead participant that starves others"): {
        PARTICIPANTS: (
            "no_more_calls_at_a_time_than_the_limit_and_the_others_in_order",
            "one_that_answers_nothing_is_tried_by_one_call_at_a_time_with_growing_pauses",
            "pauses_double_up_to_a_cap_and_are_spread",
            "a_dead_participant_holds_up_nobody_else",
        )
    },
    (10, "unknown taken for a no; words searched for in bodies"): {
        ANSWERS: (
            "an_unknown_answer_is_asked_again_and_decides_nothing",
            "an_answer_that_breaks_off_is_unknown",
            "words_in_a_body_decide_nothing",
        )
    },
    (11, "a finish or undo that says no is dropped"): {
        DOUBT: ("a_confirm_that_says_no_is_asked_on_and_told_as_heuristic",),
        RETENTION: ("heuristic_ones_are_not_forgotten",),
    },
    (12, "410 taken for the success of a forward call"): {
        ANSWERS: ("gone_counts_as_done_for_an_undo_but_not_for_a_forward_call",)
    },
    (13, "a no while other forward calls are in flight"): {
        ANSWERS: ("a_no_undoes_also_those_that_never_answered",)
    },
    (14, "the order of undoing"): {COORDINATOR: ("undo_goes_in_the_reverse_order_of_the_graph",)},
    (15, "still working counted as an attempt"): {
        ANSWERS: ("still_working_is_asked_again_at_its_own_pace_and_is_no_attempt",)
    },
    (16, "unbounded work"): {COORDINATOR: ("a_node_takes_no_more_than_its_limit",)},
    (17, "a late call after what it belongs to was forgotten"): {
        RETENTION: ("what_is_forgotten_is_refused_and_not_carried_out_again",),
        FENCE: (
            "17_a_late_call_is_refused_after_its_row_was_purged",
            "17_a_try_that_nobody_finished_is_never_purged",
        ),
        PREPARED: ("17_calls_of_a_time_that_was_purged_are_refused",),
    },
    (18, "sizes without a limit, addresses inside"): {
        "transactions/test_http.py": (
            "bad_input_is_named_and_changes_nothing",
            "an_address_outside_the_application_is_refused",
        ),
        "transactions/test_targets.py": (
            "nothing_else_may_be_called",
            "a_name_that_leads_to_this_machine_is_not_followed",
            "what_is_allowed_is_called_and_its_redirects_are_not_followed",
        ),
        "spec/test_outside.py": ("what_only_looks_like_it_is_not",),
    },
    (19, "null compensation"): {
        FENCE: ("19_an_undo_without_its_forward_call_does_nothing_and_succeeds",),
        PREPARED: ("19_a_rollback_before_its_prepare_fences_it",),
    },
    (20, "suspension"): {
        FENCE: (
            "20_a_forward_call_after_its_undo_is_refused",
            "20_a_forward_call_that_is_repeated_after_its_undo_is_refused",
        )
    },
    (21, "duplicates"): {
        FENCE: (
            "21_a_repeated_call_answers_the_same_and_has_no_second_effect",
            "21_of_calls_at_the_same_time_one_has_an_effect",
        ),
        PREPARED: ("21_a_repeated_prepare_says_yes_again", "21_of_prepares_at_the_same_time_one_works"),
    },
    (22, "an undo that meets its forward call"): {
        FENCE: ("22_an_undo_that_meets_its_running_forward_call_waits_for_it",),
        PREPARED: ("22_a_rollback_that_meets_its_running_prepare_gets_it_in_the_end",),
    },
    (23, "effects outside of the fence's transaction"): {
        FENCE: (
            "23_code_that_fails_leaves_neither_effect_nor_row",
            "23_an_action_with_effects_elsewhere_is_undone_though_it_failed",
            "23_an_action_with_effects_elsewhere_runs_again_after_a_crash",
        )
    },
    (24, "isolation, deadlocks"): {
        FENCE: ("24_calls_of_many_branches_at_the_same_time_all_get_through",),
        PREPARED: ("24_a_stricter_isolation_by_default_changes_nothing",),
    },
    (25, "the fence in another transaction than the work"): {
        FENCE: (
            "25_code_that_ends_the_transaction_itself_is_found_out",
            "25_what_code_committed_itself_is_undone",
        ),
        POOLING: (
            "25_lent_for_a_transaction_the_fence_and_the_work_stay_together",
            "25_lent_for_a_transaction_what_is_prepared_is_committed_from_another_connection",
            "25_lent_for_a_statement_nothing_is_done_and_nothing_said",
        ),
    },
    (26, "PREPARE TRANSACTION that answers ROLLBACK"): {
        PREPARED: (
            "26_code_that_goes_on_after_a_failed_statement_gets_no_yes",
            "26_code_that_ends_the_transaction_itself_gets_no_yes",
        )
    },
    (27, "max_prepared_transactions"): {PREPARED: ("27_max_prepared_transactions_is_named",)},
    (28, "42704 at commit"): {
        PREPARED: (
            "28_a_commit_of_what_somebody_rolled_back_is_no_success",
            "28_a_commit_of_what_somebody_committed_is_a_success",
            "28_a_rollback_of_what_was_committed_is_no_success",
        )
    },
    (29, "a server that goes away"): {
        PREPARED: (
            "29_a_connection_that_is_killed_leaves_the_outcome_unknown",
            "29_a_connection_that_is_killed_is_no_refusal",
        ),
        "client/participant/test_crashes.py": ("a_killed_postgresql_is_used_again_by_every_library",),
    },
    (30, "orphans"): {
        PREPARED: (
            "30_orphans_are_found_by_their_prefix_alone",
            "30_the_log_decides_what_an_orphan_wants",
        ),
        SWEEPING: (
            "an_orphan_of_nobody_is_presumed_aborted_when_it_is_old",
            "a_node_that_can_not_be_asked_leaves_everything",
        ),
    },
    (31, "clusters that share a database"): {
        SWEEPING: ("an_orphan_of_an_aborted_transaction_is_rolled_back_and_others_are_left",)
    },
    (32, "waits for locks longer than the deadline"): {
        PREPARED: ("32_a_lock_that_somebody_else_holds_does_not_hold_the_call",)
    },
    (34, "what can't be prepared"): {PREPARED: ("34_what_can_not_be_prepared_is_refused_with_its_reason",)},
}

TOLD = {
    33: "rows stay locked from prepare to commit",
    35: "somebody who reads both may see one branch's change and not yet the other's",
    36: "use synchronous\n  replication",
}
"""Traps that a user has to know of: what the guide says."""


def test_every_trap_is_there() -> None:
    """1 to 36."""
    assert list(range(1, 37)) == sorted([*(number for number, _ in TRAPS), *TOLD])


@pytest.mark.parametrize("trap", TRAPS, ids=lambda trap: f"{trap[0]}: {trap[1]}")
def test_a_trap_has_the_tests_that_are_named(trap: tuple[int, str]) -> None:
    """So that none is lost when tests are renamed."""
    missing = [
        f"{file}: {name}"
        for file, names in TRAPS[trap].items()
        for name in names
        if f"test_{name}" not in _tests(file)
    ]

    assert [] == missing


@pytest.mark.parametrize("trap", TOLD)
def test_what_no_test_can_show_is_told(trap: int) -> None:
    """By the guide for participants."""
    assert TOLD[trap] in GUIDE.read_text()


@cache
def _tests(file: str) -> frozenset[str]:
    body = ast.parse((TESTS / file).read_text()).body
    return frozenset(node.name for node in body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
