#!/usr/bin/env bash
# Checks and tests everything, cheapest first, and stops at the first step that fails.
# The last step is one pytest run over the whole suite, so that its summary is the last line printed.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH="$PWD/.venv/bin:$HOME/.cargo/bin:$PATH"

step() {
  printf '\n==> %s\n' "$*"
  "$@"
}

step ruff check .
step ruff format --check .
step mypy
step lint-imports
(
  cd engine
  step cargo fmt --check
  step cargo clippy --locked --quiet --all-targets -- -D warnings
  step cargo test --locked --quiet
)
# System tests start whole nodes: they run one after the other, after and beside the rest (tests/conftest.py).
step pytest -n 2 --dist loadgroup --no-loadscope-reorder
