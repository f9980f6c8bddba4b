# Every target sets up what it needs. PYTHON names the interpreter to build the environment with.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# dev,docs,manifests,train is all that tests use: `docs` builds the site, `manifests` checks what clusters read, and
# `train` trains small models with PyTorch (gigabytes, where pip finds no CPU build).
EXTRAS ?= dev
comma := ,
INSTALLED := $(VENV)/.installed-$(subst $(comma),-,$(EXTRAS))
# All tests were compiled, by one process: each worker would do so at the same time.
COMPILED := $(VENV)/.compiled
RUN_SECONDS ?= 10
RUN_DIR := run
# Workers: see pytest_xdist_auto_num_workers in tests/conftest.py.
PYTEST = $(BIN)/python -m pytest -n auto --dist loadgroup -o tmp_path_retention_policy=failed
PYTEST_ARGS ?=
SELECTED ?= not exhaustive and not maintainer
STACK_ARGS ?=
# Unit tests wait for little, so that two workers more than cores are enough for `quick`.
# Journals are synced at every record: unit tests that write thousands do so in memory, where a gigabyte of it is free
# and libraries can be loaded from there. Not all tests: below /dev a plug-in's own files look like devices.
MEMORY := $(shell test -w /dev/shm && awk '$$2 == "/dev/shm" && $$4 !~ /noexec/ {found = 1} END {exit !found}' /proc/mounts && \
  df -P /dev/shm 2>/dev/null | awk 'NR == 2 && $$4 > 1000000 {print "PYTEST_DEBUG_TEMPROOT=/dev/shm"}')
# The interpreter that has PyTorch; the suite says what else it lacks and how to carry that there.
HARDWARE_PYTHON ?= python3
HARDWARE_DIR ?= $(RUN_DIR)/hardware-$(shell date -u +%Y%m%dT%H%M%SZ)
HARDWARE_ARGS ?=
MUTANTS_ARGS ?=
BENCH_ARGS ?=
CAMPAIGN_ARGS ?=
FUZZ_SECONDS ?= 60
FUZZ_ARGS ?=
MUTATE_ARGS ?=
AGREEMENT_ARGS ?=
# The tests start flopsd a thousand times: without byte code each start would compile it again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help install run stack quick test test-all check docs docs-site bench long-runs mutants campaign fuzz verifier-page verifier-pictures mutate-ledgers random-trainings vector-mutants agreement oldest hardware recording clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1: /p' $(MAKEFILE_LIST)

$(INSTALLED): pyproject.toml
	@echo "setting up $(VENV) (a minute, the first time)"
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.10 or newer is needed, this is " + sys.version.split()[0] + "; name one: make PYTHON=python3.12") if sys.version_info < (3, 10) else None'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --retries 5 --no-compile -e '.[$(EXTRAS)]'
	@touch $@

run: $(INSTALLED) ## meter this machine (or replay the bundled recording), seal, verify
	@$(BIN)/python scripts/first_run.py --seconds $(RUN_SECONDS) --dir $(RUN_DIR)

stack: $(INSTALLED) ## flopsd on the recording, Prometheus and Alertmanager: graphs to look at, until Ctrl-C
	@$(BIN)/python scripts/stack.py $(STACK_ARGS)

install: $(INSTALLED) ## the environment alone, with EXTRAS

quick: $(INSTALLED) ## unit and property tests alone, without long ones and those of the test tools
	@$(MEMORY) FLOPSD_QUICK=1 FLOPSD_HYPOTHESIS=few $(PYTEST) -n $$(($$(nproc) + 2)) -m 'not exhaustive and not long and not maintainer' --ignore tests/unit/tests tests/unit tests/property $(PYTEST_ARGS)

test: $(COMPILED) ## the tests, with a sample of each exhaustive one, without those for maintainers
	@FLOPSD_HYPOTHESIS=quick $(PYTEST) -m '$(SELECTED)' $(PYTEST_ARGS)

test-all: check $(COMPILED) ## lint, types and every test: exhaustive ones whole, four times as many examples of each property
	@$(PYTEST) $(PYTEST_ARGS)

check: $(INSTALLED) ## lint and types
	@$(BIN)/ruff check . && $(BIN)/ruff format --check --quiet . && $(BIN)/mypy

$(COMPILED): $(INSTALLED)
	@$(BIN)/python -m pytest --collect-only -qq >/dev/null 2>&1 || true
	@touch $@

docs: $(INSTALLED) ## renew docs/metrics.md, the picture of the architecture and config/parsed.json
	@$(BIN)/python -m scripts.metrics_docs && $(BIN)/python -m scripts.architecture && $(BIN)/python -m scripts.parsed_yaml

docs-site: ## build the documentation site in site/; a broken link fails
	@$(MAKE) --no-print-directory install EXTRAS=dev,docs
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "open site/index.html; to search too: $(BIN)/python -m http.server -d site"

bench: $(INSTALLED) ## print the budgets of the design, figure beside budget; BENCH_ARGS names single ones
	@$(BIN)/python -m tests.bench $(BENCH_ARGS)

long-runs: $(INSTALLED) ## memory, time and disk of runs of 7, 60 and 180 simulated days
	@$(BIN)/python -m tests.bench.long_runs $(LONG_RUNS_ARGS)

mutants: $(INSTALLED) ## plant 300 faults in copies of the tree, print those that no test finds
	@$(BIN)/python -m tests.mutants $(MUTANTS_ARGS)

random-trainings: $(INSTALLED) ## train small models in random ways, hold each interval against PyTorch's count
	@$(BIN)/python -m tests.train.random_trainings $(TRAININGS_ARGS)

campaign: $(INSTALLED) ## meter simulated machines of every load and fault, hold each ledger against the truth
	@$(BIN)/python -m tests.campaign $(CAMPAIGN_ARGS)
	@$(BIN)/python -m tests.campaign.several_sources
	@$(BIN)/python -m tests.campaign.lying_jobs
	@$(BIN)/python -m tests.campaign.neuron

fuzz: $(INSTALLED) ## coverage-guided fuzzing (Atheris) of each parser for FUZZ_SECONDS; renews tests/fuzz/corpus
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[fuzz]'
	@$(BIN)/python -m tests.fuzz --seconds $(FUZZ_SECONDS) $(FUZZ_ARGS)

verifier-page: $(INSTALLED) ## build verifier/index.html and its digest in docs, after a change of it, of config/ or of report.css
	@$(BIN)/python -m verifier.build

verifier-pictures: $(INSTALLED) ## pictures of the verifier's page in build/verifier, and what axe-core (AXE_CORE) finds in them
	@$(BIN)/python -m tests.bench.verifier

vector-mutants: $(INSTALLED) ## break the second and third implementation in 300 places each, print which faults no vector notices
	@$(BIN)/python -m tests.vector_mutants $(VECTOR_MUTANTS_ARGS)

mutate-ledgers: $(INSTALLED) ## verify 56,000 mutants of ledgers and their files, print what is forged, crashed, slow or large
	@$(BIN)/python -m tests.fuzz.ledgers $(MUTATE_ARGS)

agreement: $(INSTALLED) ## random ledgers and mutants through every implementation of the format: who says otherwise
	@$(BIN)/python -m tests.agreement $(AGREEMENT_ARGS)

oldest: $(INSTALLED) ## unit and contract tests with the oldest versions that pyproject.toml allows
	@$(BIN)/python -m tests.oldest

hardware: ## true against metered FLOP on this NVIDIA GPU; changes no setting of it
	@$(HARDWARE_PYTHON) -m tests.hardware --date "$$(date -u +%F)" --out "$(HARDWARE_DIR)" $(HARDWARE_ARGS)

recording: $(INSTALLED) ## make the bundled recording again, from the stand-in
	@$(BIN)/python -m tests.support.record config/recordings/h100x2.jsonl

clean: ## remove what the targets made
	rm -rf $(VENV) $(RUN_DIR) build dist site .mypy_cache .ruff_cache .pytest_cache .hypothesis
