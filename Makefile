# Everything runs in .venv, made here by the first target that needs it. `make PYTHON=python3.12 test` chooses another
# interpreter; Python 3.11 is the one that constraints.txt was resolved on.
PYTHON ?= $(shell command -v python3.11 || echo python3)
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt

.PHONY: demo docs test test-cluster lint bench fuzz viewer clean
# Two targets would otherwise install into one .venv at the same time under `make -j`.
.NOTPARALLEL:
.DELETE_ON_ERROR:

demo: .venv/demo.stamp
	$(BIN)/python -m apps.demo

# Of one domain: `make demo-medical`, `make demo-earth`, `make demo-sky`.
demo-%: .venv/demo.stamp
	$(BIN)/python -m apps.demo $*

test: lint
	$(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile

# Starts a SLURM of three nodes on this machine; see docs/how-to/run-on-a-cluster.md.
test-cluster: .venv/test.stamp
	$(BIN)/python -m pytest tests/cluster

lint: .venv/test.stamp
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/codespell apps astrovision docs findings geovision medvision pipelines shared_backbones tests *.md

# Pages in site/, with a report of each kind; a warning, such as of a dead link, is an error.
docs: .venv/test.stamp
	$(BIN)/python -m apps.manual
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	$(BIN)/python -m apps.gallery site

bench: .venv/test.stamp
	$(BIN)/python -m pytest -q -s tests/benchmarks

# Ten minutes of changed files over every reader; what it finds becomes a case of tests/hostile.
fuzz: .venv/test.stamp
	$(BIN)/python -m tests.hostile.fuzz

# The viewer of reports; needs Node and npm. Where it was not built, reports do without.
viewer: pipelines/report/assets/viewer.js.gz

pipelines/report/assets/viewer.js.gz: $(addprefix apps/review/, package-lock.json build.mjs viewer.js LICENSE-niivue.txt)
	cd apps/review && npm ci --ignore-scripts --no-audit --no-fund && npm run --silent build

clean:
	rm -rf apps/review/node_modules pipelines/report/assets
	rm -rf .venv demo-output site dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/%.stamp: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(INSTALL) --editable ".[$*]"
	touch $@
