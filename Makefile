# Two commands matter: `make quickstart` and `make test`. Each makes .venv and installs the pinned versions on first use.
#   make PYTHON=python3.12 ...   another interpreter (3.11 to 3.13)
#   make VENV=/path/to/env ...   another place for the environment
#   make test PYTEST_ARGS="-k packing"

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

VENV ?= .venv
RUN_DIR ?= runs/quickstart
ALIGN_DIR ?= runs/align
ALIGN_ARGS ?=
PYTEST_ARGS ?=
# One process for each core, at most 4: most of a test's time is XLA compiling on one thread.
WORKERS ?= $(shell n=$$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1); [ $$n -gt 4 ] && n=4; echo $$n)

ifndef PYTHON
PYTHON := $(shell for p in python3 python3.12 python3.11 python3.13 python; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null && echo $$p && break; done)
endif

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
CORE := $(VENV)/.installed-core
DEV := $(VENV)/.installed-dev
SOURCES := jaxlm configs experiments tools tests notebooks

.PHONY: help install quickstart quickstart-long align test test-slow fmt lint type bench wheel clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-15s %s\n", $$1, $$2}' Makefile

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11, 3.12 or 3.13 found: install one, or give its path, make PYTHON=..." >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' \
		|| { echo "error: PYTHON=$(PYTHON) is not Python 3.11, 3.12 or 3.13: give the path of one, make PYTHON=..." >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV) \
		|| { rm -rf $(VENV); echo "error: $(PYTHON) cannot make an environment: install its venv module (Debian: python3-venv)" >&2; exit 2; }

$(CORE): pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing jaxlm and its pinned dependencies into $(VENV) (about 1.2 GB, a few minutes)" >&2
	@$(PIP) install --quiet --constraint constraints.txt --editable .
	@touch $@

$(DEV): pyproject.toml constraints.txt $(CORE)
	@echo "installing the development tools into $(VENV)" >&2
	@$(PIP) install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

install: $(DEV)  ## the environment with everything for development

quickstart: $(CORE)  ## train a small Transformer on Python's own documentation, then let it write
	@$(BIN)/python -m experiments.pretrain quickstart --run-dir $(RUN_DIR)
	@$(BIN)/python -m experiments.generations quickstart_generations --decoder-run $(RUN_DIR) --run-dir $(RUN_DIR)/generations >/dev/null
	@$(BIN)/python -m experiments.small_large small_large --large $(RUN_DIR) --run-dir $(RUN_DIR)/small_large >/dev/null
	@$(BIN)/python -m jaxlm report $(RUN_DIR) >/dev/null
	@$(BIN)/python -m experiments.generate $(RUN_DIR)

quickstart-long: quickstart  ## the quickstart, and then a short road from text to aligned models
	@$(BIN)/python -m experiments.align align_quick --run-dir $(RUN_DIR)/align

align: $(CORE)  ## the road from text to aligned models on a made-up world: SFT, reward model, PPO, GRPO, DPO, one report
	@$(BIN)/python -m experiments.align align --run-dir $(ALIGN_DIR) $(ALIGN_ARGS)

test: $(DEV)  ## the tests, but long ones and further variants
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m 'not slow' --durations=10 $(PYTEST_ARGS)

test-slow: $(DEV)  ## long tests and further variants
	@$(BIN)/python -m pytest -m slow --durations=10 $(PYTEST_ARGS)

fmt: $(DEV)  ## format, and mend what can be mended
	@$(BIN)/ruff format $(SOURCES)
	@$(BIN)/ruff check --fix $(SOURCES)

lint: $(DEV)  ## formatting and rules, changing nothing
	@$(BIN)/ruff format --check $(SOURCES)
	@$(BIN)/ruff check $(SOURCES)

type: $(DEV)  ## pyright
	@PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/pyright --pythonpath $(BIN)/python

bench: $(CORE)  ## measure this machine, one JSON table
	@$(BIN)/python -m tools.bench

wheel: $(DEV)  ## dist/*.whl
	@$(BIN)/python -m build --wheel --outdir dist

clean:  ## remove the environment, caches and built files; runs/ is kept
	@rm -rf $(VENV) dist build .pytest_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
