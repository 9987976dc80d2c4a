//! Private PostgreSQL and Redis servers for `driver-tracker dev` and for tests. This process starts them on 127.0.0.1 for
//! its own use.
//!
//! Invariants:
//! - This module touches only servers that it started: no system cluster and no server of another run. It ends a leftover of
//!   an earlier run only when the leftover is provably its own: by its data directory, or by its process id together with
//!   its start time.
//! - One run uses a directory at a time. A file lock keeps a second run out, and the kernel releases the lock however the
//!   run ends.
//! - No server outlives this process, also after `kill -9`: each server asks the kernel for a signal at its parent's death.
//! - No server runs as root. When this process is root, the servers run under an unprivileged account.
//!
//! Every function here blocks, with a limit on every wait. Async code must call it by `spawn_blocking`. Starting, stopping
//! and freezing take `&self`, so that a test can share a server by `Arc` and break it during other work.
//! The module is written for Linux. On other systems the servers run, but they outlive a `kill -9` of this process.

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

/// Why a private server could not be started, stopped or used. Where the reader can act, the message says how.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// A program is not installed.
    #[error(
        "{program} was not found; install it (Debian, Ubuntu: apt-get install postgresql redis-server), or set \
         DATABASE_URL and REDIS_URL to your own servers"
    )]
    Missing {
        /// The program's name.
        program: &'static str,
    },
    /// This process is root, and no unprivileged account exists.
    #[error(
        "servers do not run as root, and neither the user postgres nor nobody exists here; run this as another user"
    )]
    NoAccount,
    /// Another live run holds the lock of the directory.
    #[error("{} is in use by another run; stop that one first", dir.display())]
    InUse {
        /// The server's directory.
        dir: PathBuf,
    },
    /// The directory or its data belongs to another user.
    #[error("{} belongs to the user with id {uid}; run this as that user or as root, or delete {} to start with new data", path.display(), dir.display())]
    NotOurs {
        /// The path that belongs to another user.
        path: PathBuf,
        /// Its owner.
        uid: u32,
        /// The directory to delete.
        dir: PathBuf,
    },
    /// The data was written by a major version of PostgreSQL that is not installed.
    #[error(
        "{} holds data of PostgreSQL {found}, which is not installed; install postgresql-{found}, or delete the \
         directory to start with new data",
        dir.display()
    )]
    OtherVersion {
        /// The server's directory.
        dir: PathBuf,
        /// The major version that wrote the data.
        found: String,
    },
    /// No free port was found.
    #[error("no free port on 127.0.0.1 from {from} on")]
    NoPort {
        /// The port at which the search began.
        from: u16,
    },
    /// The name is not valid for a database.
    #[error("a database's name is a letter or underscore and up to 62 letters, digits or underscores, all lower case")]
    BadName,
    /// The server is stopped.
    #[error("{server} is not running")]
    NotRunning {
        /// Which server.
        server: &'static str,
    },
    /// The server is already running.
    #[error("{server} is already running")]
    Running {
        /// Which server.
        server: &'static str,
    },
    /// A server or one of its tools failed.
    #[error("{server} {what}{}", tail_of(log))]
    Failed {
        /// Which server.
        server: &'static str,
        /// What failed, as the end of a sentence.
        what: String,
        /// The last lines of its log. It may be empty.
        log: String,
    },
    /// The operating system refused an operation.
    #[error("{what}: {source}")]
    Io {
        /// The operation that failed.
        what: String,
        /// The error of the operating system.
        source: io::Error,
    },
}

fn tail_of(log: &str) -> String {
    if log.is_empty() { String::new() } else { format!("; the end of its log:\n{log}") }
}

/// For `map_err`: wraps an IO error with the operation and the path.
fn about(doing: &str, path: &Path) -> impl FnOnce(io::Error) -> ServerError {
    let what = format!("could not {doing} {}", path.display());
    move |source| ServerError::Io { what, source }
}
