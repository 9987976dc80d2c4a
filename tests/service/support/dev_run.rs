//! `driver-tracker dev`, started as the README describes it, in a directory of the test.
//!
//! Invariants:
//! - Every `dev` has its own directory, which is removed with its [`DevFolder`].
//! - No server of a `dev` outlives it.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};

use super::http::{self, Api};
use super::node::signal;
use super::servers::next_number;
use super::{SOON, eventually};

/// The limit for a start. It is long because `dev` creates a PostgreSQL cluster first and the machine may be busy.
const START_TIMEOUT: Duration = Duration::from_secs(120);
/// Serializes starts: two concurrent starts could choose the same free port.
static START_LOCK: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// A directory in which `dev` runs once or several times. It is removed on drop.
pub struct DevFolder {
    /// The working directory of a reader. It contains `.dev`.
    pub root: PathBuf,
}

/// A running `dev`.
pub struct Dev {
    child: Child,
    root: PathBuf,
    printed: Arc<Mutex<Vec<String>>>,
    /// The content of `state.json`.
    pub state: Value,
}

impl DevFolder {
    /// Creates a directory.
    pub fn make() -> DevFolder {
        let name = format!("dev-{}-{}", std::process::id(), next_number());
        let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("service").join(name);
        std::fs::create_dir_all(&root).expect("the directory is created");
        DevFolder { root }
    }

    /// Starts what `make run` starts after its build, and waits until the addresses are printed.
    pub async fn start(&self, drivers: Option<u32>) -> Dev {
        let _start_guard = START_LOCK.lock().await;
        let mut command = Command::new("sh");
        command
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/run.sh"))
            .arg("--dir")
            .arg(self.root.join(".dev"))
            .env_clear()
            .envs(std::env::vars().filter(|(name, _)| matches!(name.as_str(), "PATH" | "HOME" | "LD_LIBRARY_PATH")))
            .env("DEV_PROGRAM", env!("CARGO_BIN_EXE_driver-tracker"))
            .envs(drivers.map(|count| ("DRIVERS", count.to_string())))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().expect("the shell starts");
        let printed: Arc<Mutex<Vec<String>>> = Arc::default();
        collect(child.stdout.take().expect("standard output is piped"), printed.clone());
        collect(child.stderr.take().expect("standard error is piped"), printed.clone());
        let mut dev = Dev { child, root: self.root.clone(), printed, state: Value::Null };
        dev.wait_until_started().await;
        dev
    }

    /// Runs a shell script in this directory. Panics when it takes longer than `within`.
    pub async fn sh(&self, script: &str, within: Duration) -> Output {
        let running = Command::new("sh").args(["-euc", script]).current_dir(&self.root).kill_on_drop(true).output();
        let done = tokio::time::timeout(within, running).await;
        done.unwrap_or_else(|_| panic!("the script did not finish within {within:?}: {script}"))
            .expect("the shell starts")
    }
}

impl Drop for DevFolder {
    fn drop(&mut self) {
        // A cluster that root's PostgreSQL cannot keep here is behind a link.
        if let Ok(elsewhere) = std::fs::read_link(self.root.join(".dev/postgres/cluster")) {
            let _ = std::fs::remove_dir_all(elsewhere);
        }
        // After a failed test, the servers of a killed `dev` may still write for a moment.
        for _ in 0..50 {
            let _ = std::fs::remove_dir_all(&self.root);
            if !self.root.exists() {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Dev {
    async fn wait_until_started(&mut self) {
        let deadline = std::time::Instant::now() + START_TIMEOUT;
        while !self.lines().iter().any(|line| line.starts_with("Ctrl-C")) {
            if let Ok(Some(status)) = self.child.try_wait() {
                panic!("dev exited with {status}: {:#?}", self.lines());
            }
            assert!(std::time::Instant::now() < deadline, "dev does not start in time: {:#?}", self.lines());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.state = self.file("state.json");
    }

    fn file(&self, name: &str) -> Value {
        let text = std::fs::read_to_string(self.root.join(".dev").join(name)).expect("the file is in .dev");
        serde_json::from_str(&text).expect("the file is JSON")
    }

    /// Returns the content of `kept.json`.
    pub fn kept(&self) -> Value {
        self.file("kept.json")
    }

    /// Returns a text field of `state.json`.
    pub fn text(&self, name: &str) -> &str {
        self.state[name].as_str().expect("the field is a text")
    }

    /// Returns a client of the API with the operator's key.
    pub fn admin(&self) -> Api {
        let base = self.text("httpUrl").to_owned();
        Api { client: http::client(), base, key: Some(self.text("adminKey").to_owned()) }
    }

    /// Returns all lines printed so far.
    pub fn lines(&self) -> Vec<String> {
        self.printed.lock().expect("the lock of the lines is not poisoned").clone()
    }

    /// Returns the number of fixes that the service refused.
    pub async fn fixes_refused(&self) -> f64 {
        let page = http::send(http::client().get(self.text("metricsUrl"))).await.text;
        let values = page.lines().filter(|line| line.starts_with("driver_tracker_fixes_refused_total"));
        values.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Returns the number of drivers with this status, at most 200.
    pub async fn drivers(&self, status: &str) -> usize {
        let listed = self.admin().get(&format!("/api/v1/drivers?status={status}&limit=200")).await.expect(200);
        listed["items"].as_array().expect("the list has items").len()
    }

    /// Sends SIGINT, as Ctrl-C does. Asserts that `dev` succeeds and that none of its ports is in use afterwards.
    /// Returns all printed lines.
    pub async fn stop(mut self) -> Vec<String> {
        let ports = self.ports();
        signal(self.child.id().expect("the process has an id"), "INT");
        let ended = tokio::time::timeout(Duration::from_secs(60), self.child.wait()).await;
        let status = ended.expect("dev exits in time").expect("the exit status is known");
        assert!(status.success(), "{status}: {:#?}", self.lines());
        for name in ["state.json", "env"] {
            assert!(!self.root.join(".dev").join(name).exists(), "{name} exists only while dev runs");
        }
        assert_free(&ports).await;
        self.lines()
    }

    /// Kills `dev` by SIGKILL. Asserts that its servers end although `dev` cannot shut them down.
    pub async fn kill9(mut self) {
        let ports = self.ports();
        self.child.kill().await.expect("dev is killed");
        assert_free(&ports).await;
    }

    /// Returns the ports of the service and of its private servers.
    fn ports(&self) -> Vec<u16> {
        let kept = self.kept();
        let port = |name: &str| {
            u16::try_from(kept[name].as_u64().expect("kept.json has the port")).expect("the port fits 16 bits")
        };
        ["httpPort", "metricsPort", "postgresPort", "redisPort"].map(port).to_vec()
    }
}

async fn assert_free(ports: &[u16]) {
    for port in ports {
        eventually(&format!("no process listens at {port}"), SOON, || async {
            tokio::net::TcpStream::connect(("127.0.0.1", *port)).await.is_err().then_some(())
        })
        .await;
    }
}

fn collect(stream: impl AsyncRead + Unpin + Send + 'static, into: Arc<Mutex<Vec<String>>>) {
    tokio::spawn(async move {
        let mut lines = BufReader::new(stream).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            into.lock().expect("the lock of the lines is not poisoned").push(line);
        }
    });
}
