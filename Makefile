# Every target needs only Python 3.11 or newer, and makes .venv by itself.

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Found by running it: a version manager's python3.11 may be on the path and still refuse to start.
PYTHON ?= $(shell for python in python3.11 python3; do $$python -c '' 2>/dev/null && echo $$python && break; done)
FOUND = $(if $(PYTHON),$(shell $(PYTHON) --version 2>/dev/null))
TOO_OLD = Expected Python 3.11 or newer, but got $(or $(FOUND),none). \
	Install Python 3.11 with its venv module, or name one: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)

# As on a processor of another kind: what PyTorch, its libraries and the compiled loops use of this one is as little as
# any has. Numbers come out differently rounded then.
PLAIN := ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 MKL_ENABLE_INSTRUCTIONS=SSE4_2 NUMBA_CPU_NAME=generic
# Which tests test-plain runs, of which folders.
NUMERICAL ?= numerical
PLAIN_TESTS ?= tests
# In the order of tests/conftest.py: files that take long come first.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q --durations=10 --numprocesses auto --dist loadfile \
	--no-loadscope-reorder

.PHONY: help fit test test-plain test-oldest lint bench dist

help:
	@echo 'make fit         train recipes/merge.yaml and print its error table'
	@echo 'make test        run all tests'
	@echo 'make test-plain  run those that compare numbers as on a processor with no special instructions'
	@echo 'make test-oldest run fast tests with the oldest releases that pyproject.toml allows, in .venv-oldest'
	@echo 'make lint        check style, formatting and types'
	@echo 'make bench       measure speed and memory beside peers (hours), into benchmarks/results'
	@echo 'make dist        build the packages to publish into dist/, and try the wheel in an environment of its own'

fit: $(STAMP)
	$(BIN)/python -m lightning_ham.fit recipes/merge.yaml

# Counting lines makes a test a third slower or more, so it stops for slow and numerical ones (tests/conftest.py).
test: $(STAMP)
	$(PYTEST) --cov=lightning_ham --cov-report=
	@echo 'Coverage in percent, without slow tests, numerical tests and subprocesses:'
	@$(BIN)/python -m coverage report --format=total

test-plain: $(STAMP)
	$(PLAIN) $(PYTEST) -m '$(NUMERICAL)' $(PLAIN_TESTS)

# A download of gigabytes on Linux, where PyTorch comes with CUDA.
test-oldest: $(STAMP)
	$(PYTHON) -m venv --clear .venv-oldest
	.venv-oldest/bin/python -m pip install --constraint constraints-oldest.txt --editable '.[dev]'
	OMP_NUM_THREADS=1 .venv-oldest/bin/python -m pytest -q -m 'not slow' --numprocesses auto --dist loadfile \
		--ignore tests/test_benchmarks.py tests

# The wheel is built from the sdist, so that both are whole.
dist: $(STAMP)
	rm -rf dist
	$(BIN)/python -m build --no-isolation
	LIGHTNING_HAM_WHEEL="$$(echo dist/*.whl)" $(BIN)/python -m pytest -q tests/test_wheel.py

lint: $(STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: $(STAMP)
	$(BIN)/python -m pip install --no-deps dnc==1.1.0 # asks for a flann that does not matter here
	$(BIN)/python -m benchmarks

# Prints the version of a CPU build of PyTorch, where there is one.
define CPU_BUILD
import importlib.metadata, runpy, sys
torch = importlib.metadata.distribution("torch")
version = runpy.run_path(str(torch.locate_file("torch/version.py")))
if sys.version_info >= (3, 11) and not any(version.get(kind) for kind in ("cuda", "hip", "xpu")):
    print(torch.version)
endef
export CPU_BUILD

# A CPU build of PyTorch that is in the environment is kept, whatever its version: what pip would bring is for GPUs too.
$(STAMP): pyproject.toml constraints.txt
	@$(or $(PYTHON),false) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { echo '$(TOO_OLD)' >&2; exit 1; }
	@kept=$$($(BIN)/python -c "$$CPU_BUILD" 2>/dev/null); \
	if [ -n "$$kept" ]; then \
		echo "Keeping PyTorch $$kept, a CPU build that is in $(VENV). All else is 0.2 GB to download."; \
		sed "s/^torch==.*/torch==$$kept/" constraints.txt > $(VENV)/constraints.txt; \
	else \
		echo "To download: 3 GB on Linux, where PyTorch comes with CUDA, elsewhere 0.4 GB. README.md says how to do with less."; \
		$(PYTHON) -m venv --clear $(VENV) && cp constraints.txt $(VENV)/constraints.txt; \
	fi
	$(BIN)/python -m pip install --constraint $(VENV)/constraints.txt --editable '.[dev]'
	touch $@
