# Every target creates and reuses .venv; the second time that takes no time.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
S3 := $(VENV)/s3
# Airflow imports a thousand modules in each of its processes: without bytecode that is minutes.
unexport PYTHONDONTWRITEBYTECODE
# A mirror set up for pip serves uv too.
ifdef PIP_INDEX_URL
export UV_DEFAULT_INDEX ?= $(PIP_INDEX_URL)
endif
UV := VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-slurm up test test-e2e test-rest test-s3 test-fast lint format bench bench-client bench-grading bench-serve bench-slurm \
  bench-history bench-stats lock tiny clean .env \
  cluster cluster-packages

help: ## list the targets
	@awk -F ':.*## ' '/^[.a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(INSTALLED) ## create .venv from the lock (every other target does it too)

$(INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v < (3, 14) else \
	  "Python 3.11, 3.12 or 3.13 is needed, and $(PYTHON) is %d.%d; try: make PYTHON=python3.12 ..." % v)'
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	@# uv is one package of the lock; it installs the others, checked against their hashes, in seconds.
	@sed -n '/^uv==/,/[^\\]$$/p' requirements.lock > $(VENV)/uv.txt
	@echo "Installing the pinned packages into $(VENV) ..."
	@$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r $(VENV)/uv.txt
	@$(UV) sync -q --require-hashes --compile-bytecode requirements.lock
	@$(UV) install -q --no-deps --no-build-isolation -e .
	@touch $@

demo: $(INSTALLED) ## a training run publishes three real tiny checkpoints to the real Airflow; the third is worse
	@$(BIN)/python include/demo/demo.py

demo-slurm: $(INSTALLED) ## the same on a real Slurm of two nodes through SSH (as root)
	@$(BIN)/python include/demo/packages.py
	@$(BIN)/python include/demo/demo.py --slurm

up: $(INSTALLED) ## Airflow with its UI, these DAGs in it; Ctrl-C stops it
	@$(BIN)/python include/demo/standalone.py

SECRETS := ADMIN_PASSWORD POSTGRES_PASSWORD API_SECRET_KEY JWT_SECRET FERNET_KEY
.env: ## make up the passwords and keys that docker compose needs; those that are there stay
	@umask 077; touch $@; for name in $(SECRETS); do \
	  grep -q "^$$name=." $@ || echo "$$name=$$(head -c 32 /dev/urandom | base64 | tr '+/' '-_')" >> $@; done
	@echo "The user is admin; the password is ADMIN_PASSWORD in $@"

cluster: $(INSTALLED) ## a real Slurm cluster on this machine (as root), for trial; Ctrl-C stops it
	@$(BIN)/python include/demo/cluster.py up

cluster-packages: $(INSTALLED) ## install what that needs (as root, with apt), or say what it is
	@$(BIN)/python include/demo/packages.py

test: lint ## all tests, those on the real Airflow and Slurm included
	@# Installs what they need where it may; what cannot be had is said, and fails on CI.
	@$(BIN)/python include/demo/packages.py tests || test "$$CI" != true
	@# What starts Airflow or Docker mostly waits for it: the others go on beside it. Each is shown when it ends.
	@$(MAKE) --no-print-directory --jobs=2 --keep-going --output-sync=target test-e2e test-rest test-s3

test-e2e: $(INSTALLED)
	$(BIN)/pytest -m "e2e and not beside"

test-rest: $(INSTALLED)
	$(BIN)/pytest -m "beside or not e2e"

test-s3: $(S3)/.installed
	PYTHONPATH=$(S3) $(BIN)/pytest tests/s3

# Amazon's provider and a server of the S3 API, beside what every user gets and not among it.
$(S3)/.installed: tests/s3/requirements.lock | $(INSTALLED)
	@rm -rf $(S3)
	@$(UV) install -q --no-deps --require-hashes --target $(S3) -r $<
	@touch $@

test-fast: $(INSTALLED) ## the tests that take under a minute together
	$(BIN)/pytest -m "not slow and not e2e"

lint: $(INSTALLED) ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(INSTALLED) ## mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: bench-client bench-grading bench-serve ## every benchmark

bench-client: $(INSTALLED) ## our client, plain AsyncOpenAI and lm-eval on one loopback server
	$(BIN)/python tests/bench/client.py

bench-grading: $(INSTALLED) ## our math grader and math-verify on the same pairs; PAIRS=… RESPONSES=… for your own
	$(BIN)/python tests/bench/grading.py $(if $(PAIRS),--pairs $(PAIRS)) $(if $(RESPONSES),--responses $(RESPONSES))

bench-serve: $(INSTALLED) ## the embedded server against what one core can decode
	$(BIN)/python tests/bench/serve.py

bench-slurm: $(INSTALLED) ## what 200 jobs on a local Slurm cost (as root); JOBS=50 for fewer
	$(BIN)/python tests/bench/slurm.py $(if $(JOBS),--jobs $(JOBS))

bench-stats: $(INSTALLED) ## false alarms and power of the verdicts, by simulation; LINEAGES=200 for fewer
	$(BIN)/python tests/bench/stats.py $(if $(LINEAGES),--lineages $(LINEAGES))

bench-history: $(INSTALLED) ## a history of 1,000 checkpoints on SQLite and PostgreSQL; CHECKPOINTS=100 for fewer
	$(BIN)/python tests/bench/history.py $(if $(CHECKPOINTS),--checkpoints $(CHECKPOINTS))

LOCK := compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url \
  --no-annotate --upgrade
lock: $(INSTALLED) ## resolve requirements.lock anew from pyproject.toml, and the one of tests/s3
	$(UV) $(LOCK) --extra airflow --extra compare --extra hub --extra history --extra plot --extra postgres \
	  --extra wandb --extra dev pyproject.toml -o requirements.lock
	@# What is in the one is not in the other; but botocore wants a python-dateutil of its own.
	$(UV) $(LOCK) tests/s3/requirements.in -o tests/s3/requirements.lock $$(sed -n \
	  '/^python-dateutil=/d; s/^\([a-z0-9.-]*\)==.*/--no-emit-package \1/p' requirements.lock)

tiny: ## train the tiny checkpoints again (needs torch and transformers; see include/tiny/train.py)
	$(PYTHON) include/tiny/train.py

clean: ## remove .venv, Airflow's folder and caches; results stay
	rm -rf $(VENV) .venv-bench .airflow .slurm .mypy_cache .pytest_cache .ruff_cache
