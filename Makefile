# Needs only make and a Python with venv; all else is installed into .venv.
# Another Python: make PYTHON=python3.13 ...

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SECONDS ?= 120
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check --no-input

MAKEFLAGS += --no-print-directory
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help test unit starts soak demo run docs coverage bench clean

help:      ## list the targets
	@sed -n 's/^\([a-z]*\): .*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 18

test: $(VENV)/.dev      ## every check: format, lint, imports, types, tests, docs, wheel
	@tools/check

unit: $(VENV)/.dev      ## the tests of memory alone: the inner loop
	@$(BIN)/pytest --numprocesses=auto --maxprocesses=4 \
	    --dist=loadscope --no-loadscope-reorder tests/unit

starts: $(VENV)/.dev      ## the tests with real processes, with each other way to start workers
	@for start in fresh preloaded; do DANGAD_TEST_START=$$start $(BIN)/pytest --numprocesses=auto \
	    --maxprocesses=4 --dist=loadscope --no-loadscope-reorder tests/real || exit; done

# The rules are told 2,000 histories at least, and templates fork 10,000 times, which may take longer
# than their share of the time.
soak: $(VENV)/.dev      ## random histories of the rules, and of a server under load, SECONDS=120
	@DANGAD_SOAK_SECONDS=$$(($(SECONDS) / 4)) $(BIN)/python -m pytest -q -s \
	    -o faulthandler_timeout=0 tests/unit/scheduler/test_rules_properties.py
	@DANGAD_FORKS=5000 $(BIN)/python -m pytest -q -o faulthandler_timeout=0 \
	    tests/real/test_template.py -k nothing_is_left
	@$(BIN)/python -m pytest -q -m soak -o faulthandler_timeout=0 tests/real
	@$(BIN)/python -m tests.soak_history --seconds $$(($(SECONDS) / 2)) $(if $(SEED),--seed $(SEED))
	@$(BIN)/python -m tests.soak_latency --seconds $$(($(SECONDS) / 4)) $(if $(SEED),--seed $(SEED))

demo: $(VENV)/.runtime      ## a server, two workers and three clients play a short story
	@$(BIN)/python -m dangad.examples.demo

run: $(VENV)/.runtime      ## a server of the examples in the foreground; Ctrl-C ends it (make: Interrupt)
	@exec $(BIN)/dangad dev dangad.examples --listen dangad.sock --control dangad.control

docs: $(VENV)/.dev      ## the documentation with the API pages, as a site in docs/_build/html
	@tools/check docs

coverage: $(VENV)/.dev      ## the tests, and the lines that they do not reach
	@$(BIN)/coverage erase
	@$(BIN)/coverage run -m pytest
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report

bench: $(VENV)/.bench      ## how fast it is, and its peers; ONLY=echo for one question, QUICK=1
	@$(BIN)/python -m tests.benchmarks $(ONLY) $(if $(QUICK),--quick)

clean:      ## remove .venv and all that was built
	@rm -rf $(VENV) build dist docs/_build tests/benchmarks/results *.egg-info htmlcov .coverage .coverage.* _trial_temp*
	@rm -rf .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	@rm -f twisted/plugins/dropin.cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps: made, with what the server needs, with what the checks or the benchmarks need.

$(VENV)/.made:
	@command -v $(PYTHON) >/dev/null || { \
	    echo "There is no $(PYTHON). Name a Python: make PYTHON=/path/to/python3 $(MAKECMDGOALS)" >&2; \
	    exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "dangad needs Python 3.11 or newer, and $(PYTHON) is: $$($(PYTHON) --version)." >&2; \
	    echo "Name another one: make PYTHON=python3.13 $(MAKECMDGOALS)" >&2; \
	    exit 1; }
	@echo "making $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.runtime: $(VENV)/.made pyproject.toml
	@echo "installing dangad into $(VENV)"
	@$(PIP) install --editable .
	@touch $@

# pip knows dependency groups since 25.1; the one that comes with Python may be older.
$(VENV)/.pip: $(VENV)/.made
	@$(BIN)/python -c 'import pip; assert (*map(int, pip.__version__.split(".")[:2]),) >= (25, 1)' \
	    2>/dev/null || $(PIP) install --upgrade "pip>=25.1"
	@touch $@

$(VENV)/.dev: $(VENV)/.pip pyproject.toml
	@echo "installing dangad and its development tools into $(VENV)"
	@$(PIP) install --editable . --group dev
	@touch $(VENV)/.runtime $@

$(VENV)/.bench: $(VENV)/.pip pyproject.toml
	@echo "installing dangad and what it is compared with into $(VENV)"
	@$(PIP) install --editable . --group bench
	@touch $(VENV)/.runtime $@
