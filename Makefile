# The two commands: `make search` (images to backbone in minutes) and `make test`.
SUPPORTED := import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 15))
PYTHON ?= $(shell for p in python3.11 python3.12 python3.10 python3.13 python3.14 python3; do \
	$$p -c "$(SUPPORTED)" 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
WORK_DIR ?= work_dirs/default

.PHONY: search test test-slow test-contracts lint docs setup clean-venv

search: $(VENV)/.core
	@$(BIN)/python -c "import sys; sys.version_info >= (3, 13) and print('On this Python without GraKeL (its kernels as guides) and MMDetection: they have no wheels for it.')"
	$(BIN)/python tools/search.py --work-dir $(WORK_DIR) $(if $(wildcard $(WORK_DIR)/search.json),--resume)

test: $(VENV)/.dev
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist worksteal

test-slow: $(VENV)/.dev
	$(BIN)/python -m pytest -m slow

test-contracts: $(VENV)/.dev
	$(BIN)/python -m pytest -m contract -n 2 --dist worksteal

lint: $(VENV)/.dev
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

docs: $(VENV)/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

setup: $(VENV)/.dev

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "GEMNet needs Python 3.10 to 3.14; none was found. Name one: make search PYTHON=/path/to/python3.11"; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.core: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.core pyproject.toml
	$(BIN)/python -m pip install --quiet --editable ".[dev,detection,export]"
	@touch $@

clean-venv:
	rm -rf $(VENV)
