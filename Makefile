# make demo and make test each do everything on a fresh machine: environment, pinned packages, run.
# On Windows, `python -m venv`, `pip install -c constraints.txt -e .[dev]` and the commands below do the same.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# one process per core; more threads inside each would only fight for the cores
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -q -n logical --maxprocesses 8

RIVALS := .venv-rivals
RIVALS_STAMP := $(RIVALS)/.installed

.PHONY: demo test test-fast check bench bench-rivals kills format clean

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

bench: $(STAMP)
	$(BIN)/pixelwise bench

# half an hour on two cores, with nothing else running
bench-rivals: $(STAMP) $(RIVALS_STAMP)
	$(BIN)/pixelwise bench --device cpu --rivals $(RIVALS)/bin/python --out docs/performance.md

kills: $(STAMP)
	PIXELWISE_KILLS=50 $(BIN)/pytest -q tests/test_kills.py

format: $(STAMP)
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	# without what it needs: no build of torchvision fits every build of torch, and encoders do not use it
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -c constraints.txt timm
	touch $(STAMP)

$(RIVALS_STAMP): benchmarks/rivals.txt
	$(PYTHON) -m venv $(RIVALS)
	$(RIVALS)/bin/pip install --quiet --disable-pip-version-check -r benchmarks/rivals.txt
	touch $(RIVALS_STAMP)

clean:
	rm -rf $(VENV) $(RIVALS) .mypy_cache .ruff_cache .pytest_cache dist
