#!/bin/sh
# Runs the plugin's tests, then a real Vendure with a real driver-tracker.
#
# DRIVER_TRACKER_BIN: the program to test with. Unset: it is built. KEEP_LOGS=1 keeps the logs of all processes.
set -eu
cd "$(dirname "$0")/.."

if [ -z "${DRIVER_TRACKER_BIN:-}" ]; then
    cargo build --locked --bin driver-tracker
    target=$(cargo metadata --locked --format-version 1 --no-deps | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')
    DRIVER_TRACKER_BIN=$target/debug/driver-tracker
    export DRIVER_TRACKER_BIN
fi

cd vendure-plugin
# Installs the packages of the lock file, and again only when the lock file changes.
installed=node_modules/.installed-lock.json
if ! cmp -s package-lock.json "$installed"; then
    npm ci --no-audit --no-fund
    cp package-lock.json "$installed"
fi
npm run --silent lint
npm test
npm run test:shop
