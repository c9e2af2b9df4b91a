# Everything runs on a fresh machine with Python >= 3.10, make and git: each target sets up .venv first.
#
#   make demo                        see it work
#   make demo KAFKA=real             the same, on Apache Kafka started for it
#   make test ARGS="-k order -x"     pass arguments to pytest
#   make test PROCESSES=0            in one process, one test after the other
#   make contract KAFKA_VERSION=3.9.1  what a broker must do, on another Kafka
#   make test PYTHON=python3.13      choose the interpreter (after `make clean`)

PYTHON ?= python3
ARGS ?=
KAFKA ?=
KAFKA_VERSION ?=
PROCESSES ?= auto

UV := .uv/bin/uv
BIN := .venv/bin
READY := .venv/.ready

# uv does not read pip's settings; a machine that reaches its package index through them still has to work.
ifdef PIP_INDEX_URL
export UV_DEFAULT_INDEX ?= $(PIP_INDEX_URL)
endif
ifdef PIP_CERT
export SSL_CERT_FILE ?= $(PIP_CERT)
endif
# Never another interpreter than the one asked for, and never one from the network.
export UV_PYTHON_DOWNLOADS := never
# On slow networks the 30 seconds that uv allows by default are not enough for the larger wheels.
export UV_HTTP_TIMEOUT ?= 300
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1
# Else each of the hundreds of processes that the tests start would compile what it imports, three times its own work.
export PYTHONDONTWRITEBYTECODE :=

PYTEST := $(BIN)/python -m pytest
# In several processes: `tests/spread.py` says how many, and which tests stay together.
PARALLEL := -n $(PROCESSES) --dist loadgroup --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-fast contract lint format types docs nox bench simulation worlds exhaustive mutants soak \
	requirements clean

help:  ## show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile

setup: $(READY)  ## install everything into .venv (the other targets do this themselves)

demo: $(READY)  ## see lanes, retries and dead letters work, on a Kafka started for the demo
	$(BIN)/python -m kafka_notify.demo $(if $(KAFKA),--kafka $(KAFKA)) $(ARGS)

test: $(READY)  ## run all tests, those on real Apache Kafka included
	$(PYTEST) $(PARALLEL) $(ARGS)

test-fast: $(READY)  ## run the tests that need no Kafka and search no worlds, in a minute
	$(PYTEST) $(PARALLEL) -m "not kafka and not search" --ignore=tests/typing $(ARGS)

contract: $(READY)  ## the tests that define what a broker must do: KAFKA_VERSION=3.9.1
	KAFKA_NOTIFY_TEST_KAFKA_VERSION=$(KAFKA_VERSION) $(PYTEST) -n 0 @tests/contract.txt $(ARGS)

lint: $(READY)  ## ruff: rules and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(READY)  ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(READY)  ## mypy --strict, pyright, and that each public name has a complete type
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/python scripts/check_types_complete.py

docs: $(READY)  ## run and type-check the Python blocks of README.md and docs/, and check that the tests they name exist
	$(BIN)/python scripts/check_docs.py
	$(BIN)/python scripts/check_proofs.py

nox: $(READY)  ## every Python that this machine has, the oldest dependencies, each extra alone: ARGS="-s unit-3.13"
	PATH="$(CURDIR)/.uv/bin:$$PATH" $(BIN)/nox $(ARGS)

bench: $(READY)  ## measure throughput and latency on this machine
	$(BIN)/python -m benchmarks $(ARGS)

simulation: $(READY)  ## the circuits in all simulated worlds: ARGS="--seeds 20 --world bad20"
	$(BIN)/python -m tests.simulation $(ARGS)

worlds: $(READY)  ## whole workers in simulated worlds, each by a seed: ARGS="--seed 17", ARGS="--hour"
	$(BIN)/python -m tests.simulation.workers $(ARGS)

exhaustive: $(READY)  ## every interleaving of small worlds: ARGS="--notifications 2 --faults 1"
	$(BIN)/python -m tests.exhaustive $(ARGS)

mutants: $(READY)  ## put known defects back, one at a time, and see that tests catch each: ARGS="--only null-key"
	$(BIN)/python -m tests.mutants $(if $(ARGS),$(ARGS),--write docs/proof/mutants.md)

soak: $(READY)  ## more worlds of the model; then kill, freeze and stop workers and brokers at random: ARGS="--minutes 60"
	KAFKA_NOTIFY_TEST_MODEL_SEEDS=4000 $(PYTEST) $(PARALLEL) tests/model/test_ordered_retry.py
	$(BIN)/python -m tests.exhaustive --states 1500000 --processes 2
	KAFKA_NOTIFY_TEST_SOAK=1 $(PYTEST) -n 0 -m soak
	$(BIN)/python -m tests.simulation
	$(BIN)/python -m tests.simulation.workers --seeds 1000
	$(BIN)/python -m tests.simulation.workers --hour
	$(BIN)/python -m tests.guarantees.soak $(ARGS)

requirements: $(UV)  ## pin the dependencies anew, with hashes
	$(call compile,uv,requirements/uv.in)
	$(call compile,dev,--all-extras pyproject.toml requirements/dev.in)

clean:  ## remove what the targets above made
	rm -rf .uv .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis .nox build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One set of pins for every supported Python and platform; no index address ends up in the files.
compile = $(UV) pip compile --quiet --universal --python-version 3.10 --upgrade --generate-hashes \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make requirements" \
	--output-file requirements/$(1).txt $(2)

$(UV): requirements/uv.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit("Python 3.10 or newer is needed, this is %d.%d: make PYTHON=python3.12" % sys.version_info[:2])'
	rm -rf .uv
	$(PYTHON) -m venv .uv
	.uv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
	@touch $@

$(READY): $(UV) requirements/dev.txt pyproject.toml
	test -x $(BIN)/python || $(UV) venv --quiet --python .uv/bin/python .venv
	$(UV) pip sync --quiet --python $(BIN)/python --require-hashes requirements/dev.txt
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@
