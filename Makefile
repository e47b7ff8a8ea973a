# make demo   the main job, on real images, in about two minutes
# make test   the whole test suite
# make check  lint and types
# make docs   the site, in build/docs
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

# Two threads for one process, one for each of several: the machine is not asked for more than it has.
export OMP_NUM_THREADS ?= 2

# Keep compiled modules whatever the environment says: importing transformers from source takes ten seconds each time.
export PYTHONDONTWRITEBYTECODE :=

# One worker more than the two cores of a small machine: some tests wait for processes that they start.
TESTS := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist worksteal -q

.PHONY: demo test test-fast check docs benchmark clean

demo: $(STAMP)
	$(BIN)/ltsam demo

test: $(STAMP)
	$(TESTS)

test-fast: $(STAMP)
	$(TESTS) -m "not slow"

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.docs_installed
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet docs build/docs
	@echo "build/docs/index.html"

benchmark: $(STAMP)
	$(BIN)/python benchmarks/step_cost.py

# Installed anew only when the dependencies change: the package itself is editable. Compiled here, once, and not by all
# workers of the tests at the same time.
$(STAMP): pyproject.toml
	$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(None if (3, 11) <= v[:2] <= (3, 13) else f"Python 3.11 to 3.13 is needed, this is {v[0]}.{v[1]}: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip install --python $(BIN)/python --quiet --compile-bytecode --editable '.[dev]'
	touch $(STAMP)

$(VENV)/.docs_installed: $(STAMP)
	$(BIN)/uv pip install --python $(BIN)/python --quiet --editable '.[docs]'
	touch $@

clean:
	rm -rf $(VENV) build dist docs/generated .pytest_cache .mypy_cache .ruff_cache
