# Everything below makes .venv by itself; it needs Python 3.11+ and a package index, nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PEERS := .venv-peers
PEERS_STAMP := $(PEERS)/.installed

.PHONY: help demo test test-all check bench soak clean

help:  ## what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -e 's/:.*##/\t/'

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1" -c constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --group dev -e ".[all]"
	@# Barman asks for psycopg2 in source, which needs a compiler; psycopg2-binary is the same, with one.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps barman
	@touch $@

demo: $(STAMP)  ## three hospitals, three regions: what a herd does, in a minute
	$(BIN)/pgherd demo hospitals

test: $(STAMP)  ## the tests, on real servers
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-all: $(STAMP)  ## all of them: killed at every step, every way to lose a primary
	$(BIN)/python -m pytest -m "long or not long" --timeout 900

check: $(STAMP)  ## format, lint, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The stores we compare with need older versions of what we use: an environment of their own.
$(PEERS_STAMP): pyproject.toml constraints-bench.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1" -c constraints-bench.txt
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-bench.txt --group bench
	@touch $@

bench: $(STAMP) $(PEERS_STAMP)  ## ratios against one server and other stores, in one run; SUITES="search load", ARGS=--quick
	$(BIN)/python -m bench $(SUITES) $(ARGS)

soak: $(STAMP)  ## 50 faults at random on a replicated group, 20 minutes at most
	$(BIN)/python -m pgherd.availability.soak

clean:
	rm -rf $(VENV) $(PEERS) build dist *.egg-info src/*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
