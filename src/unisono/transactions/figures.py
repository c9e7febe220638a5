"""What a coordinator has done, in Prometheus's text format; docs/reference/metrics.md explains each."""

from __future__ import annotations

from unisono.transactions.coordinator import Coordinator


def text(coordinator: Coordinator) -> str:
    """The lines, each family with its help and type."""
    counts, now = coordinator.counts, coordinator.figures()
    lines = _head("unisono_transactions_total", "counter", "Transactions since the node was started.")
    for outcome in ("begun", "committed", "aborted", "heuristic"):
        lines.append(f'unisono_transactions_total{{outcome="{outcome}"}} {getattr(counts, outcome)}')
    lines += _head("unisono_transaction_calls_total", "counter", "Calls of participants by their answer.")
    lines += [f'unisono_transaction_calls_total{{answer="{a}"}} {n}' for a, n in counts.answers.items()]
    for name, kind, help_, figure in (
        ("unisono_transactions_open", "gauge", "Open transactions.", now["open"]),
        (
            "unisono_transactions_remembered",
            "gauge",
            "Final transactions that are still known.",
            now["remembered"],
        ),
        (
            "unisono_transaction_participants_silent",
            "gauge",
            "Participants that answer nothing.",
            now["silent_participants"],
        ),
        ("unisono_transaction_log_batches_total", "counter", "Writes to the store.", now["log_batches"]),
        ("unisono_transaction_log_writes_total", "counter", "What those writes held.", now["log_writes"]),
    ):
        lines += [*_head(name, kind, help_), f"{name} {figure:.0f}"]
    return "\n".join(lines) + "\n"


def _head(name: str, kind: str, help_: str) -> list[str]:
    return [f"# HELP {name} {help_}", f"# TYPE {name} {kind}"]
