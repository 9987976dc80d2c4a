#!/bin/sh
# Builds the program and becomes it, so that Ctrl-C reaches it and nothing else.
#
# DRIVERS: how many simulated drivers; LISTEN: the service's address. Not set: as the program decides.
# DEV_PROGRAM: a program that is built already, to be run instead. Arguments go to `driver-tracker dev`.
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
# They are ours, not settings of the program.
unset DRIVERS LISTEN DEV_PROGRAM
exec "$program" "$@"
