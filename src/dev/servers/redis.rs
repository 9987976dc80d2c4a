//! A private Redis server: nothing on disk, no eviction, no password.
//!
//! It needs no password: it listens on loopback only and runs unprivileged, without a folder that it could write to.
//!
//! Its directory holds `pid` (process id and start time), `port` (the last port, which is reused when it is free),
//! `server.log` and `lock`.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::account::{self, Account, Accounts};
use super::directory::Directory;
use super::process::StopPlan;
use super::server::{Kind, Server, end_leftover, failed};
use super::{ServerError, programs};

const COMMAND_LIMIT: Duration = Duration::from_secs(5);

/// A limit for answers. Every answer that this module reads is shorter.
const ANSWER_MAX_BYTES: u64 = 64 * 1024;

/// A running private Redis. It stops when dropped.
#[derive(Debug)]
pub struct PrivateRedis {
    server: Server<Redis>,
}

impl PrivateRedis {
    /// Starts an empty Redis and waits until it answers. It uses `port` or the next free one; `None` means the last port of
    /// `dir`, or else a random one.
    pub fn start(dir: &Path, port: Option<u16>) -> Result<Self, ServerError> {
        Self::start_with(dir, port, &[])
    }

    /// As [`Self::start`], with more arguments of `redis-server`.
    pub fn start_with(dir: &Path, port: Option<u16>, arguments: &[&str]) -> Result<Self, ServerError> {
        programs::redis()?;
        let directory = Directory::lock(dir)?;
        let account = Accounts::find()?.unprivileged;
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let is_redis = |arguments: &[String]| arguments.first().is_some_and(|first| first.contains("redis-server"));
        end_leftover::<Redis>(&directory, is_redis);
        Ok(Self { server: Server::start(Redis { account, arguments }, directory, port)? })
    }

    /// Returns the URL of the server.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.server.port)
    }

    /// Returns the port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.server.port
    }

    /// Returns the process id while the server runs.
    pub fn pid(&self) -> Option<u32> {
        self.server.pid()
    }

    /// Deletes all keys.
    pub fn flush_all(&self) -> Result<(), ServerError> {
        let answer = ask(self.port(), "FLUSHALL")
            .map_err(|source| ServerError::Io { what: "could not empty Redis".to_owned(), source })?;
        let refused = || failed::<Redis>(format!("refused to be emptied ({answer})"), String::new());
        if answer == "+OK" { Ok(()) } else { Err(refused()) }
    }

    /// Shuts down. Does nothing when the server is stopped.
    pub fn stop(&self) {
        self.server.stop();
    }

    /// Kills the server by SIGKILL, like a crash.
    pub fn kill(&self) {
        self.server.kill();
    }

    /// Restarts the stopped or killed server, empty, on the same port.
    pub fn start_again(&self) -> Result<(), ServerError> {
        self.server.start_again()
    }

    /// Suspends the server (SIGSTOP). Connections hang, and none is closed.
    pub fn freeze(&self) -> Result<(), ServerError> {
        self.server.freeze()
    }

    /// Resumes a frozen server.
    pub fn thaw(&self) {
        self.server.thaw();
    }

    /// Leaves the server running, like a run that ends by `kill -9` on a system without parent-death signals.
    #[cfg(test)]
    pub(super) fn abandon(self) -> u32 {
        self.server.abandon()
    }
}

struct Redis {
    account: Option<Account>,
    arguments: Vec<String>,
}

impl Kind for Redis {
    const NAME: &'static str = "Redis";
    const STOP_PLAN: &'static StopPlan = &[("TERM", Duration::from_secs(5))];
    const START_LIMIT: Duration = Duration::from_secs(20);

    fn command(&self, port: u16) -> Result<Command, ServerError> {
        let mut command = account::command(programs::redis()?, self.account, "TERM")?;
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
        command.args(["--maxmemory-policy", "noeviction", "--daemonize", "no", "--dir", "/"]);
        command.args(&self.arguments);
        Ok(command)
    }

    fn is_ready(&self, port: u16, pid: u32) -> bool {
        ask(port, "INFO server").is_ok_and(|info| info.lines().any(|line| line == format!("process_id:{pid}")))
    }
}

/// Sends one command and reads its answer: a status line, or the text of a bulk string.
fn ask(port: u16, command: &str) -> io::Result<String> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, COMMAND_LIMIT)?;
    stream.set_read_timeout(Some(COMMAND_LIMIT))?;
    stream.set_write_timeout(Some(COMMAND_LIMIT))?;
    stream.write_all(format!("{command}\r\n").as_bytes())?;
    let mut reader = BufReader::new(stream.take(ANSWER_MAX_BYTES));
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let first = first.trim_end();
    let Some(length) = first.strip_prefix('$').and_then(|length| length.parse::<u64>().ok()) else {
        return Ok(first.to_owned());
    };
    let mut text = String::new();
    reader.take(length).read_to_string(&mut text)?;
    Ok(text)
}
