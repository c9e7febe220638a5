# The two commands that a newcomer needs are `make demo` and `make test`. Each sets up what it needs first;
# scripts/setup.sh does that and is quick when nothing has changed.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup demo test bench lock format clean

help: ## Say what the targets do
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## Make .venv with everything in it, and build the engine
	@scripts/setup.sh

demo: ## Start an application, hurt it under load, and show what happened (a minute)
	@scripts/setup.sh
	@.venv/bin/unisono demo

test: ## Check and test everything
	@scripts/setup.sh checks
	@scripts/test.sh

bench: ## Measure every claim of docs/benchmarks.md on this machine (more than half an hour)
	@scripts/setup.sh
	-@.venv/bin/python -m bench.peers install
	@.venv/bin/python -m bench

lock: ## Write requirements.lock anew from pyproject.toml
	@scripts/lock.sh

format: ## Put Python and Rust into their formatters' form
	@scripts/setup.sh checks
	@.venv/bin/ruff check --fix --quiet .
	@.venv/bin/ruff format .
	@PATH="$$HOME/.cargo/bin:$$PATH" cargo fmt --manifest-path engine/Cargo.toml

clean: ## Remove everything that was made here
	@rm -rf .venv engine/target src/unisono/_engine*.so dist bench/results bench/.cache bench/instances/target
	@rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	@find src tests bench examples -name __pycache__ -type d -prune -exec rm -rf {} +
