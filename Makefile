# make demo | demo-classification | test | test-all | lint | setup. VENV=... uses another virtual environment, PYTHON=... another interpreter.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.reviewkd_det_setup

.PHONY: setup demo demo-classification test test-all lint

setup: $(STAMP)
	@$(BIN)/python tools/setup_detectron2.py

$(STAMP): setup.py constraints.txt
	$(BIN)/python -m pip --version > /dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: setup
	$(BIN)/python tools/demo.py

demo-classification: setup
	$(BIN)/python classification/demo.py

test: setup
	$(BIN)/python -m pytest -q

test-all: setup
	$(BIN)/python -m pytest -q -m "slow or not slow"

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
