# One entry point. `make` or `make help` lists the targets; nothing needs to be installed for that.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
NEWEST := 4.3
DOCKER ?= docker
COMPOSE ?= $(DOCKER) compose --file docker/compose.yaml
BENCH = $(BIN)/pytest -q -m benchmark --benchmark-enable -p no:randomly -o faulthandler_timeout=7200
PASSWORDS := RABBITMQ_PASSWORD POSTGRES_PASSWORD GRAFANA_PASSWORD CLIENT_SECRET ADMIN_TOKEN CONSOLE_TOKEN

.DEFAULT_GOAL := help
.PHONY: help install demo up down image docs screenshots check format test test-fast test-full test-clusters test-newest test-image simulate chaos bench bench-main bench-growth bench-core bench-table ci lock

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  %-12s %s\n", $$1, $$2}'

install: $(STAMP) ## set up .venv from the hashed lock

$(STAMP): requirements-dev.lock pyproject.toml
	@PYTHON="$(PYTHON)" tests/support/venv.sh $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements-dev.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

demo: $(STAMP) ## the whole job on this machine, with a private broker: DEMO="--keep" leaves it running
	$(BIN)/order-worker demo $(DEMO)

up: docker/.env ## the whole picture with Docker: broker, stand-in, worker, traffic, Prometheus, Grafana
	$(COMPOSE) up --build --detach
	@echo
	@echo "  dashboard   http://127.0.0.1:3000"
	@echo "  Prometheus  http://127.0.0.1:9090"
	@echo "  RabbitMQ    http://127.0.0.1:15672   order-worker, RABBITMQ_PASSWORD of docker/.env"
	@echo "  stand-in    http://127.0.0.1:8091/_sim/"
	@echo "  worker      http://127.0.0.1:8080/readyz"
	@echo "  console     http://127.0.0.1:8085   CONSOLE_TOKEN of docker/.env"
	@echo
	@echo "  make down ends it; $(COMPOSE) logs --follow worker shows what it says"

down: docker/.env ## end that; its data stay (VOLUMES=--volumes removes them)
	$(COMPOSE) down $(VOLUMES)

# Made for this machine alone, once: the servers keep the passwords that they were first started with.
docker/.env:
	@umask 077 && for name in $(PASSWORDS); do \
	  echo "$$name=$$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')"; \
	done > $@.new && mv $@.new $@

image: ## build the image: TAG=order-update-worker:0.1.0
	$(DOCKER) build --file docker/Dockerfile --tag $(or $(TAG),order-update-worker:local) \
	  --build-arg REVISION="$$(git rev-parse HEAD 2>/dev/null || echo unknown)" \
	  --build-arg CREATED="$$(date -u +%Y-%m-%dT%H:%M:%SZ)" .

check: $(STAMP) ## format, lint, types, import order
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint docker/Dockerfile
	$(BIN)/check-jsonschema -q --builtin-schema vendor.compose-spec docker/compose.yaml

format: $(STAMP) ## format and apply safe fixes
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(STAMP) ## renew what is made from the code: the tables of README.md, the alert rules for Compose
	$(BIN)/python -m tests.support.readme
	$(BIN)/python -m tests.support.promtool > docker/prometheus/rules/order-worker.yaml

screenshots: $(STAMP) ## take the pictures of the console in README.md anew, in Debian's Chromium: five minutes
	$(BIN)/python -m tests.console.browser.screenshots

test-fast: $(STAMP) ## tests that need no broker and no database server
	$(BIN)/pytest -q -m "not broker and not postgres and not benchmark"

# Two at a time: the tests wait for brokers, databases and processes more than they work.
test: $(STAMP) ## everything but the longer suites, on a private RabbitMQ that the tests start
	$(BIN)/pytest -q -n 2 --dist loadfile -m "not benchmark and not slow"

# Building the image takes longer than the 120 s after which faulthandler shows where a test hangs.
# The newest RabbitMQ is laid out first, so that what is missing is said first and pytest has the last word. A run whose
# generation cannot be had fails no build: it says so before and after, and the tests of the local one still count.
test-full: $(STAMP) ## `test`, the longer suites, the clusters, and every broker test on the newest RabbitMQ
	@$(BIN)/python -m tests.support.generation $(NEWEST) || true
	$(MAKE) test
	$(BIN)/pytest -q -o faulthandler_timeout=600 -m "slow and not cluster"
	$(MAKE) test-clusters
	@$(MAKE) test-newest

test-clusters: $(STAMP) ## the worker on three nodes that are lost, moved, frozen and split
	$(BIN)/pytest -q -m cluster

test-newest: $(STAMP) ## the broker tests on the newest RabbitMQ, but for the longer suites
	@if $(BIN)/python -m tests.support.generation $(NEWEST); then \
	  ORDER_WORKER_TEST_RABBITMQ=$(NEWEST) $(BIN)/pytest -q -n 2 --dist loadfile -m "broker and not benchmark and not slow"; \
	fi

test-image: $(STAMP) ## build the image and run it as a container would be, without Docker
	$(BIN)/pytest -q -o faulthandler_timeout=600 -m slow tests/docker

simulate: $(STAMP) ## run stories of faults in virtual time: SEEDS=1000000, FROM=7 for the first one
	$(BIN)/python -m tests.simulation.run $(or $(SEEDS),10000) $(or $(FROM),0)

chaos: $(STAMP) ## load and random faults, then a verdict: MINUTES=30, SEED=7 for the same faults again, RATE=200 events/s
	$(BIN)/python -m tests.chaos --minutes $(or $(MINUTES),5) --rate $(or $(RATE),200) $(if $(SEED),--seed $(SEED))

bench: $(STAMP) ## measure beside one call per message and a bare loop: ROUNDS=5 EVENTS=100000 BENCH_RESULTS=folder
	$(BENCH) -s tests/benchmarks

bench-main: $(STAMP) ## of that, only the three loads side by side
	$(BENCH) -s tests/benchmarks/test_main_job.py

bench-growth: $(STAMP) ## what an event costs as work grows, up to a backlog of LARGEST=3000000: most of an hour
	BENCH_GROWTH=$(or $(LARGEST),3000000) $(BENCH) -s tests/benchmarks/test_growth.py

bench-core: $(STAMP) ## the parts that run for every event, by themselves
	$(BENCH) --benchmark-columns=min,median,iqr,rounds tests/benchmarks/test_core.py

bench-table: $(STAMP) ## write the newest results, or those of RESULT=file, into tests/benchmarks/README.md
	$(BIN)/python -m tests.benchmarks.report $(RESULT)

ci: check test-full ## what CI runs

lock: $(STAMP) ## compile the hashed locks anew from pyproject.toml
	$(BIN)/uv pip compile -q --universal --generate-hashes --no-header pyproject.toml --extra uvloop -o requirements.lock
	$(BIN)/uv pip compile -q --universal --generate-hashes --no-header pyproject.toml --group dev --extra otel --extra uvloop -o requirements-dev.lock
	$(BIN)/uv pip compile -q --universal --generate-hashes --no-header pyproject.toml --extra otel --extra uvloop -o requirements-otel.lock
	$(BIN)/uv pip compile -q --universal --generate-hashes --no-header --group build -o requirements-build.lock
