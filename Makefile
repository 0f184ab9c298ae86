# make demo and make test each do everything on a fresh machine: environment, pinned packages, run.
# On Windows, `python -m venv`, `pip install -c constraints.txt -e .[dev]` and the commands below do the same.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# one process per core; more threads inside each would only fight for the cores
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -q -n logical --maxprocesses 8

.PHONY: demo test test-fast check kills format clean

demo: $(STAMP)
	$(BIN)/pixelwise demo

test: $(STAMP)
	$(PYTEST)

test-fast: $(STAMP)
	$(PYTEST) -m "not slow"

check: $(STAMP)
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

kills: $(STAMP)
	PIXELWISE_KILLS=50 $(BIN)/pytest -q tests/test_kills.py

format: $(STAMP)
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $(STAMP)

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache dist
