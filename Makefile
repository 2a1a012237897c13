PYTHON ?= python3
VENV_PYTHON := .venv/bin/python
# The checkout itself too, since mmengine 0.10.7 finds the configs of an editable installation by its egg-info alone.
OPENMMLAB := PYTHONPATH="$(CURDIR)/.venv/openmmlab:$(CURDIR)"
# Two workers on two cores: more threads per worker would only make them wait for each other. A file goes to one worker,
# so that what its tests share is made once, in the order of the folders, since short files come last. One that hung and
# was ended is not replaced, since the next one would hang as well.
PYTEST := OMP_NUM_THREADS=1 $(VENV_PYTHON) -m pytest -n 2 --max-worker-restart 0 --dist loadscope --no-loadscope-reorder --doctest-modules kgl_mm tests
SLOW := not slow
# What uses neither runner, registries nor networks of the mm packages, or networks only as something to compute with,
# would find the same again with the second family; `make test-all` runs it with both.
SAME := $(addprefix --ignore=tests/, test_download.py test_files.py test_packaging.py \
	$(addprefix datasets/, test_checks.py test_splits.py test_synthetic.py) \
	$(addprefix evaluation/, test_functional.py test_intervals.py test_pixels.py test_thresholds.py) \
	$(addprefix inspection/, test_images.py test_regions.py test_result.py) \
	$(addprefix priors/, test_binarize.py test_boxes.py test_folder.py test_index.py test_judgement.py test_png.py test_quality.py) \
	$(addprefix report/, test_browser.py test_charts.py test_doubts.py) \
	$(addprefix serve/, test_app.py test_inspect.py test_browser.py) \
	$(addprefix saliency/, test_base.py test_full_grad.py test_one_pass.py test_targets.py) \
	$(addprefix visualization/, test_boxes.py test_comparison.py test_contact_sheet.py test_gallery.py test_overlay.py))

# A PYTHONPATH of the shell would be imported before what is installed here.
unexport PYTHONPATH
.PHONY: help venv venv-openmmlab demo test test-all test-onedl test-openmmlab benchmark-full coverage lint

help:  ## show this list
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1: \2/p' Makefile

venv:  ## create .venv with the tested, pinned set (PYTHON=python3.12 chooses the Python)
	@command -v "$(PYTHON)" >/dev/null || { echo "make venv: there is no $(PYTHON) here; install Python 3.11 or 3.12, or name one: make venv PYTHON=/path/to/python" >&2; exit 1; }
	@"$(PYTHON)" tools/make_venv.py

venv-openmmlab: venv
	@"$(PYTHON)" tools/make_venv.py openmmlab

demo: venv  ## train and test on the embedded data set
	$(VENV_PYTHON) tools/train.py configs/kgl_demo.py

test: test-onedl test-openmmlab  ## run the fast tests and doctests; with the second mm family what depends on it

test-all: SLOW :=
test-all: SAME :=
test-all: test  ## run all tests, the slow ones as well, with both mm families

test-onedl: venv
	$(PYTEST) -m "$(SLOW)"

test-openmmlab: venv-openmmlab  ## run what depends on the mm packages with the OpenMMLab family over the same torch
	$(OPENMMLAB) $(VENV_PYTHON) -m kgl_mm doctor
	$(OPENMMLAB) $(PYTEST) -m "$(SLOW)" $(SAME)

benchmark-full: venv  ## fill the tables at full size, for a GPU; go on where it was stopped, and say what is missing
	$(VENV_PYTHON) tools/benchmarks/full.py

coverage: venv  ## run the fast tests and say which lines they reach, which takes longer
	$(PYTEST) -m "$(SLOW)" --cov

lint: venv  ## check style and format
	$(VENV_PYTHON) -m ruff check
	$(VENV_PYTHON) -m ruff format --check
