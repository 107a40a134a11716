.DEFAULT_GOAL := help
# Tests wait more than they compute: three at a time keep two cores busy.
.PHONY: help up test check lint format types contract ui ops chaos chaos-quick fuzz fuzz-quick bench load lock
python := .venv/bin/python
# Where it is set every process compiles all it imports: a start takes three times as long.
unexport PYTHONDONTWRITEBYTECODE

help: ## List what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

up: ## Install what is needed and run everything here; Ctrl-C stops it
	@ops/install.sh run
	@$(python) -m photochanger.cli up

test: ## Run the whole test suite on a real (embedded) PostgreSQL
	@ops/install.sh dev
	@$(python) -m pytest -n 3

check: ## Lint, types, tests, contract drift and breaks: what CI runs
	@ops/install.sh dev
	@$(MAKE) --no-print-directory lint types contract
	@$(python) -m pytest -n 3

lint: ## Ruff: rules and format
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .

format: ## Let ruff mend what it can
	@.venv/bin/ruff check --fix .
	@.venv/bin/ruff format .

types: ## mypy, strict
	@.venv/bin/mypy

contract: ## Check that contract, models and routes agree, and that no client is broken
	@$(python) -m spec.drift
	@$(python) -m spec.breaking

ui: ## Walk the pages in Chromium; screenshots go to build/screenshots
	@ops/install.sh dev
	@$(python) -m pytest -n 3 tests/ui

ops: ## Have promtool, nginx and systemd try what ops ships (Debian: prometheus, nginx-light, systemd)
	@ops/install.sh dev
	@$(python) -m pytest -n 3 tests/alerts tests/deployment

chaos: chaos-quick ## Every fault: workers killed, PostgreSQL crashed, providers dead or slow, far too many photos
	@$(python) -m pytest tests/chaos -m full

chaos-quick: ## The faults that CI runs, two at a time
	@ops/install.sh dev
	@$(python) -m pytest -n 2 tests/chaos -m "not full" --durations=12

fuzz: ## Send damaged requests and pictures for a minute each, and many made up from the contract
	@ops/install.sh dev
	@PHOTOCHANGER_FUZZ_EXAMPLES=400 $(python) -m pytest -n 2 -rP tests/fuzz tests/contract/test_schemathesis.py

fuzz-quick: ## The same for five seconds each, without those made up: what CI runs
	@ops/install.sh dev
	@PHOTOCHANGER_FUZZ_S=5 PHOTOCHANGER_FUZZ_SEED=20261130 $(python) -m pytest -n 2 tests/fuzz

bench: ## Measure the queue and the whole ingest beside their contenders
	@ops/install.sh dev
	@$(python) -m ops.bench

load: ## Send many photos at once through a simulated provider and print what became of them
	@ops/install.sh dev
	@$(python) -m ops.load $(ARGS)

lock: ## Write the hashed locks anew
	@ops/lock/compile.sh
