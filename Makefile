# Needs Python 3.11 or newer and make, nothing else: `setup` makes .venv, and every target makes sure of it first.

PYTHON ?= python3
JOBS ?= 2
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest
# Folders of tests that need no database; a test in them that asks for one is left out by its marker.
QUICK := $(wildcard tests/unit tests/property tests/conformance)

.DEFAULT_GOAL := help
.PHONY: help setup gateways run test test-fast test-long test-faults drill-fleet drill-restore drill-upgrade mutants fuzz oracles lock sbom audit check fix bench bench-freshness bench-overload bench-scale bench-search bench-console bench-gateways \
	catalogs schema openapi reference docs wheel clean soak

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: ## make .venv with the pinned versions; quick when it is up to date
	@$(PYTHON) tools/setup_venv.py

gateways: setup ## install Caddy and Envoy into .gateways/ for their tests; nginx and HAProxy come with the system
	tools/install_gateways.sh

run: setup ## start the service with its own database, demo data and a token to try
	$(BIN)/authz dev

test: setup ## all tests but the long ones
	$(PYTEST) -n $(JOBS) --dist loadfile tests

test-fast: setup ## the tests without a database, within half a minute
	AUTHZ_EXAMPLES=2000 $(PYTEST) -n $(JOBS) -m "not database" $(QUICK)

test-long: setup ## what more examples and more time make better: a million generated decisions, the stateful suite for 20 minutes
	AUTHZ_EXAMPLES=1000000 $(PYTEST) -n $(JOBS) --dist worksteal --long --hypothesis-profile=long \
		-o faulthandler_timeout=3600 -m "property or long" --ignore=tests/faults tests

test-faults: setup ## processes that die and links that break, and the service without its protections, for minutes
	$(PYTHON) tools/debian_packages.py
	$(PYTEST) --long -o faulthandler_timeout=3600 tests/faults

drill-fleet: setup ## eight replicas come and go under load, and a synchronous standby takes over; some minutes
	$(PYTEST) -s --long -o faulthandler_timeout=3600 tests/faults/test_eight_replicas.py

drill-restore: setup ## lose the database, restore an older backup, and see that nothing revoked comes alive
	$(PYTEST) --long -o faulthandler_timeout=3600 tests/faults/test_restore.py

drill-upgrade: setup ## migrate a loaded database of the first schema while older replicas go on
	$(PYTEST) --long -o faulthandler_timeout=3600 tests/faults/test_upgrade.py

mutants: setup ## change the core's code in small ways and see whether a test notices (an hour or so)
	$(BIN)/python tools/mutants.py

fuzz: setup ## search for input that breaks a promise, two minutes for each of 14 targets (FUZZ="--seconds 600 check wire")
	$(BIN)/python -m pip install --quiet --no-input -c constraints.txt "atheris>=3"
	$(BIN)/python -m tests.fuzz $(FUZZ)

oracles: setup ## how alike dead tokens are by the time that answers take, into docs/security.md
	$(BIN)/python -m tests.support.oracles

lock: setup ## renew requirements.lock, after a change to the pins; needs the package index
	$(BIN)/python tools/lock.py

sbom: setup ## what the service is made of, as CycloneDX, from the pins: build/sbom.json
	$(BIN)/python tools/supply.py sbom

audit: setup ## whether a pinned version has a known hole; needs an advisory service that answers
	$(BIN)/python tools/supply.py audit

check: setup ## everything CI checks before the tests; changes no file
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/catalogs.py --check
	$(BIN)/python tools/catalog_schema.py --check
	$(BIN)/python tools/case_index.py --check
	$(if $(wildcard tools/openapi.py),$(BIN)/python tools/openapi.py --check)
	$(BIN)/python tools/reference.py --check
	$(BIN)/python tools/chart.py --check
	$(BIN)/python tools/sizing.py --check

fix: setup ## format, and correct what can be corrected by itself
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup ## how many decisions a second, and how fast, beside peers; within 10 minutes (BENCH=--quick: one)
	$(BIN)/python tools/bench_tools.py
	$(BIN)/python -m benchmarks.decisions $(BENCH)

bench-freshness: setup ## how soon every replica knows of a revoke
	$(BIN)/python -m benchmarks.freshness

bench-overload: setup ## what floods, idle and slow clients do to everybody else
	$(BIN)/python -m benchmarks.overload

bench-scale: setup ## what grows with the directory and the tokens, and what must not; half an hour (BENCH=--quick)
	$(BIN)/python tools/bench_tools.py
	$(BIN)/python -m benchmarks.scale $(BENCH)

bench-console: setup ## how large the console's pages are, and how quick, with 100,000 tokens; some minutes (BENCH=--quick)
	$(BIN)/python -m benchmarks.console $(BENCH)

bench-search: setup ## a page of each list and search over 100,000 tokens; some minutes (BENCH=--quick)
	$(BIN)/python -m benchmarks.searching $(BENCH)

bench-gateways: setup ## requests through each gateway, with and without asking; some minutes (BENCH=--quick)
	$(BIN)/python tools/bench_tools.py
	$(BIN)/python -m benchmarks.gateways $(BENCH)

soak: setup ## everything at once, with faults, for half an hour; every decision beside the naive reference (SOAK=--minutes N)
	$(BIN)/python -m benchmarks.soak $(SOAK)

catalogs: setup ## recompile the shipped catalogs, after a change to one or to the code that reads them
	$(BIN)/python tools/catalogs.py

schema: setup ## regenerate the JSON Schema of catalog files
	$(BIN)/python tools/catalog_schema.py

openapi: setup ## regenerate the published OpenAPI document
	$(BIN)/python tools/openapi.py

docs: setup ## build the site of docs/ into build/site; a page or a link that leads nowhere is an error
	$(BIN)/python -m sphinx -W --keep-going -q -d build/doctrees docs build/site

reference: setup ## regenerate docs/reference/, what the Helm chart repeats of the rest, and the figures of sizing
	$(BIN)/python tools/reference.py
	$(BIN)/python tools/chart.py
	$(BIN)/python tools/sizing.py

wheel: setup ## build the wheel into dist/, and prove that it works where nothing else is
	$(BIN)/python tools/check_wheel.py --keep dist

clean: ## remove what can be made again, .venv too
	rm -rf .venv .gateways .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache build dist mutants
	find src tests tools migrations benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
