# make reproduce: set up, rerun what changed, say where to look.   make test: set up, check, test.
PYTHON ?= $(firstword $(shell command -v python3.11 python3.12 python3.13 python3))
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed.lock

export PATH := $(CURDIR)/$(BIN):$(PATH)
export MLFLOW_DISABLE_TELEMETRY := true
export MLFLOW_SERVER_ENABLE_JOB_EXECUTION := false
export DVC_NO_ANALYTICS := 1

.PHONY: reproduce test check unit bench pictures screenshots ui setup format lock clean help

reproduce: setup  ## rerun whatever changed, and say where the results are
	dvc repro
	@echo
	@echo "Reports:    $(CURDIR)/results/notebook/report.html"
	@echo "            $(CURDIR)/results/convergence/report.html"
	@echo "MLflow UI:  make ui, then open the links that the stage track printed"
	@echo "            (also in results/<experiment>/mlflow_links.html)"

test: check unit  ## lint, types, import contract and the whole test suite

unit: setup
	pytest

check: setup  ## lint, types, import contract
	ruff check
	ruff format --check
	mypy
	lint-imports

bench: setup  ## the kernel beside its peers and how its cost grows; writes docs/performance.md
	python -m benchmarks.kernel
	python -m benchmarks.compression
	python -m benchmarks.scaling

pictures: setup  ## the pictures of the README and the docs
	python docs/pictures.py

screenshots: setup  ## the pictures of docs/mlflow.md (needs Chromium)
	python -m tests.browser.screenshots

ui: setup  ## the MLflow UI on http://127.0.0.1:5000
	mlflow server --backend-store-uri sqlite:///mlflow.db --artifacts-destination mlartifacts \
	  --host 127.0.0.1 --port 5000 --workers 1

setup: $(INSTALLED)

# The copy of the lock is written last: an installation cut short is taken up again.
$(INSTALLED): requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	cp $< $@

format: setup  ## bring the code into the house format
	ruff check --fix
	ruff format

lock:  ## compile requirements.lock from pyproject.toml (needs uv)
	UV_CUSTOM_COMPILE_COMMAND="make lock" uv pip compile pyproject.toml --quiet --all-extras \
	  --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --output-file requirements.lock

clean:  ## remove caches and the environment; results stay
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find pipeline tests -name __pycache__ -prune -exec rm -rf {} +

help:
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:[^#]*## /\t/'
