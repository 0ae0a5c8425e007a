# All commands; `make` lists them. Each target makes what it needs, once.
# Works with GNU make 3.81 (macOS) and later. Paths are relative: the folder may have any name.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# The Python that makes .venv; by default the first of these that works: 3.11 to 3.13.
PYTHON ?=
PYTHONS = python3.13 python3.12 python3.11 python3

UV_VERSION = 0.13.9
PY = .venv/bin/python
UV = .venv/bin/uv
HAS_UV = .venv/.uv-$(UV_VERSION)
READY = .venv/.installed

# Which use case a command is about, where several are enabled: USECASE=name.
USECASE ?=
ABOUT = $(if $(USECASE),--usecase "$(USECASE)")
# Which use cases are enabled for the commands that try some: USECASE=name or folder, with commas.
ENABLED = $(if $(USECASE),ML_USECASES="$(USECASE)")

export PYTHONPATH = $(CURDIR)
export UV_SYSTEM_CERTS = 1
# Without bytecode files every process compiles Airflow again, which doubles its start.
unexport PYTHONDONTWRITEBYTECODE
# A mirror that is set for pip is also used by uv.
ifneq ($(PIP_INDEX_URL),)
export UV_DEFAULT_INDEX ?= $(PIP_INDEX_URL)
endif

##@ Try it
.PHONY: help demo start stop seed rollback

help: ## Show this list
	@awk 'BEGIN { FS = ":.*## " } \
	  /^##@ / { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z0-9-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' Makefile

demo: $(READY) ## Run a week of real data through a real Airflow, and leave its UI up (PORT=8080 USECASE=name)
	@$(PY) -m local.demo $(if $(PORT),--port $(PORT)) $(ABOUT)

start: $(READY) ## Start Airflow on this machine (PORT=8080)
	@$(PY) -m local.embedded start $(if $(PORT),--port $(PORT))

stop: ## Stop the Airflow that demo or start left running
	@if [ -f $(READY) ]; then $(PY) -m local.embedded stop; else echo "Nothing to stop"; fi

seed: $(READY) ## Land and validate history (FROM=day TO=day USECASE=name)
	@umask 077; $(PY) -m local.seed $(if $(FROM),--from $(FROM)) $(if $(TO),--to $(TO)) $(ABOUT)

rollback: $(READY) ## Roll the champion back to the version before it (REASON="why" USECASE=name)
	@$(PY) -m local.rollback --reason "$$REASON" $(ABOUT)

##@ Run the stack
.PHONY: up down logs ps stack-seed stack-days has-compose

COMPOSE = docker compose
MOUNTED = config dags grafana include local plugins prometheus serving

up: has-compose .env settings.env ## Build and start Airflow on Celery, with monitoring (needs Docker)
	@if closed=$$(find $(MOUNTED) ! -perm -004 2>/dev/null | head -3) && [ -n "$$closed" ]; then \
	  echo "Containers, whose users are not you, may not read" $$closed "…: chmod -R o+rX $(MOUNTED)" >&2; exit 1; fi
	@GIT_COMMIT=$$(git describe --always --abbrev=40 --exclude='*' --dirty=+ 2>/dev/null) \
	  $(COMPOSE) build
	@$(COMPOSE) up --detach --wait --wait-timeout 300 --remove-orphans $(UP_FLAGS) || { \
	  echo "Some services do not work: 'make ps' shows which, 'make logs SERVICE=…' shows why" >&2; \
	  if $(COMPOSE) logs postgres 2>&1 | grep -q "password authentication failed"; then \
	    echo "The stack's data was made with another .env, perhaps by an earlier clone in a folder with" \
	      "this name. Restore that .env, or delete the data: docker compose down --volumes" >&2; fi; \
	  exit 1; }
	@echo; for each in Airflow:airflow-apiserver:8080 Grafana:grafana:3000 MLflow:mlflow:5000 \
	    Prometheus:prometheus:9090 Alertmanager:alertmanager:9093; do \
	  IFS=:; set -- $$each; unset IFS; \
	  if address=$$($(COMPOSE) port $$2 $$3 2>/dev/null); then \
	    printf '  %-13s http://%s\n' "$$1" "$$address"; fi; done
	@echo; echo "Airflow's and Grafana's user is admin; the passwords are in .env"
	@if ! grep -q '^ALERT_WEBHOOK_URL=.' .env; then \
	  echo "Alerts are not delivered: ALERT_WEBHOOK_URL in .env is empty"; fi

down: has-compose .env settings.env ## Stop the stack; its data stays
	@$(COMPOSE) down --remove-orphans

logs: has-compose .env settings.env ## Follow the stack's logs (SERVICE=airflow-worker)
	@$(COMPOSE) logs --follow --tail 100 $(SERVICE)

ps: has-compose .env settings.env ## Show the stack's containers and their health
	@$(COMPOSE) ps --all

stack-seed: has-compose .env settings.env ## Give the stack history and its first champion (FROM=day TO=day USECASE=name)
	@$(COMPOSE) exec airflow-worker python -m local.seed $(if $(FROM),--from $(FROM)) $(if $(TO),--to $(TO)) $(ABOUT)
	@$(COMPOSE) exec airflow-worker sh -c '\
	  set -- $$(python -m local.choose $(ABOUT)) \
	  && airflow dags unpause --yes --treat-dag-id-as-regex "^$$1[.]" \
	  && airflow dags pause --yes "$$1.model_monitoring" \
	  && airflow dags trigger "$$1.model_retraining" --conf "{ \"reason\": \"first champion\", \
	    \"start\": \"$(or $(FROM),$$2)\", \"end\": \"$(or $(TO),$$3)\"}"' >/dev/null
	@echo "The first champion is being trained: see its model_retraining in Airflow"

stack-days: has-compose .env settings.env ## Send days through the stack's pipelines (FROM=a week ago, TO=yesterday, USECASE=name)
	@$(COMPOSE) exec -T airflow-worker python -m local.days $(if $(FROM),--from $(FROM)) $(if $(TO),--to $(TO)) $(ABOUT)

has-compose:
	@docker compose version --short 2>/dev/null | sed 's/^v//' \
	  | awk -F. '{ found = 1; old = $$1 < 2 || $$1 == 2 && ($$2 < 23 || $$2 == 23 && $$3 < 1) } END { exit !found || old }' || { \
	  echo "The stack needs Docker with its Compose plugin, 2.23.1 or newer" >&2; exit 1; }
	@docker info >/dev/null 2>&1 || { echo "Docker does not answer: is it running, and are you allowed to use it?" >&2; exit 1; }

# Made once, then yours to edit; every machine has its own secrets.
.env settings.env:
	@umask 077; while IFS= read -r line; do case "$$line" in \
	  *=SECRET) line=$${line%SECRET}$$(od -An -N 32 -tx1 /dev/urandom | tr -d ' \n') ;; \
	  *=FERNET_KEY) line=$${line%FERNET_KEY}$$(head -c 32 /dev/urandom | base64 | tr '+/' '-_') ;; \
	  esac; printf '%s\n' "$$line"; done <$@.example >$@
	@echo "Made $@"

##@ Check it
.PHONY: test test-unit test-dags test-e2e test-usecase test-exhaustive test-stack coverage lint format audit secrets licences \
  vulnerabilities bench replay

test: $(READY) ## Run all tests except the exhaustive ones: unit, dags and e2e
	@$(PY) -m pytest -n 2 -m "not exhaustive" tests/unit tests/dags
	@$(PY) -m pytest -m "not exhaustive" tests/e2e

test-exhaustive: $(READY) ## Run the tests that kill, pause and race at every step (SAMPLE=2: half of the files)
	@$(PY) -m pytest -n 2 --dist loadfile -m exhaustive $(if $(SAMPLE),--sample $(SAMPLE)) tests

test-unit: $(READY) ## Test the library, without Airflow
	@$(PY) -m pytest -n 2 tests/unit

test-dags: $(READY) ## Test that the DAGs parse, their structure and their rules
	@$(PY) -m pytest tests/dags

test-e2e: $(READY) ## Test the DAGs on a real Airflow
	@$(PY) -m pytest tests/e2e

test-usecase: $(READY) ## Test use cases through every DAG on a real Airflow (USECASE=name or folder, with commas)
	@$(ENABLED) $(PY) -m pytest --exitfirst --show-capture=no tests/usecase

test-stack: $(READY) ## Test the whole stack in containers, with real runs, killing and restarting its parts
	@UP_FLAGS="$(UP_FLAGS)" $(PY) -m pytest -rs tests/integration

coverage: $(READY) ## Measure which branches of include/ the unit and DAG tests take: 90 % at least
	@$(PY) -m pytest -n 2 -m "not exhaustive" --cov --cov-report=term --cov-fail-under=90 tests/unit tests/dags

lint: $(READY) ## Check style, imports and types
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@.venv/bin/lint-imports --no-logo --no-cache
	@$(PY) -m mypy

format: $(READY) ## Fix the style
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .

audit: secrets licences vulnerabilities ## Look for secrets, refused licences and known vulnerabilities

# Words that stand for a secret in docs and tests. What else looks like one is marked on its line:
# pragma: allowlist secret
PLACEHOLDERS = (?i)password|secret|hunter2|^(hidden|testing|word)$$

secrets: $(READY) ## Look for secrets in the files that git tracks
	@git rev-parse --git-dir >/dev/null
	@git ls-files -z | xargs -0 -P 2 -n 200 .venv/bin/detect-secrets-hook --no-verify \
	  --exclude-secrets '$(PLACEHOLDERS)' --exclude-lines '^ *(async )?def '
	@echo "No secrets in $$(git ls-files | wc -l) files"

licences: $(READY) ## Check that pyproject.toml allows the licences of installed packages
	@.venv/bin/pip-licenses >/dev/null
	@echo "All installed packages have licences that pyproject.toml allows"

vulnerabilities: $(READY) ## Ask PyPI for known vulnerabilities of the packages in requirements.lock
	@.venv/bin/pip-audit --strict --disable-pip --progress-spinner off -r requirements.lock || { \
	  echo "Failed. If no vulnerability is listed above, PyPI did not answer, and nothing was checked" >&2; \
	  exit 1; }

bench: $(READY) ## Measure the claims about speed and memory (SIZE=small)
	@$(PY) -m benchmarks $(if $(SIZE),--size $(SIZE))

replay: $(READY) ## Replay months day by day: is the loop worth it? (START=day END=day LABEL=x SEED=7 USECASE=folder)
	@$(PY) -m benchmarks.replay $(if $(START),--start $(START)) $(if $(END),--end $(END)) \
	  $(if $(LABEL),--label $(LABEL)) $(if $(SEED),--seed $(SEED)) $(if $(USECASE),--usecase $(USECASE))

##@ Deploy it (docs/deploy.md)
.PHONY: mwaa mwaa-deploy astro

mwaa: $(READY) ## Build dist/mwaa and test it in an Airflow like Amazon MWAA's (CONSTRAINTS=file)
	@$(PY) -m deploy.mwaa $(if $(CONSTRAINTS),--constraints "$(CONSTRAINTS)")

mwaa-deploy: $(READY) ## Upload dist/mwaa (BUCKET=name or name/folder)
	@if [ -z "$(BUCKET)" ]; then \
	  echo "make mwaa-deploy needs the environment's bucket: make mwaa-deploy BUCKET=name" >&2; exit 2; fi
	@$(PY) -m deploy.upload "$(BUCKET)"

astro: $(READY) ## Build dist/astro, a complete Astro project, and run its tests
	@$(PY) -m deploy.astro

##@ Maintain it
.PHONY: setup new-usecase usecase reference settings lock migrate clean

setup: $(READY) ## Make .venv from requirements.lock; the other targets do it too
	@true

new-usecase: $(READY) ## Write a small use case to start from to include/usecases (NAME=late_payments TARGET=regression)
	@$(PY) -m local.new_usecase "$(NAME)" $(if $(TARGET),--target "$(TARGET)")

usecase: $(READY) ## Check a use case on its first days, from source to monitoring, in a minute (USECASE=name or folder)
	@$(ENABLED) $(PY) -m local.usecase

reference: $(READY) ## Generate docs/settings.md, docs/metrics.md and the StatsD mapping from the code
	@$(PY) -m local.reference

settings: $(READY) ## Show every setting, its value and its meaning (USECASE=name)
	@$(PY) -m local.settings $(ABOUT)

lock: $(HAS_UV) ## Generate requirements.lock from requirements*.txt (UPGRADE=1: newest versions)
	@$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-header $(if $(UPGRADE),--upgrade) requirements-dev.txt -o requirements.lock

migrate: $(READY) ## Move a lake and models of release 0.1 under a use case's name (USECASE=name FROM=old-name)
	@$(PY) -m local.migrate --usecase "$(USECASE)" $(if $(FROM),--from "$(FROM)")

clean: ## Stop Airflow, then remove data/, .venv and caches
	-@if [ -f $(READY) ]; then ML_DATA_DIR= $(PY) -m local.embedded stop; fi
	@rm -rf data dist .venv .coverage .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --- the environment ---------------------------------------------------------------------------

# A Python that is here but cannot be used (a pyenv shim without its version) is passed over.
$(HAS_UV):
	@works() { "$$1" -c "import sys$$2; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))" 2>/dev/null; }; \
	first() { for name in $(PYTHONS); do if works "$$name" "$$1"; then echo "$$name"; return; fi; done; }; \
	python="$(PYTHON)"; \
	if [ -z "$$python" ]; then python=$$(first ", ensurepip, venv"); fi; \
	if [ -z "$$python" ]; then python=$$(first ""); fi; \
	if [ -z "$$python" ]; then \
	  echo "Python 3.11, 3.12 or 3.13 is needed, but none was found: install one, or name it: make PYTHON=/path/to/python3.12" >&2; exit 1; fi; \
	if ! works "$$python" ""; then \
	  echo "$$python does not run as Python 3.11, 3.12 or 3.13: name another one with make PYTHON=…" >&2; exit 1; fi; \
	if ! works "$$python" ", ensurepip, venv"; then \
	  echo "$$python cannot make environments: install its venv module (Debian and Ubuntu: apt install python3-venv)" >&2; exit 1; fi; \
	if ! works $(PY) ", pip"; then \
	  echo "Making .venv with $$python"; "$$python" -m venv --clear .venv || exit 1; fi
	@$(PY) -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@touch $@

$(READY): requirements.lock $(HAS_UV)
	@echo "Installing requirements.lock into .venv"
	@$(UV) pip sync --quiet --python $(PY) --require-hashes requirements.lock
	@touch $@
