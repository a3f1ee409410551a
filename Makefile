# Everything happens in .venv; a stamp there says which extras are installed, and is renewed
# when pyproject.toml changes.  PYTHON chooses the interpreter that .venv is made from, DEMO holds
# options for the demo, BENCH those for the measurements; SEED is a fresh one unless it is given.

PYTHON ?= python3
WORKERS ?= 2
HOURS ?= 24
FAULTS ?= 1000
FUZZ ?= 1000000
FUZZ_SOCKETS ?= 20000
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: help demo test quick browser screenshots check format bench bench-peers simulate chaos fuzz clean
.DELETE_ON_ERROR:

help:
	@echo 'make demo     a cluster of nodes on this machine runs a few jobs (installs what it needs)'
	@echo 'make test     style, types and all tests that need no special rights'
	@echo 'make check    style and types only'
	@echo 'make browser  what is seen in JupyterLab and Notebook 7, in a headless Chromium; needs Chromium'
	@echo 'make screenshots  make the pictures of docs/images anew; needs Chromium'
	@echo 'make format   put the sources into the form that make check asks for'
	@echo 'make bench    measure dispy-nb beside Pool, ProcessPoolExecutor and joblib (7 minutes);'
	@echo '              make bench BENCH=--quick (1 minute), BENCH="lone map", BENCH=--help'
	@echo 'make bench-peers  the same, also beside ray, dask, ipyparallel and parsl (installs them)'
	@echo 'make simulate HOURS=24 SEED=1   simulated hours of a cluster under load and faults'
	@echo 'make chaos FAULTS=1000   real programs on a network of their own, of which one breaks every'
	@echo '              second; needs root'
	@echo 'make fuzz FUZZ=1000000   so many damaged inputs for each reader of foreign bytes, guided by'
	@echo '              coverage where atheris can be installed, and FUZZ_SOCKETS=20000 for each socket'
	@echo 'make clean    remove what was built, and .venv'

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "dispy-nb needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv || { rm -rf .venv; \
	    echo 'no virtual environment could be made; on Debian and Ubuntu: apt install python3-venv'; \
	    exit 1; }

.venv/.core: pyproject.toml | $(BIN)/python
	$(PIP) install -e .
	@touch $@

.venv/.test: pyproject.toml | $(BIN)/python
	$(PIP) install -e '.[test]'
	$(PIP) install --upgrade --no-deps --target .venv/ipykernel6 'ipykernel>=6.29,<7'  # as some have
	@touch .venv/.core $@

.venv/.browser: pyproject.toml | $(BIN)/python
	$(PIP) install -e '.[browser]'
	@touch .venv/.core .venv/.test $@

demo: .venv/.core
	@$(BIN)/dispy demo $(DEMO)

check: .venv/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Notebook tests start kernels: in a process of their own they neither slow nor warm the others.
test: check
	$(BIN)/python -m tests.support.rows --forget
	$(BIN)/python -m pytest -n $(WORKERS) -q -m 'not netns and not notebook and not browser'
	$(BIN)/python -m pytest -n $(WORKERS) -q -m notebook
	$(BIN)/python -m tests.support.rows --brief

# what is quickly known to work, while something is being changed
quick: check
	$(BIN)/python -m pytest -n $(WORKERS) -q -m 'not netns and not notebook and not browser and not slow'

# Playwright keeps a loop running in its process: these tests share it with no others.
browser: .venv/.browser
	$(BIN)/python -m pytest -q -m browser

screenshots: .venv/.browser
	$(BIN)/python -m tests.browser.screenshots

format: .venv/.test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/.test
	$(BIN)/python -m benchmarks $(BENCH)

# The peers pull in much, and pin versions of their own: they get an environment of their own.
.venv-bench/.done: pyproject.toml
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip --disable-pip-version-check --quiet install -e '.[bench]'
	@touch $@

bench-peers: .venv-bench/.done
	.venv-bench/bin/python -m benchmarks --peers $(BENCH)

simulate: .venv/.test
	@$(BIN)/python -m tests.simulate --hours $(HOURS) $(if $(SEED),--seed $(SEED)) $(SHRINK)

chaos: .venv/.test
	@$(BIN)/python -m tests.chaos --faults $(FAULTS) $(if $(SEED),--seed $(SEED))

# Wheels of atheris are there for few systems: without it inputs are damaged at random.
.venv/.fuzz: .venv/.test
	-$(PIP) install 'atheris>=2.3'
	@touch $@

fuzz: .venv/.fuzz
	$(BIN)/python -m tests.fuzz --runs $(FUZZ)
	$(BIN)/python -m tests.fuzz --plain --runs $(FUZZ)
	FUZZ_INPUTS=$(FUZZ_SOCKETS) $(BIN)/python -m pytest -q -o timeout=600 \
	    tests/features/test_fuzzed_sockets.py

clean:
	rm -rf .venv .venv-bench build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
