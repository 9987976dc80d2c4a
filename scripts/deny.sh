#!/bin/sh
# Checks the dependencies by cargo-deny: licences, bans and sources always, advisories where their database can be had.
set -eu
cd "$(dirname "$0")/.."

VERSION=0.20.2
# Where cargo-deny goes when it is not installed: beside the project, not into the user's own tools.
TOOLS=$PWD/.tools

PATH=$PATH:$TOOLS/bin
if ! command -v cargo-deny >/dev/null; then
    echo "cargo-deny was not found; building version $VERSION into .tools (some minutes, once)."
    if ! cargo install --locked --quiet --root "$TOOLS" "cargo-deny@$VERSION"; then
        echo "cargo-deny could not be installed. It is needed to check the dependencies: cargo install --locked cargo-deny" >&2
        exit 1
    fi
fi

cargo-deny --locked check bans licenses sources

# No question about a password may hold this up, and no silent network.
if GIT_TERMINAL_PROMPT=0 timeout 60 cargo-deny fetch db </dev/null >/dev/null 2>&1; then
    cargo-deny --locked check --disable-fetch advisories
else
    echo "advisories skipped: their database (https://github.com/RustSec/advisory-db) could not be fetched"
fi
