# Two commands do all the set-up on a fresh machine: make train, make test.
PYTHON ?= python3
VENV ?= .venv
ARGS ?=

# Two tests at a time, or as many as there are cores up to four, and so one thread for each
PYTEST = OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

.PHONY: train test test-long lint format audit sbom tensorboard clean example-torchrl example-rllib example-agilerl test-frameworks

train: $(VENV)/installed  ## live, learn and evolve with the default config; ARGS="--seed 1" to change it
	$(VENV)/bin/python -m trainers.train $(ARGS)

test: $(VENV)/installed-dev  ## the test suite, with the real model, but for what takes long
	$(PYTEST) -m 'not long' $(ARGS)

test-long: $(VENV)/installed-dev  ## the rest of it: comparisons of several runs, other formats of the real model
	$(PYTEST) -m long $(ARGS)

lint: $(VENV)/installed-dev  ## style and types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

format: $(VENV)/installed-dev  ## mend what the linter can mend
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

audit: $(VENV)/installed-dev  ## known vulnerabilities and licences of what is installed; warns, and never fails
	-$(MAKE) --quiet $(VENV)-audit/installed
	$(VENV)/bin/python .ci/audit.py $(VENV)-audit/bin/pip-audit

sbom: $(VENV)-release/installed $(VENV)-audit/installed  ## what a release consists of, as dist/sbom.cdx.json (CycloneDX)
	mkdir -p dist
	$(VENV)-audit/bin/cyclonedx-py environment $(VENV)-release/bin/python --pyproject pyproject.toml \
		--output-reproducible --output-file dist/sbom.cdx.json

tensorboard: $(VENV)/installed  ## watch all runs
	$(VENV)/bin/tensorboard --logdir runs

example-torchrl: $(VENV)/installed-torchrl  ## TorchRL's PPO learns to forage; ARGS="--steps N" for another length
	$(VENV)/bin/python -m examples.torchrl_ppo $(ARGS)

example-rllib: $(VENV)-rllib/installed  ## RLlib's PPO, in an environment of its own (1.7 GB)
	$(VENV)-rllib/bin/python -m examples.rllib_ppo $(ARGS)

example-agilerl: $(VENV)-agilerl/installed  ## AgileRL's IPPO, in an environment of its own (2.3 GB)
	$(VENV)-agilerl/bin/python -m examples.agilerl_ippo $(ARGS)

test-frameworks: $(VENV)/installed-dev $(VENV)/installed-torchrl $(VENV)-rllib/installed $(VENV)-agilerl/installed  ## the three, shortly
	for venv in $(VENV) $(VENV)-rllib $(VENV)-agilerl; do \
		$$venv/bin/python -m pytest --noconftest tests/test_examples_frameworks.py || exit; done

clean:  ## forget the virtual environments; runs and fetched weights stay
	rm -rf $(VENV) $(VENV)-rllib $(VENV)-agilerl $(VENV)-audit $(VENV)-release

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

$(VENV)/installed-torchrl: $(VENV)/installed examples/constraints-torchrl.txt
	$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt --constraint examples/constraints-torchrl.txt torchrl
	touch $@

# These ask for an older gymnasium than constraints.txt has
$(VENV)-rllib/installed: packages = 'ray[rllib]' pettingzoo torch
$(VENV)-agilerl/installed: packages = agilerl peft
$(VENV)-rllib/installed $(VENV)-agilerl/installed: $(VENV)-%/installed: examples/constraints-%.txt
	$(PYTHON) -m venv $(VENV)-$*
	$(VENV)-$*/bin/python -m pip install --quiet --constraint $< $(packages) pytest
	touch $@

$(VENV)-audit/installed: .ci/constraints-audit.txt
	$(PYTHON) -m venv $(VENV)-audit
	$(VENV)-audit/bin/python -m pip install --quiet --constraint $< pip-audit cyclonedx-bom
	touch $@

# What users get, without what tests need
$(VENV)-release/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)-release
	$(VENV)-release/bin/python -m pip install --quiet --constraint constraints.txt '.[dashboard]'
	touch $@
