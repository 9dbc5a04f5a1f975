# Each goal sets up what it needs in a virtual environment of its own; none asks anything.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STORE ?= results/demo

.PHONY: demo test slow gpu check generate bench clean

demo: $(VENV)/ready  ## ten methods on three pocket tasks, two seeds; a ranked table and an HTML page
	@started=$$(date +%s); \
	$(BIN)/peftbench run demo --store $(STORE) >/dev/null && \
	$(BIN)/peftbench report demo --store $(STORE) && \
	echo "The demo took $$(( $$(date +%s) - started )) s. Open $(STORE)/report/index.html"

test: $(VENV)/ready  ## the default suite
	$(BIN)/pytest -n auto --dist loadfile --no-loadscope-reorder

slow: $(VENV)/ready  ## what the default suite has no time for
	$(BIN)/pytest -m "slow or contract" -n auto

gpu: $(VENV)/ready  ## what only a GPU can show; without one it says that nothing was run
	$(BIN)/pytest -m gpu -rs tests/test_gpu.py

check: $(VENV)/ready  ## lint, house rules, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest tests/test_house.py
	$(BIN)/python tools/generate.py --check

generate: $(VENV)/ready  ## rebuild what is made from code: tables of the docs, capabilities, golden units
	$(BIN)/python tools/generate.py

bench: $(VENV)/ready  ## measured ratios; see docs/benchmarks.md
	$(BIN)/python bench/precision.py
	$(BIN)/python bench/grid.py
	$(BIN)/python bench/engine.py
	$(BIN)/python bench/stores.py
	$(BIN)/python bench/orders.py
	$(BIN)/peftbench calibrate
	$(BIN)/python bench/forecasts.py

$(VENV)/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) results build dist
