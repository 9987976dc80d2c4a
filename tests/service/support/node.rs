//! A node of the service: the real program as a child process.
//!
//! Invariants:
//! - Every output line of the process is kept in memory.
//! - The process is killed when its [`Node`] is dropped.
//!
//! A node must not inherit the environment of the test process: its settings come only from the test.

use std::process::{ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};

use super::http::{self, Api};
use super::{SOON, eventually};

/// Environment variables of a node: names and values.
pub type Env = Vec<(String, String)>;

fn program(arguments: &[&str], env: &Env) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_driver-tracker"));
    command.args(arguments).env_clear().envs(env.iter().cloned()).kill_on_drop(true).stdin(Stdio::null());
    command
}

/// Runs a command of the program until it exits.
pub async fn run(arguments: &[&str], env: &Env) -> Output {
    let running = program(arguments, env).output();
    let done = tokio::time::timeout(Duration::from_secs(60), running).await;
    done.expect("the program exits in time").expect("the program starts")
}

/// Sends a signal by its name, without `SIG`.
pub fn signal(pid: u32, name: &str) {
    let done = std::process::Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).output();
    assert!(done.expect("kill starts").status.success(), "could not send SIG{name} to {pid}");
}

/// A running `serve` process.
pub struct Node {
    child: Child,
    pid: u32,
    logs: Arc<Mutex<Vec<String>>>,
    /// The address of the API.
    pub address: String,
    /// The address of `/metrics`.
    pub metrics_address: String,
    client: reqwest::Client,
}

impl Node {
    /// Starts `serve` and waits until it listens.
    pub async fn start(env: &Env) -> Node {
        let mut command = program(&["serve"], env);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
        let pid = child.id().expect("the process has an id");
        let logs: Arc<Mutex<Vec<String>>> = Arc::default();
        collect(child.stdout.take().expect("standard output is piped"), logs.clone());
        collect(child.stderr.take().expect("standard error is piped"), logs.clone());
        let mut node =
            Node { child, pid, logs, address: String::new(), metrics_address: String::new(), client: http::client() };
        node.wait_until_listening().await;
        node
    }

    async fn wait_until_listening(&mut self) {
        let deadline = std::time::Instant::now() + Duration::from_secs(40);
        let listening = loop {
            let found = self.log_lines().iter().find_map(|line| listening(line));
            if let Some(found) = found {
                break found;
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                panic!("the program exited with {status} before it listened");
            }
            assert!(std::time::Instant::now() < deadline, "the program does not listen in time");
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        (self.address, self.metrics_address) = listening;
    }

    /// Returns a client of the API without a key.
    pub fn api(&self) -> Api {
        Api { client: self.client.clone(), base: format!("http://{}", self.address), key: None }
    }

    /// Returns the body of `/health`, or `None` without a response.
    pub async fn health(&self) -> Option<Value> {
        Some(http::try_send(self.api().request("GET", "/health")).await.ok()?.body)
    }

    /// Returns the value of one series of `/metrics`. `series` is the name with its labels as the page shows
    /// them. A series that is absent counts as 0.
    pub async fn metric(&self, series: &str) -> f64 {
        let url = format!("http://{}/metrics", self.metrics_address);
        let text = http::try_send(self.client.get(url)).await.expect("the metrics are served").text;
        let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.map_or(0.0, |value| value.parse().expect("a metric is a number"))
    }

    /// Returns the resident memory of the process in bytes.
    pub fn resident_bytes(&self) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.pid)).expect("the process has a status file");
        let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
        kib.and_then(|kib| kib.trim().parse::<u64>().ok()).expect("the status file has VmRSS") * 1024
    }

    /// Returns all lines that the program has printed so far.
    pub fn log_lines(&self) -> Vec<String> {
        self.logs.lock().expect("the lock of the logs is not poisoned").clone()
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Kills the process by SIGKILL, so that it cannot shut down.
    pub async fn kill9(&mut self) {
        let _ = self.child.start_kill();
        let _ = self.child.wait().await;
    }

    /// Sends SIGTERM and does not wait for the exit.
    pub fn send_sigterm(&self) {
        signal(self.pid, "TERM");
    }

    /// Waits until the process exits by itself.
    pub async fn wait_for_exit(&mut self, within: Duration) -> ExitStatus {
        let status = tokio::time::timeout(within, self.child.wait()).await;
        status.expect("the program exits in time").expect("the exit status is known")
    }

    /// Sends SIGTERM and waits for the exit.
    pub async fn terminate(&mut self) -> ExitStatus {
        self.send_sigterm();
        self.wait_for_exit(SOON).await
    }

    /// Stops the process by SIGSTOP. Its sockets stay open.
    pub fn freeze(&self) {
        signal(self.pid, "STOP");
    }

    /// Resumes the process by SIGCONT.
    pub fn thaw(&self) {
        signal(self.pid, "CONT");
    }

    /// Waits until `/health` has the status.
    pub async fn wait_for_health(&self, status: &str) {
        eventually(&format!("/health has the status {status}"), SOON, || async {
            (self.health().await?["status"] == status).then_some(())
        })
        .await;
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let lines = self.log_lines();
            eprintln!("--- last log lines of node {} ---", self.pid);
            lines.iter().skip(lines.len().saturating_sub(60)).for_each(|line| eprintln!("{line}"));
        }
    }
}

/// Returns the addresses of the API and of `/metrics` when the log line reports that the program listens.
fn listening(line: &str) -> Option<(String, String)> {
    let entry: Value = serde_json::from_str(line).ok()?;
    let text = |name: &str| entry[name].as_str().map(str::to_owned);
    (entry["message"] == "listening").then(|| text("http.addr").zip(text("metrics.addr")))?
}

fn collect(stream: impl AsyncRead + Unpin + Send + 'static, logs: Arc<Mutex<Vec<String>>>) {
    tokio::spawn(async move {
        let mut lines = BufReader::new(stream).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            logs.lock().expect("the lock of the logs is not poisoned").push(line);
        }
    });
}
