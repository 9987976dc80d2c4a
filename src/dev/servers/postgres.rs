//! A private PostgreSQL server.
//!
//! Its directory holds:
//! - `cluster/data`; `cluster` may be a link to a folder that the server's account can reach,
//! - `password` (mode 600),
//! - `port`, the last port, which is reused when it is free,
//! - `server.log`, `pid` and `lock`.
//!
//! The server listens only on loopback TCP with a random password, and on no Unix socket. The superuser is
//! `driver_tracker`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::account::{self, Accounts};
use super::directory::{Directory, Place, place, write_new};
use super::process::{self, StopPlan, TOOL_LIMIT};
use super::programs::{self, PostgresPrograms};
use super::server::{Kind, Server, failed};
use super::{ServerError, about, launcher};

const USER: &str = "driver_tracker";

const INITDB_LIMIT: Duration = Duration::from_secs(120);

/// Options of a private PostgreSQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PostgresOptions {
    /// Whether commits reach the disk. When off, the data survives a crash of the server but not one of the machine.
    pub fsync: bool,
    /// Whether dropping the value removes the directory, data included.
    pub remove_on_drop: bool,
    /// Whether the server may have standbys or be one.
    pub replication: bool,
}

impl Default for PostgresOptions {
    fn default() -> Self {
        Self { fsync: true, remove_on_drop: false, replication: false }
    }
}

impl PostgresOptions {
    /// Returns options for tests: fast, and the data is removed at the end.
    pub fn for_tests() -> Self {
        Self { fsync: false, remove_on_drop: true, replication: false }
    }
}

/// A running private PostgreSQL. It stops when dropped.
#[derive(Debug)]
pub struct PrivatePostgres {
    server: Server<Postgres>,
}

impl PrivatePostgres {
    /// Starts the server with its data in `dir` and waits until it accepts connections. The first run creates the data. The
    /// server uses `port` or the next free one; `None` means the last port, or else a random one.
    pub fn start(dir: &Path, port: Option<u16>) -> Result<Self, ServerError> {
        Self::start_with(dir, port, PostgresOptions::default())
    }

    /// Like `start`, with options.
    pub fn start_with(dir: &Path, port: Option<u16>, options: PostgresOptions) -> Result<Self, ServerError> {
        let newest = programs::postgres(None)?.ok_or(ServerError::Missing { program: Postgres::NAME })?;
        let directory = Directory::lock(dir)?;
        let place = place(directory.path(), Accounts::find()?)?;
        end_leftover(&place.path.join("data"));
        let password = directory.read("password").unwrap_or_default();
        let mut kind = Postgres { place, programs: newest, options, password };
        match version_of(&kind.data()) {
            // Data without the password is unusable. This happens when the data lies elsewhere and `dir` was deleted.
            Some(found) if !kind.password.is_empty() => kind.programs = programs_for(&found, &directory)?,
            _ => kind.init(&directory)?,
        }
        Ok(Self { server: Server::start(kind, directory, port)? })
    }

    /// Creates a standby of `primary` with its data in `dir` and starts it. The options of `primary` must allow replication.
    /// The standby streams by the replication slot `slot` and has the primary's databases and password.
    pub fn start_standby(primary: &Self, slot: &str, dir: &Path) -> Result<Self, ServerError> {
        let of = &primary.server.kind;
        let directory = Directory::lock(dir)?;
        let place = place(directory.path(), Accounts::find()?)?;
        let copy =
            Postgres { place, programs: of.programs.clone(), options: of.options, password: of.password.clone() };
        copy.copy_from(primary.port(), slot)?;
        directory.write("password", &copy.password)?;
        drop(directory);
        Self::start_with(dir, None, of.options)
    }

    /// Returns the URL of the database `name`.
    pub fn url(&self, name: &str) -> String {
        format!("postgres://{USER}:{}@127.0.0.1:{}/{name}", self.server.kind.password, self.server.port)
    }

    /// Returns the port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.server.port
    }

    /// Returns the process id of the postmaster while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.server.pid()
    }

    /// Creates a database unless it exists.
    pub fn create_database(&self, name: &str) -> Result<(), ServerError> {
        if !is_database_name(name) {
            return Err(ServerError::BadName);
        }
        if self.query("postgres", &format!("SELECT 1 FROM pg_database WHERE datname = '{name}'"))?.is_empty() {
            self.query("postgres", &format!("CREATE DATABASE \"{name}\""))?;
        }
        Ok(())
    }

    /// Shuts down fast: open transactions are rolled back and all data is written. Does nothing when the server is stopped.
    pub fn stop(&self) {
        self.server.stop();
    }

    /// Kills the server and all its backends by SIGKILL, like a crash.
    pub fn kill(&self) {
        self.server.kill();
    }

    /// Restarts the stopped or killed server on the same port with the same data.
    pub fn start_again(&self) -> Result<(), ServerError> {
        self.server.start_again()
    }

    /// Suspends the server and all its backends (SIGSTOP). Connections hang, and none is closed.
    pub fn freeze(&self) -> Result<(), ServerError> {
        self.server.freeze()
    }

    /// Resumes a frozen server.
    pub fn thaw(&self) {
        self.server.thaw();
    }

    /// Runs one statement by psql and returns its output.
    pub(super) fn query(&self, database: &str, statement: &str) -> Result<String, ServerError> {
        let mut psql = self.server.kind.tool("psql")?;
        psql.args(["-X", "-q", "-w", "-t", "-A", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-U", USER]);
        psql.args(["-p", &self.port().to_string(), "-d", database, "-c", statement]);
        // The password goes into the environment, because every user can read the arguments of a process.
        psql.env("PGPASSWORD", &self.server.kind.password).env("PGCONNECT_TIMEOUT", "10").env("HOME", "/");
        let output = launcher::run(psql, TOOL_LIMIT)
            .map_err(|source| ServerError::Io { what: "could not run psql".to_owned(), source })?;
        if !output.status.success() {
            return Err(failed::<Postgres>("refused a statement".to_owned(), said(&output.stderr)));
        }
        Ok(said(&output.stdout))
    }

    /// Leaves the server running, like a run that ends by `kill -9` on a system without parent-death signals.
    #[cfg(test)]
    pub(super) fn abandon(self) -> u32 {
        self.server.abandon()
    }
}

impl Drop for PrivatePostgres {
    fn drop(&mut self) {
        self.stop();
        if self.server.kind.options.remove_on_drop {
            let _ = fs::remove_dir_all(&self.server.kind.place.path);
            let _ = fs::remove_dir_all(self.server.directory.path());
        }
    }
}

struct Postgres {
    place: Place,
    programs: PostgresPrograms,
    options: PostgresOptions,
    password: String,
}

impl Kind for Postgres {
    const NAME: &'static str = "PostgreSQL";
    /// A fast shutdown (open transactions are rolled back), then an immediate one.
    const STOP_PLAN: &'static StopPlan = &[("INT", Duration::from_secs(15)), ("QUIT", Duration::from_secs(5))];
    /// Includes the recovery after a crash.
    const START_LIMIT: Duration = Duration::from_secs(60);

    fn command(&self, port: u16) -> Result<Command, ServerError> {
        // SIGINT requests a fast shutdown, so the data stays consistent even when this process is killed.
        let mut command = account::command(self.programs.bin.join("postgres"), self.place.account, "INT")?;
        command.arg("-D").arg(self.data());
        for setting in self.settings(port) {
            command.arg("-c").arg(setting);
        }
        Ok(command)
    }

    /// The postmaster writes its state into its pid file. `pg_ctl` waits in the same way.
    fn is_ready(&self, _port: u16, pid: u32) -> bool {
        let Ok(pid_file) = fs::read_to_string(self.data().join("postmaster.pid")) else { return false };
        let mut lines = pid_file.lines();
        lines.next().and_then(|line| line.trim().parse().ok()) == Some(pid)
            && lines.nth(6).is_some_and(|state| state.trim() == "ready")
    }
}

impl Postgres {
    fn data(&self) -> PathBuf {
        self.place.path.join("data")
    }

    fn tool(&self, name: &str) -> Result<Command, ServerError> {
        account::command(self.programs.bin.join(name), self.place.account, "KILL")
    }

    /// Replaces the data with a new, empty cluster. An interrupted `initdb` leaves only `data.new`, which is never used.
    fn init(&mut self, directory: &Directory) -> Result<(), ServerError> {
        let (data, unfinished) = (self.data(), self.place.path.join("data.new"));
        for leftover in [&data, &unfinished] {
            if leftover.exists() {
                fs::remove_dir_all(leftover).map_err(about("remove", leftover))?;
            }
        }
        self.password = hex::encode(rand::random::<[u8; 16]>());
        let password_file = self.place.path.join("password.new");
        write_new(&password_file, &self.password, self.place.account)?;
        let mut initdb = self.tool("initdb")?;
        initdb.arg("-D").arg(&unfinished).arg("--pwfile").arg(&password_file);
        initdb.args(["--username", USER, "--encoding=UTF8", "--locale=C", "--auth=scram-sha-256"]);
        if !self.options.fsync {
            initdb.arg("--no-sync");
        }
        let done = launcher::run(initdb, INITDB_LIMIT);
        fs::remove_file(&password_file).map_err(about("remove", &password_file))?;
        let output = done.map_err(|source| ServerError::Io { what: "could not run initdb".to_owned(), source })?;
        if !output.status.success() {
            return Err(failed::<Self>("could not create its data".to_owned(), said(&output.stderr)));
        }
        directory.write("password", &self.password)?;
        fs::rename(&unfinished, &data).map_err(about("rename", &unfinished))
    }

    /// Copies the data of the running primary on `port`, and configures this data as its standby.
    fn copy_from(&self, port: u16, slot: &str) -> Result<(), ServerError> {
        let mut copy = self.tool("pg_basebackup")?;
        copy.arg("--pgdata").arg(self.data());
        copy.args(["--host", "127.0.0.1", "--port", &port.to_string(), "--username", USER, "--no-password"]);
        copy.args(["--write-recovery-conf", "--create-slot", "--slot", slot, "--checkpoint=fast", "--no-sync"]);
        copy.env("PGPASSWORD", &self.password).env("HOME", "/");
        let output = launcher::run(copy, INITDB_LIMIT)
            .map_err(|source| ServerError::Io { what: "could not run pg_basebackup".to_owned(), source })?;
        if !output.status.success() {
            return Err(failed::<Self>("could not be copied".to_owned(), said(&output.stderr)));
        }
        Ok(())
    }

    fn settings(&self, port: u16) -> Vec<String> {
        let fsync = if self.options.fsync { "on" } else { "off" };
        // Without standbys the server writes less WAL and runs fewer processes.
        let (wal_level, wal_senders) = if self.options.replication { ("replica", 4) } else { ("minimal", 0) };
        vec![
            format!("port={port}"),
            "listen_addresses=127.0.0.1".to_owned(),
            "unix_socket_directories=".to_owned(),
            "max_connections=200".to_owned(),
            "shared_buffers=64MB".to_owned(),
            format!("fsync={fsync}"),
            format!("full_page_writes={fsync}"),
            format!("wal_level={wal_level}"),
            format!("max_wal_senders={wal_senders}"),
            "logging_collector=off".to_owned(),
            "log_destination=stderr".to_owned(),
            "log_checkpoints=off".to_owned(),
            "timezone=UTC".to_owned(),
            "log_timezone=UTC".to_owned(),
        ]
    }
}

fn said(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end().to_owned()
}

/// Returns the major version that wrote the data, or `None` when there is no data.
fn version_of(data: &Path) -> Option<String> {
    fs::read_to_string(data.join("PG_VERSION")).ok().map(|version| version.trim().to_owned())
}

/// Returns the programs of the version that wrote the data.
fn programs_for(found: &str, directory: &Directory) -> Result<PostgresPrograms, ServerError> {
    let other = || ServerError::OtherVersion { dir: directory.path().to_owned(), found: found.to_owned() };
    let major = found.parse().map_err(|_| other())?;
    programs::postgres(Some(major))?.ok_or_else(other)
}

/// Ends a postmaster that an earlier run left running on `data`. PostgreSQL itself handles a pid file whose process has
/// ended.
fn end_leftover(data: &Path) {
    let Ok(pid_file) = fs::read_to_string(data.join("postmaster.pid")) else { return };
    let Some(pid) = pid_file.lines().next().and_then(|line| line.trim().parse().ok()) else { return };
    let arguments = process::arguments(pid);
    if arguments.iter().any(|argument| Path::new(argument) == data) {
        process::end_leftover(pid, Postgres::STOP_PLAN);
    }
}

fn is_database_name(name: &str) -> bool {
    let fits = |first: bool, c: char| c.is_ascii_lowercase() || c == '_' || (!first && c.is_ascii_digit());
    (1..=63).contains(&name.len()) && name.chars().enumerate().all(|(at, c)| fits(at == 0, c))
}
