#!/bin/sh
# The plugin's tests, then a real Vendure with a real driver-tracker: scripts/test-vendure.sh [--unit]
#
# DRIVER_TRACKER_BIN: the program to test with; not set: it is built. KEEP_LOGS=1 leaves the logs of all processes.
set -eu
cd "$(dirname "$0")/.."

if [ "${1:-}" != --unit ] && [ -z "${DRIVER_TRACKER_BIN:-}" ]; then
    cargo build --locked --bin driver-tracker
    target=$(cargo metadata --locked --format-version 1 --no-deps | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')
    DRIVER_TRACKER_BIN=$target/debug/driver-tracker
    export DRIVER_TRACKER_BIN
fi

cd vendure-plugin
# What is installed is what the lock file says, and is installed once.
installed=node_modules/.installed-lock.json
if ! cmp -s package-lock.json "$installed"; then
    npm ci --no-audit --no-fund
    cp package-lock.json "$installed"
fi
npm run --silent lint
npm test
[ "${1:-}" = --unit ] || npm run test:shop
