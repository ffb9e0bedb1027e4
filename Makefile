# make repro   set up, run the whole pipeline, print the metrics and where the report is
# make test    set up, lint, all tests: the fast ones first
# make docs    set up, build the site of docs/ into runs/site/; a warning ends it
# make smoke   set up, the whole pipeline at its smallest (profiles/smoke.yaml), in a clone in runs/smoke
# make rehearse PHOTOGRAPHS=<folder>   set up, the paper's profile with stand-ins for the weights (docs/gpu.md)

PYTHON ?= python3
# Paths within recipes are relative: make and the shell both cut a path at the space of `My Drive`.
VENV := .venv
SMOKE := runs/smoke
REHEARSAL := runs/rehearsal
PHOTOGRAPHS ?= photographs
# Two processes, as most tests keep one core busy; those of one file share what they make, so they stay together.
# Files keep their order (tests/conftest.py), which xdist would change to that of how many tests they have.
PYTEST := pytest -n 2 --dist loadfile --no-loadscope-reorder
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export DVC_NO_ANALYTICS := 1
export GX_ANALYTICS_ENABLED := false
export DO_NOT_TRACK := 1

.PHONY: setup repro test fast lint docs smoke rehearse
.DEFAULT_GOAL := repro

setup: $(VENV)/.ready

# The commands of an environment name the place where it was made: in a project that was moved it is made anew. One that
# is a link was made by somebody else, and stays.
HERE := $(if $(filter /%,$(VENV)),,$(CURDIR)/)$(VENV)
MOVED := $(shell test -L $(VENV) || grep -sLF '$(HERE)' $(VENV)/bin/activate)
ifneq ($(MOVED),)
.PHONY: $(VENV)/.ready
endif

# One lock file for every machine; the package itself is installed in place, so an edited file needs no new setup.
$(VENV)/.ready: requirements.lock pyproject.toml
	test -z "$(MOVED)" || rm -r $(VENV)
	test -x $(VENV)/bin/python || "$(PYTHON)" -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --requirement requirements.lock
	$(VENV)/bin/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

repro: setup
	dvc repro
	@cat artifacts/report/results.md
	@echo "report: $(CURDIR)/artifacts/report/index.html"

test: lint fast
	$(PYTEST) -m slow

fast: setup
	$(PYTEST) -m "not slow"

lint: setup
	ruff check .
	ruff format --check .
	mypy

docs: setup
	python -m mkdocs build --strict

smoke: setup
	rm -rf $(SMOKE)
	git clone --quiet . $(SMOKE)
	cp profiles/smoke.yaml $(SMOKE)/params.yaml
	cd $(SMOKE) && dvc repro && cat artifacts/report/results.md

rehearse: setup
	test -f $(REHEARSAL)/ranks/dashscope/resources/qwen.tiktoken || $(VENV)/bin/python -m pip install --quiet --no-deps \
		--target $(REHEARSAL)/ranks --requirement benchmarks/rehearsal/requirements.txt
	$(VENV)/bin/python -m benchmarks.rehearsal.run --folder $(REHEARSAL) --photographs "$(PHOTOGRAPHS)"
