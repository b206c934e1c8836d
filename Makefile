# make fit: train ConvDeep on MNIST. make test: run the tests. make lint: check style and types.
# make bench: measure speed, next to other packages. make docs: build the pages of docs/ into site/.
# make results: generate the pages that are made of numbers. All install what they need into .venv.
PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: fit test lint bench docs results install

fit: .venv/.installed
	$(BIN)/rnnx fit --config configs/convdeep.yaml

test: .venv/.installed-test
	$(BIN)/python -m pytest -n auto

lint: .venv/.installed-test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: .venv/.installed-test
	$(BIN)/python -m benchmarks

docs: .venv/.installed-test
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

results: .venv/.installed-test
	$(BIN)/python docs/study/results.py
	$(BIN)/python docs/study/tables.py
	$(BIN)/python -m rnnx_lightning.explain.operations > docs/operations.md

install: .venv/.installed-test

.venv/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing rnnx and what it needs into .venv (a few minutes the first time) ..."
	$(INSTALL) --editable .
	touch $@

.venv/.installed-test: .venv/.installed
	$(INSTALL) --editable ".[test]"
	touch $@
