#!/bin/sh
# Builds the program and the harness of the load tests, then replaces this shell by the harness, so that Ctrl-C reaches it.
#
#   scripts/load.sh [debug] SCENARIO… [--drivers N] [--seconds N] …    see docs/loadtest.md
#
# DRIVERS, SECONDS_EACH: the number of drivers and the seconds of each scenario. Unset: the defaults of each scenario.
# `debug` uses the debug build. It shows whether the load tests work; its figures mean nothing.
set -eu
cd "$(dirname "$0")/.."

profile=release
build=--release
if [ "${1:-}" = debug ]; then
    shift
    profile=debug
    build=
fi

# $build is empty or one word.
# shellcheck disable=SC2086
cargo build $build --locked --bin driver-tracker --example loadtest
target=$(cargo metadata --locked --format-version 1 --no-deps | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')

[ -z "${DRIVERS:-}" ] || set -- "$@" --drivers "$DRIVERS"
[ -z "${SECONDS_EACH:-}" ] || set -- "$@" --seconds "$SECONDS_EACH"

# Each socket needs an open file, in the service and in k6.
ulimit -n "$(ulimit -Hn)" 2>/dev/null || true
exec "$target/$profile/examples/loadtest" "$@"
