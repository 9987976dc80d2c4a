//! The common part of the private servers: a directory, a port, a process, and the ways to stop and restart it.

use std::fmt;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::directory::Directory;
use super::process::{self, Process, StopPlan, wait_until};
use super::{ServerError, about, free_port, launcher, next_free_port};

/// How long a restart waits for the old port.
const SAME_PORT_LIMIT: Duration = Duration::from_secs(10);

/// How many ports are tried when other programs take them first.
const PORT_TRIES: usize = 20;

/// What differs between the kinds of server.
pub(super) trait Kind {
    const NAME: &'static str;
    const STOP_PLAN: &'static StopPlan;
    /// How long a start may take.
    const START_LIMIT: Duration;

    /// Builds the command that runs the server in the foreground on `port`.
    fn command(&self, port: u16) -> Result<Command, ServerError>;

    /// Returns whether the process `pid` serves clients. Another program on the same port does not count.
    fn is_ready(&self, port: u16, pid: u32) -> bool;
}

/// A running server that this process started. It stops when dropped.
pub(super) struct Server<K: Kind> {
    pub(super) kind: K,
    pub(super) directory: Directory,
    pub(super) port: u16,
    process: Mutex<Option<Process>>,
}

impl<K: Kind> fmt::Debug for Server<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct(K::NAME).field("dir", &self.directory.path()).field("port", &self.port).finish_non_exhaustive()
    }
}

/// The outcome of an attempt to start on one port.
enum Attempt {
    Ready(Process),
    PortTaken,
}

impl<K: Kind> Server<K> {
    /// Starts on `wanted` or the next free port. `None` means the port of the last run, or else a random one.
    pub(super) fn start(kind: K, directory: Directory, wanted: Option<u16>) -> Result<Self, ServerError> {
        let mut server = Self { kind, directory, port: 0, process: Mutex::new(None) };
        server.port = match wanted.or_else(|| server.directory.read("port")) {
            Some(port) => next_free_port(port)?,
            None => free_port()?,
        };
        for _ in 0..PORT_TRIES {
            if let Attempt::Ready(process) = server.attempt()? {
                *server.process() = Some(process);
                server.directory.write("port", &server.port.to_string())?;
                return Ok(server);
            }
            server.port = next_free_port(server.port.saturating_add(1))?;
        }
        Err(ServerError::NoPort { from: server.port })
    }

    pub(super) fn pid(&self) -> Option<u32> {
        self.process().as_ref().map(Process::pid)
    }

    pub(super) fn stop(&self) {
        if let Some(mut process) = self.process().take() {
            process.stop(K::STOP_PLAN);
        }
    }

    pub(super) fn kill(&self) {
        if let Some(mut process) = self.process().take() {
            process.kill();
        }
    }

    pub(super) fn start_again(&self) -> Result<(), ServerError> {
        let mut running = self.process();
        if running.as_mut().is_some_and(|process| !process.has_ended()) {
            return Err(ServerError::Running { server: K::NAME });
        }
        let mut outcome = Ok(Attempt::PortTaken);
        wait_until(SAME_PORT_LIMIT, || {
            outcome = self.attempt();
            !matches!(outcome, Ok(Attempt::PortTaken))
        });
        match outcome? {
            Attempt::Ready(process) => *running = Some(process),
            Attempt::PortTaken => {
                return Err(failed::<K>(format!("lost its port {} to another program", self.port), String::new()));
            }
        }
        Ok(())
    }

    pub(super) fn freeze(&self) -> Result<(), ServerError> {
        let pid = self.pid().ok_or(ServerError::NotRunning { server: K::NAME })?;
        process::freeze(pid).map_err(|source| ServerError::Io { what: format!("could not freeze {}", K::NAME), source })
    }

    pub(super) fn thaw(&self) {
        if let Some(pid) = self.pid() {
            process::thaw(pid);
        }
    }

    fn process(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn attempt(&self) -> Result<Attempt, ServerError> {
        let (log, logged_before) = self.directory.open_log()?;
        let log_again = log.try_clone().map_err(about("open", self.directory.path()))?;
        let mut command = self.kind.command(self.port)?;
        command.stdout(log).stderr(log_again);
        let child = launcher::spawn(command)
            .map_err(|source| ServerError::Io { what: format!("could not run {}", K::NAME), source })?;
        let mut process = Process::new(child);
        // The next run reads this file to find a leftover when this run is killed.
        let started = process::stat(process.pid()).map_or(0, |stat| stat.started);
        self.directory.write("pid", &format!("{}:{started}", process.pid()))?;
        let mut ended = false;
        let ready = wait_until(K::START_LIMIT, || {
            ended = process.has_ended();
            ended || self.kind.is_ready(self.port, process.pid())
        });
        if ready && !ended {
            return Ok(Attempt::Ready(process));
        }
        process.stop(K::STOP_PLAN);
        let log = self.directory.log_since(logged_before);
        if log.contains("Address already in use") {
            return Ok(Attempt::PortTaken);
        }
        let late = || format!("was not ready after {} s", K::START_LIMIT.as_secs());
        Err(failed::<K>(if ended { "did not start".to_owned() } else { late() }, log))
    }

    /// Leaves the server running, like a run that ends by `kill -9` on a system without parent-death signals.
    #[cfg(test)]
    pub(super) fn abandon(&self) -> u32 {
        let process = self.process().take().expect("running");
        let pid = process.pid();
        std::mem::forget(process);
        pid
    }
}

impl<K: Kind> Drop for Server<K> {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Returns the error for a failed server or tool of this kind.
pub(super) fn failed<K: Kind>(what: String, log: String) -> ServerError {
    ServerError::Failed { server: K::NAME, what, log }
}

/// Ends the server that an earlier run recorded in its directory and left running. The process must have the recorded id
/// and start time, and `is_it` must accept its arguments.
pub(super) fn end_leftover<K: Kind>(directory: &Directory, is_it: impl Fn(&[String]) -> bool) {
    let Some(noted) = directory.read::<String>("pid") else { return };
    let Some((pid, started)) = noted.split_once(':') else { return };
    let (Ok(pid), Ok(started)) = (pid.parse(), started.parse::<u64>()) else { return };
    let is_same = process::stat(pid).is_some_and(|stat| stat.started == started);
    if is_same && is_it(&process::arguments(pid)) {
        process::end_leftover(pid, K::STOP_PLAN);
    }
}
