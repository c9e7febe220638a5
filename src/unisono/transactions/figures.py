"""What a coordinator has done, in Prometheus's text format; docs/reference/metrics.md explains each."""

from __future__ import annotations

from unisono.transactions.coordinator import Coordinator


def text(coordinator: Coordinator) -> str:
    """The lines, each family with its type."""
    counts, now = coordinator.counts, coordinator.figures()
    lines = ["# TYPE unisono_transactions_total counter"]
    for outcome in ("begun", "committed", "aborted", "heuristic"):
        lines.append(f'unisono_transactions_total{{outcome="{outcome}"}} {getattr(counts, outcome)}')
    lines.append("# TYPE unisono_transaction_calls_total counter")
    lines += [f'unisono_transaction_calls_total{{answer="{a}"}} {n}' for a, n in counts.answers.items()]
    for name, kind, figure in (
        ("unisono_transactions_open", "gauge", now["open"]),
        ("unisono_transactions_remembered", "gauge", now["remembered"]),
        ("unisono_transaction_participants_silent", "gauge", now["silent_participants"]),
        ("unisono_transaction_log_batches_total", "counter", now["log_batches"]),
        ("unisono_transaction_log_writes_total", "counter", now["log_writes"]),
    ):
        lines += [f"# TYPE {name} {kind}", f"{name} {figure:.0f}"]
    return "\n".join(lines) + "\n"
