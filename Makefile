PYTHON ?= python3
VENV_PYTHON := .venv/bin/python
# The checkout itself too, since mmengine 0.10.7 finds the configs of an editable installation by its egg-info alone.
OPENMMLAB := PYTHONPATH="$(CURDIR)/.venv/openmmlab:$(CURDIR)"
# Two workers on two cores: more threads per worker would only make them wait for each other.
PYTEST := OMP_NUM_THREADS=1 $(VENV_PYTHON) -m pytest -n 2 --doctest-modules kgl_mm tests
SLOW := not slow

# A PYTHONPATH of the shell would be imported before what is installed here.
unexport PYTHONPATH
.PHONY: help venv venv-openmmlab demo test test-all test-onedl test-openmmlab lint

help:  ## show this list
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1: \2/p' Makefile

venv:  ## create .venv with the tested, pinned set (PYTHON=python3.12 chooses the Python)
	@command -v "$(PYTHON)" >/dev/null || { echo "make venv: there is no $(PYTHON) here; install Python 3.11 or 3.12, or name one: make venv PYTHON=/path/to/python" >&2; exit 1; }
	@"$(PYTHON)" tools/make_venv.py

venv-openmmlab: venv
	@"$(PYTHON)" tools/make_venv.py openmmlab

demo: venv  ## train and test on the embedded data set
	$(VENV_PYTHON) tools/train.py configs/kgl_demo.py

test: test-onedl test-openmmlab  ## run the fast tests and doctests with both mm families

test-all: SLOW :=
test-all: test  ## run the slow tests as well

test-onedl: venv
	$(PYTEST) -m "$(SLOW)" --cov

test-openmmlab: venv-openmmlab  ## run the tests with the OpenMMLab family over the same torch
	$(OPENMMLAB) $(VENV_PYTHON) -m kgl_mm doctor
	$(OPENMMLAB) $(PYTEST) -m "$(SLOW)"

lint: venv  ## check style and format
	$(VENV_PYTHON) -m ruff check
	$(VENV_PYTHON) -m ruff format --check
