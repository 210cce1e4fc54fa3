PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --constraint constraints.txt --editable
WORKERS ?= 2

# One thread per worker, or the workers fight over the cores. Each worker takes one half of the
# tests in order, so that fixtures of a module are made once, and what the other has left at the end.
SINGLE_THREAD := OMP_NUM_THREADS=1
PARALLEL := -n $(WORKERS) --dist worksteal

.PHONY: help demo test test-slow test-browser test-cuda test-wheel coverage lint docs notebooks bench wheel clean

help:
	@echo "make demo       augment real images and write a report to chartae-demo/"
	@echo "make test       run every check but the slow tests"
	@echo "make test-slow  run the slow tests"
	@echo "make test-browser  run the tests of the explorer and the reports in Chromium, if it is installed"
	@echo "make test-cuda  run the tests of models and samplers on a GPU, if there is one"
	@echo "make test-wheel  build the sdist and the wheel, install and use the wheel; part of test-slow"
	@echo "make coverage   run all but the slow tests, list the lines that none runs, and fail if they are many"
	@echo "make lint       run the checks that execute no test"
	@echo "make docs       build the documentation site in docs/_build/html/"
	@echo "make notebooks  write the pages that have code as Jupyter notebooks in docs/_build/notebooks/"
	@echo "make wheel      build the sdist and the wheel of a release in dist/"
	@echo "make bench      time chartae against plain PyTorch and Pythae"
	@echo "make clean      remove the environment and what the other targets wrote"

demo: $(VENV)/.installed
	$(BIN)/chartae demo --overwrite

lint: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint
	$(SINGLE_THREAD) $(BIN)/pytest $(PARALLEL) -m "not slow"

# Apart from `test`, because tracing every line takes half as much time again.
coverage: $(VENV)/.installed-dev
	$(SINGLE_THREAD) $(BIN)/pytest $(PARALLEL) -m "not slow" --cov

test-slow: $(VENV)/.installed-dev
	$(SINGLE_THREAD) $(BIN)/pytest $(PARALLEL) -m slow

docs: $(VENV)/.installed-docs
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going --conf-dir docs \
		--doctree-dir docs/_build/doctrees . docs/_build/html

notebooks:
	$(PYTHON) docs/generate_notebooks.py

# One process on a quiet machine: a page that is drawn late looks like one that is not drawn.
test-browser: $(VENV)/.installed-dev
	BROWSER=chromium $(BIN)/pytest -m slow tests/app/test_browser.py tests/report/test_browser.py

test-cuda: $(VENV)/.installed-dev
	$(BIN)/pytest tests/cuda

test-wheel: $(VENV)/.installed-dev
	$(SINGLE_THREAD) $(BIN)/pytest -m slow tests/test_wheel.py

wheel: $(VENV)/.installed-dev
	$(BIN)/python -m build --no-isolation

bench: $(VENV)/.installed-bench
	$(BIN)/python benchmarks/speed/run.py

clean:
	rm -rf $(VENV) chartae-demo dist docs/_build .coverage .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# The stamps: an environment is installed again only when what it is made from has changed.
$(VENV)/.installed: $(BIN)/python pyproject.toml constraints.txt
	$(INSTALL) .
	touch $@

$(VENV)/.installed-dev: $(BIN)/python pyproject.toml constraints.txt
	$(INSTALL) ".[dev]"
	touch $@ $(VENV)/.installed

$(VENV)/.installed-bench: $(BIN)/python pyproject.toml constraints.txt
	$(INSTALL) ".[bench]"
	touch $@ $(VENV)/.installed

$(VENV)/.installed-docs: $(BIN)/python pyproject.toml constraints.txt
	$(INSTALL) ".[docs]"
	touch $@ $(VENV)/.installed
