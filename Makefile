# Concordat. Every target does its own set-up; `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
# Compiled modules are kept, whatever the shell says: without them every process compiles torch and the tests anew.
unexport PYTHONDONTWRITEBYTECODE
SOURCES := concordat operator aggregator site_agent learning cli devcluster tests bench docs

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^##@ /{printf "\n%s\n", substr($$0, 5)} /^[a-z0-9-]+:.*## /{printf "  make %-16s %s\n", $$1, $$2}' Makefile

##@ Try it

.PHONY: demo
demo: setup ## The demo federation, on a real Kubernetes started here
	@$(BIN)/concordat demo $(DEMO_ARGS)

##@ Develop

.PHONY: setup
setup: .venv/.ready ## Make .venv with everything (about a minute)

.venv/.ready: requirements/dev.txt requirements/uv.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Concordat needs Python 3.11 or newer: $(PYTHON) is $$($(PYTHON) --version). Set PYTHON=..."; exit 2; }
	@$(PYTHON) -m venv .venv || { echo "'$(PYTHON) -m venv' failed: on Debian install python3-venv"; exit 2; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
	@echo "Installing the Python packages (torch among them; about a minute)"
	@$(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes requirements/dev.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@

.PHONY: check
check: setup lint types imports generate-check unit ## The inner loop: everything that needs no cluster

.PHONY: fmt
fmt: setup ## Format the code
	@$(BIN)/ruff check --fix --quiet $(SOURCES)
	@$(BIN)/ruff format --quiet $(SOURCES)

.PHONY: generate
generate: setup ## Write CRDs, API reference and the picture of the layers
	@$(BIN)/python -m concordat.api.crdgen
	@$(BIN)/python docs/develop/draw_layers.py

.PHONY: lint
lint: setup ## Style, and whether the code is formatted
	@$(BIN)/ruff check $(SOURCES)
	@$(BIN)/ruff format --check --quiet $(SOURCES)

.PHONY: types
types: setup ## Types, strictly
	@$(BIN)/mypy

.PHONY: imports
imports: setup ## Which package may import which
	@$(BIN)/lint-imports --no-logo 2>/dev/null || $(BIN)/lint-imports

.PHONY: generate-check
generate-check: setup ## Whether the generated files are those of the models
	@$(BIN)/python -m concordat.api.crdgen --check
	@$(BIN)/python docs/develop/draw_layers.py --check

##@ Test

.PHONY: test
test: check scenarios api charts e2e ## Run the whole test suite

.PHONY: unit
unit: setup ## Unit and property tests
	@$(BIN)/pytest -q -n 2 --dist loadgroup tests/unit

.PHONY: scenarios
scenarios: setup ## Whole rounds in memory, with faults
	@$(BIN)/pytest -q -n 2 tests/scenarios

.PHONY: api
api: setup prerequisites ## Tests and scenarios on a real API server
	@$(BIN)/pytest -q -n 2 --dist worksteal --real tests/apiserver tests/scenarios

.PHONY: charts
charts: setup prerequisites ## Charts: lint, golden renders, negative values
	@$(BIN)/pytest -q tests/charts

.PHONY: e2e
e2e: setup prerequisites ## Whole rounds on a real node
	@$(BIN)/pytest -q -n 2 --dist loadfile -rA --durations=10 tests/e2e

.PHONY: chroot-check
chroot-check: setup ## Other distributions, in chroots (root; SUITES=trixie)
	@$(BIN)/python -m tests.machines.chroots $(SUITES)

.PHONY: vm-check
vm-check: setup prerequisites ## Debian 12 and 13, in qemu (root; SUITES=bookworm)
	@$(BIN)/python -m tests.machines.vm $(SUITES)

##@ Measure

.PHONY: bench-seeds
bench-seeds: setup ## Does a round learn? Three seeds, two instruction sets
	@$(BIN)/python bench/demo_seeds.py

.PHONY: bench-canary
bench-canary: setup ## What the canary check finds in the demo, and misses
	@PYTHONPATH=. $(BIN)/python bench/demo_canary.py

SITES ?= 10 100 1000
ROUNDS ?= 500

.PHONY: bench-scale bench-recovery soak
bench-scale: setup prerequisites ## Rounds of many sites (SITES="10 100 1000"; an hour)
	@PYTHONPATH=. $(BIN)/python -m bench.scale $(SITES)

bench-recovery: setup prerequisites ## Crashes, fail-over and idle seconds (15 minutes)
	@PYTHONPATH=. $(BIN)/python -m bench.recovery

.PHONY: bench-gateway
bench-gateway: setup prerequisites ## What the gateway costs (2 minutes)
	@PYTHONPATH=. $(BIN)/python -m bench.gateway

soak: setup prerequisites ## Short rounds with random faults (ROUNDS=500)
	@PYTHONPATH=. $(BIN)/python -m bench.soak --rounds $(ROUNDS)

.venv-bench/.ready: requirements/bench.txt .venv/.ready
	@echo "Installing ByzFL, Flower and what they need (a few minutes; they do not fit beside our own packages)"
	@$(BIN)/uv venv --quiet --allow-existing --python $(BIN)/python .venv-bench
	@$(BIN)/uv pip sync --quiet --python .venv-bench/bin/python --require-hashes requirements/bench.txt
	@touch $@

BENCH := PYTHONPATH=.:learning:aggregator .venv-bench/bin/python -m

.PHONY: bench-attacks bench-speed bench-agreement
bench-attacks: .venv-bench/.ready ## Attacks on every rule (an hour)
	@$(BENCH) bench.attacks

bench-speed: .venv-bench/.ready ## Speed of engine and Job (20 minutes)
	@$(BENCH) bench.speed

bench-agreement: .venv-bench/.ready ## Our rules beside ByzFL's and Flower's
	@$(BENCH) bench.agreement

##@ Maintain

.PHONY: prerequisites
prerequisites: setup ## Name and install what the machine lacks
	@$(BIN)/concordat cluster prerequisites --tests

.PHONY: lock
lock: setup ## Pin the newest compatible packages anew
	@$(BIN)/uv pip compile pyproject.toml $(LOCK) --all-extras -o requirements/dev.txt
	@for e in operator agent learning; do $(BIN)/uv pip compile pyproject.toml $(LOCK) --extra $$e -c requirements/dev.txt -o requirements/$$e.txt; done
	@$(BIN)/uv pip compile pyproject.toml requirements/bench.in $(LOCK) -o requirements/bench.txt
	@echo uv | $(BIN)/uv pip compile - $(LOCK) -c requirements/dev.txt -o requirements/uv.txt

LOCK := --quiet --universal --generate-hashes --no-emit-index-url --no-header --no-annotate --python-version 3.11

.PHONY: clean
clean: ## Remove what was built in this folder
	@rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
