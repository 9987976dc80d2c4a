# The commands of this project. `make` without a target lists them. Needs GNU make.

# rustup installs cargo here. A shell that was opened before the installation does not have it in its PATH.
export PATH := $(PATH):$(HOME)/.cargo/bin

# For `make run`: the number of simulated drivers and the service's listen address.
DRIVERS ?=
LISTEN ?=
export DRIVERS LISTEN

# For `make load`: the scenarios, the seconds of each and the number of drivers (DRIVERS). Unset: the defaults of each
# scenario.
SCENARIOS ?= heartbeat-burst reconnect-storm order-rush redis-outage
SECONDS_EACH ?=
export SECONDS_EACH

# For `make test`: how many tests run in parallel. Many tests start their own servers.
TEST_THREADS ?= 2

.DEFAULT_GOAL := help
.PHONY: help run test test-vendure check bench load load-quick soak setup
.NOTPARALLEL:

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo 'make run DRIVERS=0 LISTEN=0.0.0.0:8080 runs without simulated drivers, for your own driver.'
	@echo 'With DATABASE_URL and REDIS_URL set, make run uses those servers and starts none.'

run: ## Build, and watch orders being assigned to simulated drivers (Ctrl-C ends it)
	@scripts/setup.sh run
	@exec scripts/run.sh

test: ## Run all tests, against private servers
	@scripts/setup.sh test
	cargo test --locked --tests -- --test-threads=$(TEST_THREADS)
	cargo test --locked --doc

test-vendure: ## Test the plugin with a real Vendure shop, the real service and a driver
	@scripts/setup.sh vendure
	@scripts/test-vendure.sh

check: ## Check format, lints, docs, dependencies, and imports between modules
	@scripts/setup.sh check
	cargo fmt --all --check
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS=-Dwarnings cargo doc --locked --no-deps --document-private-items
	@scripts/deny.sh
	cargo test --locked --test service architecture

# For `make bench`: one or more of heartbeats, throughput, orders, nearest, memory, nodes. Unset: all of them, and the page is
# written.
BENCH ?=

bench: ## Measure ratios against redis-benchmark, pgbench and Node, and write docs/performance.md
	@scripts/setup.sh bench
	ulimit -n "$$(ulimit -Hn)"; cargo bench --locked --bench ratios -- $(or $(BENCH),--write docs/performance.md)

load: ## Run load tests with k6 on private servers, and write a report (SCENARIOS, DRIVERS, SECONDS_EACH)
	@scripts/setup.sh load
	@scripts/load.sh $(SCENARIOS)

load-quick: ## Run ten seconds of the load tests with a debug build, to check that they work
	@scripts/setup.sh load
	@scripts/load.sh debug heartbeat-burst --quick

soak: ## Run the long scenarios soak and rolling-restart, and the tests named soak
	@scripts/setup.sh load
	@scripts/setup.sh test
	@scripts/load.sh soak rolling-restart
	ulimit -n "$$(ulimit -Hn)"; cargo test --locked --release --test service -- --ignored soak --test-threads=1

setup: ## Install what the tests need (PostgreSQL, Redis, PgBouncer; none is started)
	@scripts/setup.sh test
