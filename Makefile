# Every check of this project. `make` alone lists them.
#
#   PYTHON=python3.12 make test       another interpreter for .venv
#   PIP_EXTRA_INDEX_URL=... make test pip reads its own variables, e.g. for a CPU build of torch

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp
# `make lock TORCH=2.14.0` moves to another torch.
TORCH := $(shell sed -n 's/^torch==//p' requirements.lock 2>/dev/null)

# Read by tests/conftest.py; a path relative to this folder would mislead tests that run elsewhere.
export SCIKD_DATA ?= $(CURDIR)/../shared/data

# Boosting and xTB start their threads thousands of times; where others use the cores, these wait.
test test-all test-wheel: export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-all test-wheel lint types bench docs lock clean

help: ## List the targets.
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

demo: $(STAMP) ## Distil an ensemble on embedded data and write a report.
	$(BIN)/scikd demo

test: $(STAMP) ## Run the fast tests and the doctests.
	$(BIN)/python -m pytest -m "not slow" --doctest-modules

test-all: $(STAMP) ## Run all tests, the slow ones too.
	$(BIN)/python -m pytest --doctest-modules

test-wheel: $(STAMP) ## Build the wheel, and run the fast tests against it away from the sources.
	rm -rf build/wheel
	$(BIN)/python -m build --no-isolation --outdir build/wheel/dist .
	$(PYTHON) -m venv build/wheel/venv
	@echo "The third-party packages are those of $(VENV): a line in a .pth adds its folder to the path,"
	@echo "but not what .pth files in that folder add, and so not these sources."
	$(BIN)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))" \
		> "$$(build/wheel/venv/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/packages.pth"
	build/wheel/venv/bin/python -m pip install --quiet --no-deps --force-reinstall build/wheel/dist/*.whl
	away=$$(mktemp -d) && trap 'rm -rf "$$away"' EXIT \
		&& cp -r tests benchmarks pyproject.toml "$$away" && cd "$$away" \
		&& "$(CURDIR)/build/wheel/venv/bin/python" -c "import pathlib, sys, scikd; \
		print('testing', scikd.__file__); \
		sys.exit(not pathlib.Path(scikd.__file__).is_relative_to(sys.prefix) and 'not the wheel')" \
		&& "$(CURDIR)/build/wheel/venv/bin/python" -m pytest -m "not slow" tests

lint: $(STAMP) ## Check style, format and the import contracts.
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports --no-logo

types: $(STAMP) ## Check the types, strictly.
	$(BIN)/mypy -p scikd

bench: $(STAMP) ## Run the quick benchmarks of the core.
	$(BIN)/python -m benchmarks core --quick

docs: $(STAMP) ## Build the documentation; warnings are errors.
	$(BIN)/sphinx-build -W --keep-going -b html docs docs/_build/html

lock: ## Resolve the dependencies anew, in a fresh environment, and write requirements.lock.
	@$(PYTHON) -c '$(NEW_ENOUGH)'
	rm -rf build/lock
	$(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install --quiet 'torch==$(TORCH)'
	build/lock/bin/python -m pip install --quiet '.[all,dev]'
	build/lock/bin/python -m pip freeze --all --exclude pip --exclude scikd > build/lock/freeze
	@echo "writing requirements.lock"
	@{ \
		echo '# Written by `make lock`, on Linux: torch and then .[all,dev] in a fresh environment, frozen. Local'; \
		echo '# versions (+cpu) and the CUDA packages of torch are left out: the Makefile installs torch first,'; \
		echo '# in the build that the index at hand prefers, with what that needs.'; \
		sed -E 's/\+[A-Za-z0-9.]+$$//' build/lock/freeze | grep '^torch=='; \
		sed -E 's/\+[A-Za-z0-9.]+$$//' build/lock/freeze | grep -vE '^(torch==|nvidia-|cuda-|triton)'; \
	} > build/lock/requirements.lock
	mv build/lock/requirements.lock requirements.lock
	rm -rf build/lock

clean: ## Remove builds and caches, but not .venv.
	rm -rf build dist docs/_build .coverage htmlcov scikd-report.html
	rm -rf .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find scikd md graphs finance tests benchmarks -name __pycache__ -prune -exec rm -rf {} +

NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11) and \
	f"scikd needs Python 3.11 or newer, but $(PYTHON) is {sys.version.split()[0]}; set PYTHON, e.g. PYTHON=python3.12 make test")

$(STAMP): requirements.lock pyproject.toml
	@echo "setting up $(VENV) from requirements.lock"
	@$(PYTHON) -c '$(NEW_ENOUGH)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet 'torch==$(TORCH)'
	$(BIN)/python -m pip install --quiet -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-build-isolation --no-deps -e .
	@touch $@
