# Each target is one `python -m ...` line, so that everything works without Make too.
VENV   ?= .venv
PYTHON ?= python3
TORCH_INDEX ?=
PRESET ?=
DATASET ?=
MODEL ?=
RUNS ?=
NOTEBOOKS ?=
PARAMS ?=
CLUSTER ?= $(STABUTILS_CLUSTER)
SAMPLE ?= 3
SEED ?= 0

PY    := $(VENV)/bin/python
READY := $(VENV)/.ready
TORCH := $(shell grep '^torch==' requirements.lock)

# One thread a process: runs go to as many processes as there are cores, and bits do not depend on the machine's load.
export OMP_NUM_THREADS := 1
export MKL_NUM_THREADS := 1
# A Dask scheduler's address, or `local`: trainings go there.
export STABUTILS_CLUSTER := $(CLUSTER)

# PARAMS="epochs=4 seed=7"  ->  -p 'epochs' '4' -p 'seed' '7'
name  = $(firstword $(subst =, ,$(1)))
pair  = -p '$(call name,$(1))' '$(patsubst $(call name,$(1))=%,%,$(1))'
check = $(if $(findstring =,$(1)),$(call pair,$(1)),$(error PARAMS: got $(1); expected name=value))
ARGUMENTS = $(if $(PRESET),--preset '$(PRESET)') $(if $(DATASET),-p dataset '$(DATASET)') \
	$(if $(MODEL),-p model '$(MODEL)') $(if $(RUNS),-p runs '$(RUNS)') $(foreach p,$(PARAMS),$(call check,$(p)))

.DEFAULT_GOAL := help
.PHONY: help setup study test mutants lab notebooks publish figures site verify benchmark course bundle clean

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1|/p' Makefile | while IFS='|' read -r t d; do printf '%-18s %s\n' "$$t" "$$d"; done
	@echo
	@echo '  Variables of study and publish:  PRESET=quick|course|full|paper  DATASET=massive  MODEL=compact  RUNS=10'
	@echo '                                   NOTEBOOKS="01 02"  PARAMS="epochs=4 seed=7"'
	@echo '                                   CLUSTER=tcp://10.0.0.1:8786  (a Dask scheduler, or local)'
	@echo '  Variables of verify:             SAMPLE=3  SEED=0'
	@echo '  Variables of setup:              PYTHON=python3.12  TORCH_INDEX=<address of a torch build>'

setup: $(READY) ## make the private environment .venv with the tested versions

study: $(READY) ## run the study's notebooks; reports and figures go to results/
	$(PY) -m stabutils run $(NOTEBOOKS) $(ARGUMENTS)

# A cell may take ten minutes: the longest trains 35 runs, three minutes on two free cores, and CI's are not always free.
# Files go in this order, the long notebooks first: sorted by number of tests, xdist's way, one core would wait for them.
test: $(READY) ## lint and check types, then all tests, the notebooks included
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PY) -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder \
		--nbval-lax --nbval-current-env --nbval-cell-timeout=600 notebooks tests stabutils

# Not in CI. What survives is listed; `.mutvenv/bin/python -m mutmut show NAME` says what it is.
mutants: .mutvenv/.ready ## change the code of the metrics in one place at a time: does a test notice?
	nice -n 10 .mutvenv/bin/python -m mutmut run
	.mutvenv/bin/python -m mutmut results

lab: $(READY) ## open the notebooks in JupyterLab
	$(PY) -m jupyter lab

notebooks: $(READY) ## execute the committed notebooks at their defaults, in place
	$(PY) -m stabutils notebooks $(NOTEBOOKS)

publish: $(READY) ## write the published study: records/
	$(PY) -m stabutils publish $(NOTEBOOKS) $(ARGUMENTS)

figures: $(READY) ## make figures/ from records/
	$(PY) -m stabutils figures

site: $(READY) ## the book, as pages to browse and search without network: site/
	$(PY) -m stabutils site

verify: $(READY) ## train a random sample of the stored runs again and compare
	$(PY) -m stabutils verify --sample '$(SAMPLE)' --seed '$(SEED)'

benchmark: $(READY) ## time the training loop against what people would use: records/benchmark.json
	$(PY) benchmarks/benchmark.py

course: $(READY) ## execute course/solutions and write the student versions to course/exercises
	$(PY) course/release.py

# The runs of the course's preset are trained first, once.
bundle: $(READY) ## write bundle/, a folder for a room without network: wheels, notebooks, course, trained runs
	$(PY) -m stabutils run --preset course
	$(PY) course/bundle.py $(if $(TORCH_INDEX),--torch-index '$(TORCH_INDEX)')

clean: ## remove caches and builds; keeps .venv, runs/ and results/
	rm -rf build dist mutants ./*.egg-info .pytest_cache .hypothesis .ruff_cache .mypy_cache .coverage
	find . -path './$(VENV)' -prune -o \( -name __pycache__ -o -name .ipynb_checkpoints \) -type d -prune -exec rm -rf {} +

# torch first and by itself, so that TORCH_INDEX governs it alone; an installed build of the locked version is kept.
$(READY): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit("PYTHON: got " + sys.version.split()[0] + "; expected 3.11 or newer" if sys.version_info < (3, 11) else 0)'
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) $(TORCH)
	$(PY) -m pip install -r requirements.lock
	$(PY) -m pip install --no-deps -e .
	@touch $@

# mutmut and what it needs stay out of the tested environment, which they only look into.
.mutvenv/.ready: $(READY)
	$(PY) -m venv .mutvenv
	.mutvenv/bin/python -m pip install mutmut==3.8.1
	$(PY) -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > \
		"$$(.mutvenv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/tested.pth"
	@touch $@
