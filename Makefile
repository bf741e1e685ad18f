# Cohortflow. `make demo` shows the main job; `make test` passes the tests; `make help` lists the rest.

SHELL := /bin/sh
PYTHON ?= python3
UV_VERSION := 0.13.9
UV := .tools/bin/uv
BIN := .venv/bin
READY := .venv/.ready
LAKE ?=
PATIENTS ?= 200

export UV_NO_PROGRESS := 1
export UV_PYTHON_DOWNLOADS := never
# Airflow takes seconds to import where Python may not keep what it compiled.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo up down test check lint bench bench-kernels bench-peers docs schema lock format clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'

setup: $(READY) ## Make .venv with every locked dependency

$(UV):
	@echo "Fetching uv $(UV_VERSION)"
	@$(PYTHON) -m pip install --quiet --disable-pip-version-check --target .tools uv==$(UV_VERSION)

$(READY): requirements.lock pyproject.toml | $(UV)
	@echo "Installing into .venv"
	@$(UV) venv --quiet --allow-existing --python $(PYTHON) .venv
	@$(UV) pip sync --quiet --require-hashes --python $(BIN)/python requirements.lock
	@$(UV) pip install --quiet --no-deps --python $(BIN)/python --editable .
	@touch $@

demo: $(READY) ## Run the nightly study end to end; LAKE=./lake for a folder instead of S3
	@$(BIN)/python tools/demo.py --patients $(PATIENTS) $(if $(LAKE),--lake "$(LAKE)")

up: $(READY) ## Start Airflow with its UI, the sandbox EHR and S3 on loopback
	@$(BIN)/python tools/up.py start

down: $(READY) ## Stop what `make up` started
	@$(BIN)/python tools/up.py stop

# Four at a time on two cores: tests with real servers mostly wait.
test: $(READY) ## Run all tests
	@$(BIN)/pytest -n 4 --dist loadfile --no-loadscope-reorder

check: lint ## Lint, types, layers, documentation and the fast tests
	$(BIN)/pytest -m "not integration" -n 2

lint: $(READY) ## Lint, types, layers and documentation
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yaml
	$(BIN)/mkdocs build --quiet --strict --site-dir .cohortflow/site

bench: bench-kernels bench-peers ## Measure throughput beside limits and beside other tools

bench-kernels: $(READY) ## Measure each kernel beside a limit or a plain equivalent
	@$(BIN)/python tests/bench/run.py

bench-peers: $(READY) ## Measure whole processes beside other tools, each in an environment of its own
	@$(BIN)/python tests/bench/peers/compare.py
	@$(BIN)/python tests/bench/peers/compare_risk.py

docs: $(READY) ## Build the documentation into site/
	@$(BIN)/mkdocs build --strict

schema: $(READY) ## Write the JSON Schemas of studies and templates
	@$(BIN)/cohortflow schema write

lock: $(UV) ## Resolve requirements.txt anew into requirements.lock
	@$(UV) pip compile requirements.txt --group dev --generate-hashes --universal --python-version 3.11 \
	  --no-emit-index-url --custom-compile-command "make lock" --quiet --output-file requirements.lock

format: $(READY) ## Format the code
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

clean: ## Remove everything that was made here
	@if [ -x $(BIN)/python ]; then $(BIN)/python tools/up.py stop; fi
	@rm -rf .venv .tools .cohortflow .mypy_cache .ruff_cache .pytest_cache .hypothesis site build
