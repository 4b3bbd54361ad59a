# Everything a person types. Each target sets up what it needs first; the second time that costs a second.
#
#   make demo     from nothing to a trained, evaluated and queried classifier
#   make test     all tests
#   make help     the other targets

PYTHON ?=
VENV ?= .venv
PYTEST_ARGS ?=
HEAD_ARGS ?= --preset quick
PAIRS_ARGS ?= --seeds 201-208
TEST_WORKERS ?= 2

BIN := $(VENV)/bin
# bench_pairs.py trains for an hour and measures no speed; bench_arcface.py needs a checkout.
SPEED_BENCHES := $(filter-out %/bench_pairs.py %/bench_arcface.py,$(wildcard benchmarks/bench_*.py))
# A virtual environment that happens to be active, or a PYTHONPATH, must not leak into ours.
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-gpu test-slurm lint format bench bench-loss bench-data bench-head bench-pairs bench-audit doctor clean distclean

help: ## show this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' Makefile
	@echo "  Variables: PYTHON=python3.12 (which interpreter), VENV=.venv, PYTEST_ARGS='-k loss',"
	@echo "             BENCH_ARGS='--preset h100'"

setup: ## virtual environment, pinned packages, FFCV, native loss (only what is missing or changed)
	@python="$$(sh scripts/find_python.sh "$(PYTHON)" "$(VENV)/bin/python")" && \
	    "$$python" -I scripts/setup_environment.py --venv "$(VENV)"

demo: setup ## the whole way on the embedded faces: pack, train, evaluate, classify
	@$(BIN)/pairdistill demo

test: setup ## all tests (PYTEST_ARGS, TEST_WORKERS)
	@$(BIN)/python -m pytest -n $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

test-gpu: setup ## the tests that need a GPU; an error where torch sees none (PYTEST_ARGS)
	@PAIRDISTILL_TEST_GPU=1 $(BIN)/python -m pytest tests/gpu -n 0 $(PYTEST_ARGS)

test-slurm: setup ## tests on a real Slurm of two nodes, made for them (root on Debian or Ubuntu)
	@sh scripts/slurm_packages.sh
	@PAIRDISTILL_TEST_SLURM=1 $(BIN)/python -m pytest tests/slurm -n $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

lint: setup ## style, types and import contracts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@PATH="$(abspath $(BIN)):$$PATH" lint-imports

format: setup ## rewrite the sources in the house style
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: setup ## speed of the loss and of the data loader on this machine
	@set -e; for script in $(SPEED_BENCHES); do echo "== $$script"; $(BIN)/python "$$script"; done

bench-loss: setup ## the loss against other implementations: table, CSV and plot in docs/benchmarks (BENCH_ARGS)
	@$(BIN)/python -m distill.losses.bench --compile --save docs/benchmarks $(or $(BENCH_ARGS),--preset cpu --rounds 5)

bench-data: setup ## packing and loading against their limits: table, CSV and plot in docs/benchmarks (BENCH_ARGS)
	-@$(BIN)/python -m pip install --quiet -c constraints.txt webdataset
	@$(BIN)/python benchmarks/bench_data.py --out docs/benchmarks $(BENCH_ARGS)

bench-head: setup ## the head and its loss over ranks against plain torch: table and plot in docs/benchmarks (HEAD_ARGS)
	@$(BIN)/python benchmarks/bench_head.py --save docs/benchmarks $(HEAD_ARGS)

bench-pairs: setup ## what pairs and similarity do, over many seeds: table, CSV and plot in docs/benchmarks (PAIRS_ARGS)
	@$(BIN)/python benchmarks/bench_pairs.py --save docs/benchmarks $(PAIRS_ARGS)

bench-audit: setup ## whether leaving out misnamed photographs helps, over several seeds: a table (AUDIT_ARGS)
	@$(BIN)/python benchmarks/bench_audit.py --work runs/audit $(AUDIT_ARGS)

doctor: setup ## what works on this machine, and the fix for what does not
	@$(BIN)/pairdistill doctor

clean: ## remove built files and caches (the virtual environment stays)
	@rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@rm -f distill/_kernels*.so
	@find . -name __pycache__ -type d -not -path './.venv*' -prune -exec rm -rf {} +

distclean: clean ## remove the virtual environment too
	@rm -rf "$(VENV)"
