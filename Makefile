# Two commands do all the set-up on a fresh machine: make train, make test.
PYTHON ?= python3
VENV ?= .venv
ARGS ?=

.PHONY: train test lint format tensorboard clean

train: $(VENV)/installed  ## live, learn and evolve with the default config; ARGS="--seed 1" to change it
	$(VENV)/bin/python -m trainers.train $(ARGS)

test: $(VENV)/installed-dev  ## the whole test suite, with the real model
	$(VENV)/bin/python -m pytest $(ARGS)

lint: $(VENV)/installed-dev  ## style and types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

format: $(VENV)/installed-dev  ## mend what the linter can mend
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

tensorboard: $(VENV)/installed  ## watch all runs
	$(VENV)/bin/tensorboard --logdir runs

clean:  ## forget the virtual environment; runs and fetched weights stay
	rm -rf $(VENV)

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@
