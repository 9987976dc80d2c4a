#!/bin/sh
# Checks that the tools for a purpose are installed, and installs the packages that are missing.
#
#   scripts/setup.sh run      Rust, a C compiler; PostgreSQL and Redis unless DATABASE_URL and REDIS_URL name others
#   scripts/setup.sh test     Rust, a C compiler, PostgreSQL, Redis and PgBouncer
#   scripts/setup.sh vendure  Rust, a C compiler, PostgreSQL, Redis, Node and npm; no npm packages
#   scripts/setup.sh load     Rust, a C compiler, PostgreSQL, Redis and k6, which Go builds into .tools
#   scripts/setup.sh check    Rust, a C compiler
#   scripts/setup.sh bench    Rust, a C compiler, PostgreSQL, Redis, Node and npm
#   scripts/setup.sh packages NAME…    as root, on Debian and derivatives: these packages; no server is started
#
# No server of the system is started, stopped or changed. The project runs its own servers with their own data.
set -eu
cd "$(dirname "$0")/.."

K6_VERSION=1.8.1
NODE_MAJOR=20

fail() {
    printf '%s\n' "$@" >&2
    exit 1
}

# Requires Rust of at least the version that Cargo.toml names.
require_rust() {
    if ! command -v cargo >/dev/null || ! command -v rustc >/dev/null; then
        fail "Rust is needed, and cargo was not found. Get it from https://rustup.rs:" \
            "    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh"
    fi
    wanted=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)
    found=$(rustc --version | cut -d ' ' -f 2)
    oldest=$(printf '%s\n%s\n' "$wanted" "$found" | sort -V | head -n 1)
    if [ "$oldest" != "$wanted" ]; then
        fail "Rust $wanted or newer is needed, and this is $found. With rustup: rustup update stable" \
            "(a distribution's own Rust is often older; https://rustup.rs has the current one)."
    fi
}

# Requires Node of at least the version that the plugin for Vendure needs. A missing Node is handled as a missing package.
require_node() {
    command -v node >/dev/null || return 0
    major=$(node --version | sed 's/^v\([0-9]*\).*/\1/')
    [ "$major" -ge "$NODE_MAJOR" ] ||
        fail "Node $NODE_MAJOR or newer is needed, and this is $(node --version) (the version in Debian 12 is too old)." \
            "https://nodejs.org/en/download has newer versions, also as Debian packages."
}

# Succeeds if a PostgreSQL server is installed where the program looks for it.
have_postgres() {
    path_bin=$(command -v postgres || true)
    for bin in /usr/lib/postgresql/*/bin /usr/pgsql-*/bin /opt/homebrew/opt/postgresql@*/bin "${path_bin%/*}"; do
        if [ -x "$bin/postgres" ] && [ -x "$bin/initdb" ] && [ -x "$bin/psql" ]; then
            return 0
        fi
    done
    return 1
}

# Succeeds if $1 is a k6 of version 1 that is new enough. The load tests need its k6/websockets with subprotocols.
is_k6() {
    found=$("$1" version 2>/dev/null | sed -n 's/^k6[^ ]* v\(1\.[0-9.]*\).*/\1/p') && [ -n "$found" ] &&
        [ "$(printf '%s\n%s\n' "$K6_VERSION" "$found" | sort -V | head -n 1)" = "$K6_VERSION" ]
}

# Requires k6: the one in .tools or on the search path. Otherwise Go builds it into .tools. No other k6 is changed.
require_k6() {
    own=$PWD/.tools/bin/k6
    if is_k6 "$own" || { [ ! -e "$own" ] && is_k6 k6; }; then
        return
    fi
    # Go's own installer uses this folder. It may be missing in the PATH of this shell.
    PATH=$PATH:/usr/local/go/bin
    if ! command -v go >/dev/null; then
        fail "The load tests need k6 $K6_VERSION or a newer 1.x. Neither k6 nor Go, which could build it, was found." \
            "Install k6 (https://grafana.com/docs/k6/latest/set-up/install-k6/), or Go (https://go.dev/dl/) and try again."
    fi
    echo "k6 was not found; building version $K6_VERSION into .tools with Go (a minute or two, once)."
    # GOBIN directs the build into .tools, so that the user's own tools stay unchanged.
    if ! GOBIN=$PWD/.tools/bin GOFLAGS= go install "go.k6.io/k6@v$K6_VERSION"; then
        fail "k6 could not be built. Install it (https://grafana.com/docs/k6/latest/set-up/install-k6/) and try again."
    fi
}

# Prints the names of the Debian packages that are missing for the purpose $1.
missing_packages() {
    command -v cc >/dev/null || printf ' gcc libc6-dev'
    case $1 in
    run)
        [ -n "${DATABASE_URL:-}" ] || have_postgres || printf ' postgresql'
        [ -n "${REDIS_URL:-}" ] || command -v redis-server >/dev/null || printf ' redis-server'
        ;;
    bench)
        have_postgres || printf ' postgresql'
        command -v redis-benchmark >/dev/null || printf ' redis-server'
        command -v npm >/dev/null || printf ' nodejs npm'
        ;;
    vendure)
        have_postgres || printf ' postgresql'
        command -v redis-server >/dev/null || printf ' redis-server'
        command -v npm >/dev/null || printf ' nodejs npm'
        ;;
    load)
        have_postgres || printf ' postgresql'
        command -v redis-server >/dev/null || printf ' redis-server'
        ;;
    test)
        have_postgres || printf ' postgresql'
        command -v redis-server >/dev/null || printf ' redis-server'
        command -v pgbouncer >/dev/null || [ -x /usr/sbin/pgbouncer ] || printf ' pgbouncer'
        ;;
    esac
}

# Installs packages as root. Temporary files keep their servers from starting, and are removed however this ends.
install_packages() {
    policy=/usr/sbin/policy-rc.d
    no_cluster=/etc/postgresql-common/createcluster.d/driver-tracker.conf
    made=
    # The names contain no spaces.
    # shellcheck disable=SC2086
    trap 'rm -f $made' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM

    # The system runs this file before it starts a service. An existing file is not changed.
    if [ ! -e "$policy" ]; then
        made="$made $policy"
        cat >"$policy" <<'POLICY'
#!/bin/sh
# Created by the set-up of driver-tracker while it installs packages. It can be deleted.
for word; do
    case $word in postgresql* | redis* | pgbouncer*) exit 101 ;; esac
done
exit 0
POLICY
        chmod 755 "$policy"
    fi

    export DEBIAN_FRONTEND=noninteractive
    apt-get update || echo "apt-get update failed; continuing with the existing package lists." >&2
    install="apt-get install -y --no-install-recommends -o DPkg::Lock::Timeout=120"
    case " $* " in *" postgresql "*)
        # Without this setting the package creates a database cluster called "main".
        $install postgresql-common
        if [ ! -e "$no_cluster" ]; then
            made="$made $no_cluster"
            mkdir -p "${no_cluster%/*}"
            echo "create_main_cluster = false" >"$no_cluster"
        fi
        ;;
    esac
    $install "$@"
    # These packages enable their services, which would then start at every boot.
    for package in redis-server pgbouncer; do
        case " $* " in *" $package "*)
            if command -v systemctl >/dev/null; then
                systemctl disable --now "$package.service" >/dev/null 2>&1 || true
            fi
            ;;
        esac
    done
}

# Installs the missing packages, or says how to install them.
provide() {
    if ! command -v apt-get >/dev/null || ! command -v dpkg >/dev/null; then
        fail "Missing packages (by their Debian names): $*." \
            "Install them with your system's package manager, for example:" \
            "    Fedora:  dnf install postgresql-server redis gcc" \
            "    Arch:    pacman -S postgresql redis gcc" \
            "    macOS:   brew install postgresql@17 redis"
    fi
    as_root=
    if [ "$(id -u)" -ne 0 ]; then
        if ! command -v sudo >/dev/null || ! sudo -n true 2>/dev/null; then
            fail "Missing packages: $*. Installing them needs root. This script does not run as root and" \
                "cannot become root without a password. Run this command, then try again:" \
                "    sudo scripts/setup.sh packages $*"
        fi
        as_root="sudo -n"
    fi
    echo "Missing packages: $*. Installing them with apt-get; no server of the system is started or changed."
    $as_root scripts/setup.sh packages "$@"
}

purpose=${1:-test}
case $purpose in
packages)
    shift
    [ $# -gt 0 ] || fail "usage: scripts/setup.sh packages NAME…"
    [ "$(id -u)" -eq 0 ] || fail "Installing packages needs root: sudo scripts/setup.sh packages $*"
    install_packages "$@"
    ;;
run | test | vendure | load | check | bench)
    require_rust
    missing=$(missing_packages "$purpose")
    # $missing is a list of words.
    # shellcheck disable=SC2086
    [ -z "$missing" ] || provide $missing
    [ "$purpose" != load ] || require_k6
    [ "$purpose" != vendure ] || require_node
    ;;
*)
    fail "usage: scripts/setup.sh [run|test|vendure|load|check|bench|packages NAME…]"
    ;;
esac
