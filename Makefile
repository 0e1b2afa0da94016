# Every target installs what it needs into .venv; `uv` itself is bootstrapped into .uv when it is not there.
SHELL := /bin/bash
.DEFAULT_GOAL := help
export UV_SYSTEM_CERTS ?= 1
export UV_PROJECT_ENVIRONMENT := .venv
# Processes are started by the hundred here, and without bytecode each compiles all that it imports.
unexport PYTHONDONTWRITEBYTECODE

UV := $(shell command -v uv 2>/dev/null || echo .uv/bin/uv)
RUN := $(UV) run --no-sync

.PHONY: help env demo test check stubs bench torture clean

help:            ## this list
	@grep -E '^[a-z]+: .*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/'

.uv/bin/uv:
	python3 -m venv .uv
	.uv/bin/pip install --quiet --disable-pip-version-check uv

.venv/.synced: pyproject.toml uv.lock $(filter .uv/bin/uv,$(UV))
	$(UV) sync --quiet --locked --all-extras --all-groups
	@touch $@

env: .venv/.synced

demo: env        ## the main job end to end: pictures, a NeXus file and a report in ./demo-out
	$(RUN) hiss demo --out demo-out

test: env        ## all tests but the long torture runs
	$(RUN) pytest -q -m "not torture" -n auto --maxprocesses 4 --dist worksteal

check: env       ## lint, types, import contract, generated code up to date
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) mypy
	$(RUN) lint-imports
	$(RUN) python proto/generate.py --check

stubs: env       ## generate hiss/v1 from proto/
	$(RUN) python proto/generate.py

bench: env       ## every benchmark, with its peers
	UV=$(UV) $(RUN) python -m benchmarks.peers
	$(RUN) python -m benchmarks all

torture: env     ## the long runs: crashes, cuts, errors and simulated machines by the thousand, and a table of what came of them
	$(RUN) pytest -q -m "torture or control" -n auto --maxprocesses 4 --dist worksteal

clean:           ## remove what make built
	rm -rf .venv .uv demo-out .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
