# Each target does all its set-up by itself and is quick the second time.
PYTHON ?= python3.11
BIN := .venv/bin
INSTALLED := .venv/installed
SLURM_PACKAGES := slurm-wlm slurmdbd munge iproute2 mariadb-server-core mariadb-client-core

.PHONY: demo test lint bench sandbox clean

demo: $(INSTALLED)  ## A real search over Fashion-MNIST on this machine, down to its CSV files.
	@.ci/packages dataset-fashion-mnist
	$(BIN)/hpc-tune run experiments/fashion_mnist/asha.toml

test: $(INSTALLED)  ## Everything that must pass: style, types, and all rings of tests.
	@.ci/packages dataset-fashion-mnist shellcheck chromium $(SLURM_PACKAGES)
	$(MAKE) --no-print-directory lint
	$(BIN)/pytest

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(INSTALLED)  ## hpc-tune beside the ways it replaces, as one table; takes 40 minutes; parts of it as root.
	@.ci/packages dataset-fashion-mnist $(SLURM_PACKAGES)
	$(BIN)/python -m tests.benchmarks --json bench.json

sandbox: $(INSTALLED)  ## A throw-away Slurm of four nodes; see the README.
	$(BIN)/python -m hpc_tune_slurm.sandbox up --install

clean:
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache

$(INSTALLED): pyproject.toml .ci/constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is missing; name another with: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || .ci/packages python3-venv
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint .ci/constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint .ci/constraints.txt --editable '.[examples,keras,dev]'
	@touch $@
