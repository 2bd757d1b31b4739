# `make lab` and `make test` create the environments that they need; `make help` lists the rest.

PYTHON ?= python3
VENV ?= .venv
COLAB_VENV ?= .venv-colab
TORCH_INDEX ?=

BIN := $(VENV)/bin
LAB := $(VENV)/.installed-lab
TEST := $(VENV)/.installed-test
COLAB := $(COLAB_VENV)/.installed
INSTALL := -m pip install --quiet --disable-pip-version-check $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))

.PHONY: help lab test environments notebooks bench pins clean check-python

help:
	@echo "make lab        open the course in JupyterLab"
	@echo "make test       run every test; ends with one summary"
	@echo "make notebooks  write the notebooks and figures from notebooks/src"
	@echo "make bench      run the benchmarks; each prints its figures"
	@echo "make pins       write constraints.txt from what is installed now"
	@echo "make clean      remove the environments and whatever tests leave"
	@echo
	@echo "On Linux, torch brings several GB of GPU libraries. Without an NVIDIA GPU take the small one:"
	@echo "    make lab TORCH_INDEX=https://download.pytorch.org/whl/cpu"
	@echo "Another Python (3.11 or newer) for a new environment:"
	@echo "    make lab PYTHON=python3.12"

# Trusted notebooks may run the scripts of their saved widgets as soon as they are opened.
lab: $(LAB)
	$(BIN)/jupyter trust notebooks/*.ipynb
	$(BIN)/jupyter lab notebooks/00_*.ipynb

test:
	@$(MAKE) --no-print-directory -j2 environments
	$(BIN)/python tests/run_all.py --colab-python $(COLAB_VENV)/bin/python

environments: $(TEST) $(COLAB)

notebooks: $(TEST)
	$(BIN)/python notebooks/build.py build

bench: $(TEST)
	@set -e; for benchmark in tests/benchmarks/bench_*.py; do echo "== $$benchmark"; $(BIN)/python $$benchmark; done

pins: $(TEST)
	$(BIN)/python -m pip list --format=freeze --exclude pip --exclude nlcore > constraints.new
	sed -E 's/\+[a-z0-9.]+$$//' constraints.new | LC_ALL=C sort -f > constraints.sorted
	sed -n '/^#/p' constraints.txt | cat - constraints.sorted > constraints.new
	mv constraints.new constraints.txt
	rm constraints.sorted

clean:
	rm -rf $(VENV) $(COLAB_VENV) build dist *.egg-info test-results .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp is written after the last step, so that the next call finishes what was interrupted; an environment that
# exists is brought up to date, not made anew.
$(LAB): pyproject.toml constraints.txt | check-python
	$(PYTHON) -m venv $(VENV)
	@echo "Installing the course into $(VENV) (some minutes the first time) ..."
	$(BIN)/python $(INSTALL) -c constraints.txt -e ".[lab]"
	@touch $@

$(TEST): pyproject.toml constraints.txt | check-python
	$(PYTHON) -m venv $(VENV)
	@echo "Installing the course and its tests into $(VENV) (some minutes the first time) ..."
	$(BIN)/python $(INSTALL) -c constraints.txt -e ".[lab,test]"
	@touch $(LAB) $@

$(COLAB): constraints-colab.txt | check-python
	$(PYTHON) -m venv $(COLAB_VENV)
	@echo "Installing what Colab has into $(COLAB_VENV) (some minutes the first time) ..."
	$(COLAB_VENV)/bin/python $(INSTALL) --no-compile -r constraints-colab.txt
	$(COLAB_VENV)/bin/python -m pip download --quiet --no-deps -c constraints-colab.txt -d $(COLAB_VENV)/wheels setuptools
	@touch $@

check-python:
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit("nlcore needs Python 3.11 or newer; $(PYTHON) is %d.%d. Try for example: make lab PYTHON=python3.12" % v[:2])'
