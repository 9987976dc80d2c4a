#!/bin/sh
# Builds the program and the harness of the load tests, and becomes the harness, so that Ctrl-C reaches it.
#
#   scripts/load.sh [debug] SCENARIO… [--drivers N] [--seconds N] …    see docs/loadtest.md
#
# DRIVERS, SECONDS_EACH: how many drivers, how long; not set: as each scenario has it.
# With `debug` the build of the tests is used: for whether it works, never for figures.
set -eu
cd "$(dirname "$0")/.."

profile=release
build=--release
if [ "${1:-}" = debug ]; then
    shift
    profile=debug
    build=
fi

# Nothing, or one word.
# shellcheck disable=SC2086
cargo build $build --locked --bin driver-tracker --example loadtest
target=$(cargo metadata --locked --format-version 1 --no-deps | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')

[ -z "${DRIVERS:-}" ] || set -- "$@" --drivers "$DRIVERS"
[ -z "${SECONDS_EACH:-}" ] || set -- "$@" --seconds "$SECONDS_EACH"

# A socket is a file, in the service and in k6.
ulimit -n "$(ulimit -Hn)" 2>/dev/null || true
exec "$target/$profile/examples/loadtest" "$@"
