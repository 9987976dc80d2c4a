//! Private PostgreSQL and Redis for `driver-tracker dev` and for the tests, each started by this process, for this
//! process alone, on 127.0.0.1.
//!
//! Invariants:
//! - Nothing that we did not start is touched: no system cluster, no other run's server. A leftover of an earlier run is
//!   ended only when it is provably ours (its data directory, or its process id together with its start time).
//! - One run a directory: a file lock, which the kernel gives back however the run ends, keeps a second one out.
//! - No server outlives this process, `kill -9` included: each asks the kernel for a signal at its parent's death.
//! - Nothing runs as root: as root the servers are started under an unprivileged account.
//!
//! Everything here blocks, with a bound on every wait; from async code call it by `spawn_blocking`. Starting, stopping
//! and freezing take `&self`, so that a test can share a server by `Arc` and break it in the middle of other work.
//! Linux is what this is written for; elsewhere the servers run, without the guard against our own `kill -9`.

mod account;
mod directory;
mod launcher;
mod ports;
mod postgres;
mod process;
mod programs;
mod redis;
mod server;
pub mod usage;

#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};

pub use ports::{free_port, next_free_port};
pub use postgres::{PostgresOptions, PrivatePostgres};
pub use redis::PrivateRedis;

/// Why a private server could not be started, stopped or used. Each is a sentence that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// A program is not installed.
    #[error(
        "{program} was not found; install it (Debian, Ubuntu: apt-get install postgresql redis-server), or set \
         DATABASE_URL and REDIS_URL to servers of yours"
    )]
    Missing {
        /// The program's name.
        program: &'static str,
    },
    /// We are root, and there is nobody to become.
    #[error(
        "servers are not run as root, and neither the user postgres nor nobody exists here; run this as another user"
    )]
    NoAccount,
    /// Another live run holds the directory.
    #[error("{} is in use by another run; stop that one first", dir.display())]
    InUse {
        /// The server's directory.
        dir: PathBuf,
    },
    /// The directory, or its data, is not ours to use.
    #[error("{} belongs to the user with id {uid}; run this as that user or as root, or delete {} to begin anew", path.display(), dir.display())]
    NotOurs {
        /// What belongs to somebody else.
        path: PathBuf,
        /// Its owner.
        uid: u32,
        /// What to delete.
        dir: PathBuf,
    },
    /// The data was written by a major version of PostgreSQL that is not installed.
    #[error(
        "{} holds data of PostgreSQL {found}, which is not installed; install postgresql-{found}, or delete the \
         directory to begin anew",
        dir.display()
    )]
    OtherVersion {
        /// The server's directory.
        dir: PathBuf,
        /// The major version that wrote the data.
        found: String,
    },
    /// No port could be had.
    #[error("no free port on 127.0.0.1 from {from} on")]
    NoPort {
        /// Where the search began.
        from: u16,
    },
    /// The name cannot be a database's.
    #[error("a database's name is a letter or underscore and up to 62 letters, digits or underscores, all lower case")]
    BadName,
    /// The server is stopped.
    #[error("{server} is not running")]
    NotRunning {
        /// Which server.
        server: &'static str,
    },
    /// The server is already running.
    #[error("{server} is running already")]
    Running {
        /// Which server.
        server: &'static str,
    },
    /// A server or one of its tools did not do its work.
    #[error("{server} {what}{}", tail_of(log))]
    Failed {
        /// Which server.
        server: &'static str,
        /// What went wrong, as the end of a sentence.
        what: String,
        /// The last lines of its log, possibly none.
        log: String,
    },
    /// The operating system refused something.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// What the system said.
        source: io::Error,
    },
}

fn tail_of(log: &str) -> String {
    if log.is_empty() { String::new() } else { format!("; the end of its log:\n{log}") }
}

/// For `map_err`: an IO error that says which path it is about.
fn about(doing: &str, path: &Path) -> impl FnOnce(io::Error) -> ServerError {
    let what = format!("could not {doing} {}", path.display());
    move |source| ServerError::Io { what, source }
}
