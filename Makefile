# VENV=active uses the current environment (conda, say) instead of making .venv.
VENV ?= .venv
PYTHON ?= python3
PRESET ?= quick
JOBS ?= 2
EXECUTOR ?= local
PIP_ARGS ?=
ARGS ?=

export OMP_NUM_THREADS = 1

ifeq ($(VENV),active)
BIN :=
READY :=
else
BIN := $(VENV)/bin/
READY := $(VENV)/.ready
endif

.DEFAULT_GOAL := help
.PHONY: help env peers lab reproduce report results docs check test nightly lint style format clean

TESTS = $(BIN)python -m pytest -q -n $(JOBS) --dist loadfile --no-loadscope-reorder \
	--max-worker-restart 0

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1: /p' Makefile | awk -F': ' '{ printf "  make %-10s %s\n", $$1, $$2 }'

env: $(READY) ## set up .venv, pinned by requirements.lock (five to fifteen minutes, 2 GB)

peers: $(READY) ## install also what only tests, exports as parquet and trainers need
	@echo "installing TensorFlow, trainers, the site's tools and a browser's driver: 3 GB, some minutes"
	$(BIN)python -m pip install --quiet $(PIP_ARGS) -c requirements.lock -e ".[parity,parquet,integrations,docs,browser]"
	$(BIN)python -m pip install --quiet $(PIP_ARGS) -c requirements.lock --no-deps timm

lab: $(READY) ## open the notebooks in JupyterLab; git sees what is edited, not what is run
	@$(BIN)python -m cliplab.lab.notebook.saving
	$(BIN)jupyter lab notebooks --FileContentsManager.post_save_hook=cliplab.lab.notebook.saving.refresh $(ARGS)

reproduce: $(READY) ## run the collection, one report of answers (PRESET=quick JOBS=2 EXECUTOR=local)
	$(BIN)cliplab run --preset $(PRESET) --jobs $(JOBS) --executor $(EXECUTOR) $(ARGS)

report: $(READY) ## write the HTML report of the last batch again
	$(BIN)cliplab report

results: $(READY) ## run the registered studies, publish their rows, regenerate RESULTS.md and README.md
	$(BIN)cliplab run --preset verdict --jobs $(JOBS) --executor $(EXECUTOR) $(ARGS)
	$(BIN)cliplab report --preset verdict --publish

docs: $(READY) ## build the documentation, docs/_build/docs/index.html
	@$(BIN)python -c "import furo, myst_nb, sphinx_copybutton" 2>/dev/null \
		|| $(BIN)python -m pip install --quiet $(PIP_ARGS) -c requirements.lock -e ".[docs]"
	TF_CPP_MIN_LOG_LEVEL=3 $(BIN)python -m sphinx -W --keep-going -q -c docs . docs/_build
	@echo "docs/_build/docs/index.html"

check: lint ## lint, types, and the tests of the core, for the loop of editing
	$(TESTS) -m "not slow and not nightly" tests cliplab \
		--ignore tests/lab --ignore tests/cli --ignore cliplab/lab --ignore cliplab/cli

test: style ## lint, types, and all tests, the notebooks included; types beside the tests
	@$(BIN)python -m compileall -q cliplab  # once, for hundreds of processes
	@said=$$(mktemp); $(BIN)mypy > $$said 2>&1 & types=$$!; \
	echo "$(TESTS)"; $(TESTS); tests=$$?; \
	wait $$types; types=$$?; echo mypy; cat $$said; rm -f $$said; \
	test $$tests = 0 && test $$types = 0

nightly: $(READY) ## what is long or random (a hundred kills, all notebooks in JupyterLab, all fingerprints)
	$(TESTS) -m "nightly or hypothesis" --hypothesis-profile nightly

lint: style ## lint and types
	$(BIN)mypy

style: $(READY)
	$(BIN)ruff check .
	$(BIN)ruff format --check .

format: $(READY) ## format the code
	$(BIN)ruff check --fix .
	$(BIN)ruff format .

clean: ## remove results, reports and caches (keeps .venv and fetched data)
	rm -rf results reports docs/_build .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/.ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "cliplab needs Python 3.11 or newer; set PYTHON=/path/to/python3" >&2; exit 1; }
	@echo "making $(VENV): torch, JupyterLab and what else requirements.lock pins, 2 GB (more with CUDA)."
	@echo "Four minutes on a fast line, a quarter of an hour on a busy machine; pip says what it does:"
	$(PYTHON) -m venv $(VENV)
	$(BIN)python -m pip install --disable-pip-version-check --progress-bar off $(PIP_ARGS) \
		-c requirements.lock -e ".[lab,games,speech,cluster,dev]"
	@echo "$(VENV) is ready: make reproduce PRESET=smoke, make lab, make test"
	@touch $@
