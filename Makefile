# Each target sets up what it needs: a virtual environment in .venv, made once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# A third of the time a test waits: for a server, a process, a deadline.
WORKERS := $(shell expr $$(getconf _NPROCESSORS_ONLN) \* 3 / 2)

.PHONY: help demo test lint lowest litellm format benchmark docs pictures clean
help: ## what there is
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

$(VENV)/ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "langchain-automix needs Python 3.11 or newer; name one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --no-compile --editable '.[local]'
	@touch $@

$(VENV)/ready-dev: $(VENV)/ready
	$(BIN)/python -m pip install --quiet --no-compile --editable '.[local,prices,cookbook,parquet,pandas,plots,report,learning,ray,serve]' --group dev --group docs
	@touch $@

demo: $(VENV)/ready ## the main job on two real models, no key (ARGS="--replay" for a first look in seconds)
	$(BIN)/automix demo $(ARGS)

test: lint ## tests, lint and types
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile $(ARGS)

lint: $(VENV)/ready-dev ## ruff, the floors of imports, and mypy
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports
	$(BIN)/mypy

lowest: ## the oldest versions that pyproject.toml allows, in an environment of their own
	$(PYTHON) -m tests.lowest

litellm: $(VENV)/ready-dev ## the tests of LiteLLM's own client, which brings 210 MB
	$(BIN)/python -m pip install --quiet --group litellm
	$(BIN)/python -m pytest tests/models tests/serve/clients -k 'LiteLLM or litellm'

format: $(VENV)/ready-dev ## put the code in shape
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format

benchmark: $(VENV)/ready-dev ## the figures of the README and the site
	$(BIN)/python -m tests.benchmarks $(ARGS)

docs: $(VENV)/ready-dev ## the site, into build/site (no network)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict # not --quiet, which hears no warning
	@echo "build/site/index.html"

pictures: $(VENV)/ready-dev ## the pictures of the site anew (needs Chromium; ARGS="report" for one)
	$(BIN)/python -m docs.tooling.pictures $(ARGS)

clean: ## forget the virtual environment
	rm -rf $(VENV)
