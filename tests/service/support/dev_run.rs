//! `driver-tracker dev` as a reader of the README starts it, in a folder of the test's own.

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

/// How long a start may take on a busy machine: it makes a PostgreSQL cluster first.
const UP_WITHIN: Duration = Duration::from_secs(120);
/// One at a time looks for free ports.
static STARTING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// A folder in which `dev` runs, once or several times; gone when dropped.
pub struct DevFolder {
    /// The folder that a reader would be in; `.dev` is inside.
    pub root: PathBuf,
}

/// A running `dev`.
pub struct Dev {
    child: Child,
    root: PathBuf,
    printed: Arc<Mutex<Vec<String>>>,
    /// What `state.json` says.
    pub state: Value,
}

impl DevFolder {
    /// A new folder.
    pub fn make() -> DevFolder {
        let name = format!("dev-{}-{}", std::process::id(), next_number());
        let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("service").join(name);
        std::fs::create_dir_all(&root).expect("a folder");
        DevFolder { root }
    }

    /// Starts what `make run` starts after its build, and waits until its addresses are printed.
    pub async fn start(&self, drivers: Option<u32>) -> Dev {
        let _alone = STARTING.lock().await;
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
        let mut child = command.spawn().expect("a shell");
        let printed: Arc<Mutex<Vec<String>>> = Arc::default();
        collect(child.stdout.take().expect("its output"), printed.clone());
        collect(child.stderr.take().expect("its errors"), printed.clone());
        let mut dev = Dev { child, root: self.root.clone(), printed, state: Value::Null };
        dev.wait_until_up().await;
        dev
    }

    /// Runs a script as a reader would, in this folder; panics when it takes too long.
    pub async fn sh(&self, script: &str, within: Duration) -> Output {
        let running = Command::new("sh").args(["-euc", script]).current_dir(&self.root).kill_on_drop(true).output();
        let done = tokio::time::timeout(within, running).await;
        done.unwrap_or_else(|_| panic!("not done within {within:?}: {script}")).expect("a shell")
    }
}

impl Drop for DevFolder {
    fn drop(&mut self) {
        // Data that root's PostgreSQL could not have here lie elsewhere.
        if let Ok(elsewhere) = std::fs::read_link(self.root.join(".dev/postgres/cluster")) {
            let _ = std::fs::remove_dir_all(elsewhere);
        }
        // After a failed test the servers of a killed `dev` may still be writing for a moment.
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
    async fn wait_until_up(&mut self) {
        let deadline = std::time::Instant::now() + UP_WITHIN;
        while !self.lines().iter().any(|line| line.starts_with("Ctrl-C")) {
            if let Ok(Some(status)) = self.child.try_wait() {
                panic!("dev ended with {status}: {:#?}", self.lines());
            }
            assert!(std::time::Instant::now() < deadline, "dev does not come up: {:#?}", self.lines());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.state = self.file("state.json");
    }

    fn file(&self, name: &str) -> Value {
        let text = std::fs::read_to_string(self.root.join(".dev").join(name)).expect("a file in .dev");
        serde_json::from_str(&text).expect("JSON")
    }

    /// What `kept.json` says.
    pub fn kept(&self) -> Value {
        self.file("kept.json")
    }

    /// A text of `state.json`.
    pub fn text(&self, name: &str) -> &str {
        self.state[name].as_str().expect("a text")
    }

    /// The operator's way in.
    pub fn admin(&self) -> Api {
        let base = self.text("httpUrl").to_owned();
        Api { client: http::client(), base, key: Some(self.text("adminKey").to_owned()) }
    }

    /// Everything that was printed so far, a line each.
    pub fn lines(&self) -> Vec<String> {
        self.printed.lock().expect("the lines").clone()
    }

    /// How many fixes the service refused.
    pub async fn fixes_refused(&self) -> f64 {
        let page = http::send(http::client().get(self.text("metricsUrl"))).await.text;
        let values = page.lines().filter(|line| line.starts_with("driver_tracker_fixes_refused_total"));
        values.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// How many drivers have this status; at most 200 are counted.
    pub async fn drivers(&self, status: &str) -> usize {
        let listed = self.admin().get(&format!("/api/v1/drivers?status={status}&limit=200")).await.expect(200);
        listed["items"].as_array().expect("items").len()
    }

    /// Ctrl-C: ends with success and leaves no process that listens; gives all that it printed.
    pub async fn stop(mut self) -> Vec<String> {
        let ports = self.ports();
        signal(self.child.id().expect("a process"), "INT");
        let ended = tokio::time::timeout(Duration::from_secs(60), self.child.wait()).await;
        let status = ended.expect("dev to end").expect("an exit status");
        assert!(status.success(), "{status}: {:#?}", self.lines());
        for name in ["state.json", "env"] {
            assert!(!self.root.join(".dev").join(name).exists(), "{name} is there only while dev runs");
        }
        assert_free(&ports).await;
        self.lines()
    }

    /// SIGKILL: nothing is put in order, and yet no server outlives it.
    pub async fn kill9(mut self) {
        let ports = self.ports();
        self.child.kill().await.expect("dev to be killed");
        assert_free(&ports).await;
    }

    /// The ports of the service and of its private servers.
    fn ports(&self) -> Vec<u16> {
        let kept = self.kept();
        let port = |name: &str| u16::try_from(kept[name].as_u64().expect("a port")).expect("a port");
        ["httpPort", "metricsPort", "postgresPort", "redisPort"].map(port).to_vec()
    }
}

async fn assert_free(ports: &[u16]) {
    for port in ports {
        eventually(&format!("nobody listens at {port} any more"), SOON, || async {
            tokio::net::TcpStream::connect(("127.0.0.1", *port)).await.is_err().then_some(())
        })
        .await;
    }
}

fn collect(stream: impl AsyncRead + Unpin + Send + 'static, into: Arc<Mutex<Vec<String>>>) {
    tokio::spawn(async move {
        let mut lines = BufReader::new(stream).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            into.lock().expect("the lines").push(line);
        }
    });
}
