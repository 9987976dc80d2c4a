# The commands of this project; `make` alone lists them. GNU make.

# rustup puts cargo here; a shell that was open before does not know it yet.
export PATH := $(PATH):$(HOME)/.cargo/bin

# For `make run`: how many simulated drivers, and where the service listens.
DRIVERS ?=
LISTEN ?=
export DRIVERS LISTEN

# For `make load`: which scenarios, how long each, with how many drivers (DRIVERS); not set: as each has it.
SCENARIOS ?= heartbeat-burst reconnect-storm order-rush redis-outage
SECONDS_EACH ?=
export SECONDS_EACH

# For `make test`: how many tests run at once. Many start servers of their own.
TEST_THREADS ?= 2

.DEFAULT_GOAL := help
.PHONY: help run test test-vendure check bench load load-quick soak setup
.NOTPARALLEL:

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo 'make run DRIVERS=0 LISTEN=0.0.0.0:8080 leaves the fleet to a driver of yours.'
	@echo 'With DATABASE_URL and REDIS_URL set, make run uses those servers and starts none.'

run: ## Build, and watch orders being given to simulated drivers (Ctrl-C ends it)
	@scripts/setup.sh run
	@exec scripts/run.sh

test: ## Run all tests, against servers of their own
	@scripts/setup.sh test
	cargo test --locked --tests -- --test-threads=$(TEST_THREADS)
	cargo test --locked --doc

test-vendure: ## A real Vendure shop with the plugin, the real service and a driver
	@scripts/setup.sh vendure
	@scripts/test-vendure.sh

check: ## Format, lints, docs, dependencies, and who imports whom
	@scripts/setup.sh check
	cargo fmt --all --check
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS=-Dwarnings cargo doc --locked --no-deps --document-private-items
	@scripts/deny.sh
	cargo test --locked --test service architecture

# For `make bench`: which ones (heartbeats, throughput, orders, nearest, memory, nodes); all of them write the page.
BENCH ?=

bench: ## Measure ratios against redis-benchmark, pgbench and Node, and write docs/performance.md
	@scripts/setup.sh bench
	ulimit -n "$$(ulimit -Hn)"; cargo bench --locked --bench ratios -- $(or $(BENCH),--write docs/performance.md)

load: ## Load tests with k6 on private servers, and a report (SCENARIOS, DRIVERS, SECONDS_EACH)
	@scripts/setup.sh load
	@scripts/load.sh $(SCENARIOS)

load-quick: ## Ten seconds of the load tests, in the build of the tests: whether they work
	@scripts/setup.sh load
	@scripts/load.sh debug heartbeat-burst --quick

soak: ## What takes long: the scenarios soak and rolling-restart, and the tests named soak
	@scripts/setup.sh load
	@scripts/setup.sh test
	@scripts/load.sh soak rolling-restart
	ulimit -n "$$(ulimit -Hn)"; cargo test --locked --release --test service -- --ignored soak --test-threads=1

setup: ## Install what the tests miss (PostgreSQL, Redis, PgBouncer; none is started)
	@scripts/setup.sh test
