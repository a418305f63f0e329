# `make help` lists the targets. Every one sets the checkout up first if need be.
#
#   ACCELERATOR=cuda make quickstart    installs and uses the GPU build
#   PYTHON=/path/to/python3.11 make     another Python than that of the PATH

.DEFAULT_GOAL := help
.PHONY: help setup quickstart test check format doctor lock clean

BIN := .venv/bin
CODE := .
# Spinning threads of one library starve those of another on a small machine.
export OMP_WAIT_POLICY ?= PASSIVE
# Tests run many small models: one thread each is fastest, and gives equal digits.
TEST_ENV := OMP_NUM_THREADS=1

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

setup: ## create .venv and install the pinned packages; does nothing when done
	@packaging/setup.sh

quickstart: setup ## the whole way on simulated data, to one ranked HTTP request
	@$(BIN)/recsys-mtl run quickstart --output runs/quickstart --overwrite --request

test: setup ## run all tests
	@$(TEST_ENV) $(BIN)/pytest

check: setup ## everything that must hold: format, lint, types, imports, tests
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/mypy
	$(BIN)/lint-imports
	@$(TEST_ENV) $(BIN)/pytest

format: setup ## rewrite the code as `make check` wants it
	$(BIN)/ruff format $(CODE)
	$(BIN)/ruff check --fix $(CODE)

doctor: setup ## say whether this machine is fit, and what to do where it is not
	@$(BIN)/recsys-mtl doctor

lock: setup ## write requirements/*.txt from the installed versions
	@$(BIN)/python packaging/lock.py

clean: ## remove what is built or cached; keeps .venv and runs
	rm -rf build *.egg-info packaging/*/*.egg-info packaging/*/build
	rm -rf .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find recsys_mtl pipelines serving tests -name __pycache__ -type d -prune -exec rm -rf {} +
