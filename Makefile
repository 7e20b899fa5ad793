# Targets document themselves: `make help`. Set-up happens on first use, in .venv.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO := workspace/demo
AUDIT := $(VENV)/audit
# Nothing but what the locks name, with the content that they name. --no-deps: tests/test_locks.py holds that nothing is
# missing, and resolving it anew takes longer than without a lock. --no-build-isolation: what is built here (pyhocon, and
# the bundle) is built by the setuptools of locks/build.txt, else pip would fetch one that no lock names.
INSTALL := -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps --no-build-isolation --use-pep517
LOCK = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev demo dashboard test test-fast test-faults e2e-secure lint types format check lock sbom audit link bench clean

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(BIN)/.python:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else f"Python 3.11, 3.12 or 3.13 is needed, this is {v[0]}.{v[1]}: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(BIN)/.ready: $(BIN)/.python locks/build.txt locks/runtime.txt pyproject.toml
	$(BIN)/python $(INSTALL) -r locks/build.txt
	$(BIN)/python $(INSTALL) -r locks/runtime.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	@touch $@

$(BIN)/.ready-dev: $(BIN)/.ready locks/dev.txt
	$(BIN)/python $(INSTALL) -r locks/dev.txt
	@touch $@

setup: $(BIN)/.ready  ## Virtual environment with everything the jobs need (about 3 minutes, 6 GB)

setup-dev: $(BIN)/.ready-dev

demo: setup  ## Train hello-pt with two sites on real digits, then show the report (8 s)
	@rm -rf $(DEMO)
	@$(BIN)/python -m bundle run hello-pt -n 2 -w $(DEMO) --set dataset=digits --html $(DEMO)/report.html

dashboard: setup  ## A FLARE system with two sites on this machine, and the dashboard on it (30 s); Ctrl-C ends both
	@$(BIN)/python -m dashboard.local

test: setup-dev  ## The tests, with FLARE processes, but those of test-faults; two files at a time
	$(BIN)/python -m pytest -n 2 --no-loadscope-reorder

test-fast: setup-dev  ## The tests that start no FLARE processes or fork servers
	$(BIN)/python -m pytest -n 2 --no-loadscope-reorder -m "not e2e and not fault"

test-faults: setup-dev  ## Intruders, sites and servers that misbehave, die or are cut off, in whole federations (about 30 minutes)
	$(BIN)/python -m pytest -m fault

e2e-secure: setup-dev  ## Every job in a provisioned system with mutual TLS, on loopback (about 3 minutes)
	$(BIN)/python -m tests.jobs.e2e_secure

lint: setup-dev  ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup-dev  ## mypy --strict
	$(BIN)/mypy

format: setup-dev  ## Let ruff fix what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

check: lint types test  ## Everything that CI runs

lock: setup-dev  ## Renew locks/ after a change of requirements*.txt; `make lock UPGRADE=--upgrade` takes what is newest
	$(LOCK) $(UPGRADE) requirements.txt -o locks/runtime.txt
	$(LOCK) $(UPGRADE) -c locks/runtime.txt requirements-dev.txt -o locks/dev.txt
	$(LOCK) $(UPGRADE) -c locks/runtime.txt locks/build.in -o locks/build.txt
	$(LOCK) $(UPGRADE) locks/audit.in -o locks/audit.txt
	$(LOCK) --no-deps requirements-bench.txt -o locks/bench.txt

sbom: setup-dev  ## What the jobs need, with versions and hashes, as CycloneDX JSON in workspace/sbom.json
	@mkdir -p workspace
	$(BIN)/cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible --no-validate --of JSON -o workspace/sbom.json locks/runtime.txt

audit: setup  ## Known vulnerabilities of everything that is installed; needs pypi.org itself, a mirror does not tell
	@test -x $(AUDIT)/bin/pip-audit || { $(PYTHON) -m venv $(AUDIT) && $(AUDIT)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r locks/audit.txt; }
	@mkdir -p workspace && $(BIN)/python -m pip freeze --exclude-editable > workspace/installed.txt
	$(AUDIT)/bin/pip-audit --strict --no-deps --disable-pip -r workspace/installed.txt

link: setup  ## Renew the links in jobs/*/app/custom after adding or removing a file
	$(BIN)/python -m bundle link

bench: setup-dev  ## Benchmarks, about two hours; FLARE_DATA_ROOT must hold CIFAR-10, MNIST, QMNIST, chest_xray and PneumoniaMNIST; results go to docs/results
	$(BIN)/python -m benchmarks.data_loading --json docs/results/data_loading.json
	$(BIN)/python -m benchmarks.framework_time --json docs/results/framework_time.json
	$(BIN)/python -m benchmarks.client_memory --json docs/results/client_memory.json
	$(BIN)/python -m benchmarks.federated_vs_central --rounds 25 --json docs/results/federated_vs_central.json
	$(BIN)/python -m benchmarks.personalization --rounds 20 --set train.local_lr=0.01 --json docs/results/personalization.json
	$(BIN)/python $(INSTALL) --upgrade --target workspace/peers -r locks/bench.txt
	$(BIN)/python -m benchmarks.writers_speed --fedlab workspace/peers --json docs/results/writers_speed.json
	$(BIN)/python -m benchmarks.writers_rounds --json docs/results/writers_rounds.json
	$(BIN)/python -m benchmarks.compression --json docs/results/compression.json
	$(BIN)/python -m benchmarks.robust_aggregation --json docs/results/robust_aggregation.json
	$(BIN)/python -m benchmarks.chest_xray --json docs/results/chest_xray.json
	$(BIN)/python -m benchmarks.mnist_accuracy --json docs/results/mnist_accuracy.json
	$(BIN)/python -m benchmarks.scaling --json docs/results/scaling.json
	$(BIN)/python -m benchmarks.endurance --json docs/results/endurance.json
	$(BIN)/python -m benchmarks.dashboard --json docs/results/dashboard.json
	$(BIN)/python -m benchmarks.write_results

clean:  ## Remove the virtual environment, caches and workspaces
	rm -rf $(VENV) workspace .pytest_cache .mypy_cache .ruff_cache .hypothesis
