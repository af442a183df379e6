# make train: install neq and what a run needs, then train the default run.
# make check: lint, types, import order and the tests that are not slow.
# make test:  all of it; what CI runs.
# make docs:  build the documentation site into site/.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check -q

.PHONY: train check test lint docs clean

train: .venv/installed
	$(BIN)/python train_classification.py

check: lint
	$(BIN)/pytest -n logical --dist worksteal -m "not slow"

test: lint
	$(BIN)/pytest -n logical --dist worksteal

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

docs: .venv/installed-docs
	$(BIN)/mkdocs build --strict

# A stamp is newer than the requirements it was made from: nothing is installed twice.
.venv/installed: requirements.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) -r requirements.txt
	$(PIP) --no-deps -e .
	touch $@

.venv/installed-dev: requirements-dev.txt .venv/installed
	$(PIP) -r requirements-dev.txt
	touch $@

.venv/installed-docs: requirements-docs.txt .venv/installed
	$(PIP) -r requirements-docs.txt
	touch $@

clean:
	rm -rf .venv build dist site .mypy_cache .ruff_cache
