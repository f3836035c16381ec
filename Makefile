# SPDX-License-Identifier: BSD-2-Clause
# Needs Python 3.10, make and g++; everything else goes into .venv. `make help` lists the targets.

SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/stamps
TORCH_VENV := .venv-torch
SAY := printf '[dragon_optim] %s\n'
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input install -q

CXX_SOURCES := $(wildcard kernels/*.h kernels/*.cc kernels/cpu/*.h kernels/cpu/*.cc \
  dragon_optim/csrc/*.h dragon_optim/csrc/*.cc dragon_optim/csrc/cuda/*.h dragon_optim/csrc/cuda/*.cc \
  dragon_optim/csrc/exports.map)
BUILDERS := setup.py $(wildcard scripts/native_build/*.py)
BUILT := dragon_optim/_lib/build_info.json

# An environment whose interpreter has been removed is made anew.
ifneq ($(shell $(BIN)/python -c 'print(1)' 2>/dev/null),1)
.PHONY: $(STAMPS)/venv
endif

.PHONY: help demo test lint format bench docs build cuda clean compiler
.DEFAULT_GOAL := help

help:
	@echo 'make demo    train on handwritten digits, write out/digits.png    (first time: about 3 minutes)'
	@echo 'make test    build and run the tests'
	@echo 'make lint    format, lint, types, layers: what CI asks for        make format  do what lint can do by itself'
	@echo 'make bench   beside stock Dragon, PyTorch and memory: 10 minutes  make docs    the site, in docs/_build/html'
	@echo 'make build   only build the libraries in place                    make clean   remove everything that was made'
	@echo 'make cuda    the CUDA kernels, in build/native (needs nvcc, no GPU)'
	@echo 'PYTHON=...   the Python to make .venv with                        CXX=...      the compiler, g++ by default'

demo: compiler build $(STAMPS)/demo
	@$(SAY) 'training on handwritten digits, result in out/digits.png (about 30 seconds)'
	@$(BIN)/python examples/digits.py

# The demo's requirements too: the examples are tested. Whole files go to a process: many share one costly start.
test: compiler build $(STAMPS)/test $(STAMPS)/demo
	@$(SAY) 'running the tests (about 5 minutes on two cores)'
	@$(BIN)/python -m pytest -q -n auto --maxprocesses 8 --dist loadfile tests

lint: $(STAMPS)/lint
	@$(SAY) 'ruff: lint and format';  $(BIN)/ruff check . && $(BIN)/ruff format --check .
	@$(SAY) 'clang-format';           $(BIN)/clang-format --dry-run -Werror $$(sh scripts/cxx_files.sh)
	@$(SAY) 'mypy';                   $(BIN)/mypy
	@$(SAY) 'layers';                 sh scripts/check_layers.sh

format: $(STAMPS)/lint
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format . && $(BIN)/clang-format -i $$(sh scripts/cxx_files.sh)

# The demo's requirements: a progress bar and plots. PyTorch where it can be had; without it, its columns are missing.
bench: compiler build $(STAMPS)/demo
	@test -n "$$DRAGON_OPTIM_TORCH_PYTHON" || { \
	  $(SAY) 'PyTorch, to compare with, in $(TORCH_VENV) (first time: a large download)'; \
	  sh scripts/torch_environment.sh $(TORCH_VENV); } || $(SAY) 'measuring without PyTorch'
	@$(BIN)/python -m benchmarks

docs: compiler build $(STAMPS)/docs
	@$(BIN)/sphinx-build -q -W --keep-going -b html docs docs/_build/html
	@$(SAY) 'docs/_build/html/index.html'

# Needs neither .venv nor a GPU: any Python from 3.8 on will do.
cuda: compiler
	@python3 scripts/build_cuda.py

build: compiler $(BUILT) $(STAMPS)/install

clean:
	rm -rf $(VENV) $(TORCH_VENV) build dist out docs/_build dragon_optim/_lib ./*.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Asked first, so that nobody waits for downloads to learn that the compiler is missing.
compiler:
	@for cxx in $(if $(filter default,$(origin CXX)),g++ c++ clang++,$(or $(firstword $(CXX)),g++)); do \
	  command -v "$$cxx" >/dev/null && exit 0; done; \
	$(SAY) 'no C++ compiler: install g++ (Debian and Ubuntu: apt-get install g++), or set CXX' >&2; exit 1

$(STAMPS)/venv: .python-version
	@python=$$(sh scripts/find_python.sh) || exit 1; \
	$(SAY) "creating $(VENV) with $$python"; \
	"$$python" -m venv --clear $(VENV) && mkdir -p $(STAMPS) && touch $@

$(STAMPS)/base: $(STAMPS)/venv pyproject.toml
	@$(SAY) 'installing Dragon, numpy and the build tools (30 MB: some 10 seconds to a minute)'
	@$(BIN)/python scripts/requirements.py build runtime > $@.txt && $(PIP) -r $@.txt && touch $@

# One stamp for each extra of pyproject.toml.
$(STAMPS)/test $(STAMPS)/demo $(STAMPS)/docs $(STAMPS)/lint: $(STAMPS)/%: $(STAMPS)/base pyproject.toml
	@$(SAY) 'installing what "make $*" needs besides (test: 2 MB, lint: 30 MB, docs: 20 MB, demo: 80 MB)'
	@$(BIN)/python scripts/requirements.py runtime $* > $@.txt && $(PIP) -r $@.txt && touch $@

# Compiles what has changed; setup.py says which files, one line each.
$(BUILT): $(STAMPS)/base $(BUILDERS) $(CXX_SOURCES)
	@$(SAY) 'building the native libraries (from nothing: half a minute on two cores)'
	@$(BIN)/python setup.py -q build_ext --inplace
	@touch $@

# Editable: Python sources need no second install. After the build, so that there is nothing left to compile.
$(STAMPS)/install: $(STAMPS)/base pyproject.toml $(BUILDERS) dragon_optim/_version.py | $(BUILT)
	@$(SAY) 'installing the package into $(VENV), editable'
	@$(PIP) --no-deps --no-build-isolation -e . && touch $@
