#!/bin/sh
# Checks the dependencies with cargo-deny: licences, bans and sources always, advisories only if their database can be
# fetched.
set -eu
cd "$(dirname "$0")/.."

VERSION=0.20.2
# The folder for cargo-deny if it is not installed. It is in the project, so the user's own tools stay unchanged.
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

# The fetch must not block: not on a password prompt, and not on a network that does not answer.
if GIT_TERMINAL_PROMPT=0 timeout 60 cargo-deny fetch db </dev/null >/dev/null 2>&1; then
    cargo-deny --locked check --disable-fetch advisories
else
    echo "advisories skipped: their database (https://github.com/RustSec/advisory-db) could not be fetched"
fi
