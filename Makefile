# make demo | demo-classification | test | test-fast | test-all | test-official | docs | docs-check | lint | setup. VENV=... uses another virtual environment, PYTHON=... another interpreter.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.reviewkd_det_setup
DOCS_STAMP := $(VENV)/.reviewkd_det_docs

# A module stays in one worker, which builds its fixtures once; the last modules are short ones.
PYTEST := $(BIN)/python -m pytest -q --numprocesses 2 --dist loadscope --no-loadscope-reorder

.PHONY: setup demo demo-classification test test-fast test-all test-official docs docs-check lint

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
	$(PYTEST)

test-fast: setup
	$(PYTEST) tests/core tests/common $(wildcard tests/*/test_config.py tests/*/config)

test-all: setup
	$(PYTEST) -m "slow or not slow"

# A checkout of Detectron2's main branch stands before what set-up found; its own set-up makes the
# link to its configs, and nothing else of it is needed without a GPU.
DETECTRON2 ?=
test-official: setup
	@test -d "$(DETECTRON2)/detectron2" || { echo "DETECTRON2 must be a checkout of Detectron2; got '$(DETECTRON2)'" >&2; exit 1; }
	@test -e "$(DETECTRON2)/detectron2/model_zoo/configs" || ln -s ../../configs "$(DETECTRON2)/detectron2/model_zoo/configs"
	PYTHONPATH="$(abspath $(DETECTRON2))$(if $(PYTHONPATH),:$(PYTHONPATH))" $(PYTEST) $(TESTS)

$(DOCS_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[docs]'
	touch $@

docs: setup $(DOCS_STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict
	@echo site/index.html

docs-check: docs
	$(PYTEST) tests/test_docs*.py -m "slow or not slow"

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
