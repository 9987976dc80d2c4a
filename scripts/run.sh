#!/bin/sh
# Builds the program and replaces this shell by it, so that Ctrl-C reaches only the program.
#
# DRIVERS: the number of simulated drivers; LISTEN: the service's address. Unset: the defaults of the program.
# DEV_PROGRAM: a program that is already built, to run instead. The arguments go to `driver-tracker dev`.
set -eu
cd "$(dirname "$0")/.."

program=${DEV_PROGRAM:-}
if [ -z "$program" ]; then
  cargo build --release --locked --bin driver-tracker
  target=$(cargo metadata --locked --format-version 1 --no-deps | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')
  program=$target/release/driver-tracker
fi

set -- dev "$@"
[ -z "${DRIVERS:-}" ] || set -- "$@" --drivers "$DRIVERS"
[ -z "${LISTEN:-}" ] || set -- "$@" --listen "$LISTEN"
# These are variables of this script, not settings of the program.
unset DRIVERS LISTEN DEV_PROGRAM
exec "$program" "$@"
