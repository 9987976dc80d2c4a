//! The folder of `dev`: data, keys and ports from run to run, and what is running now. Everything in it is private.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// What `dev` keeps from run to run.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Kept {
    /// Port of the private PostgreSQL.
    pub postgres_port: Option<u16>,
    /// Port of the private Redis.
    pub redis_port: Option<u16>,
    /// Port of the API.
    pub http_port: Option<u16>,
    /// Port of the metrics.
    pub metrics_port: Option<u16>,
    /// Signs orders in.
    pub webhook_secret: String,
    /// The plain header of orders in.
    pub webhook_shared_secret: String,
    /// Signs events out.
    pub events_secret: String,
    /// What the secrets of other shops are derived from.
    pub shop_secrets_key: String,
    /// An API key with the scope `admin`.
    pub admin_key: String,
    /// The driver that is left to the reader.
    pub driver: Option<KeptDriver>,
    /// The simulated drivers.
    pub fleet: Vec<KeptDriver>,
}

/// A driver and a token.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct KeptDriver {
    /// The driver's id.
    pub id: String,
    /// A token of theirs.
    pub token: String,
}

/// What is running, for scripts; there only while it runs.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Running {
    /// The API.
    pub http_url: String,
    /// The metrics.
    pub metrics_url: String,
    /// PostgreSQL.
    pub database_url: String,
    /// Redis.
    pub redis_url: String,
    /// An API key with the scope `admin`.
    pub admin_key: String,
    /// Signs orders in.
    pub webhook_secret: String,
    /// The plain header of orders in.
    pub webhook_shared_secret: String,
    /// Signs events out.
    pub events_secret: String,
    /// The receiving shop.
    pub shop_url: String,
    /// The driver that is left to the reader.
    pub driver: KeptDriver,
    /// This process.
    pub pid: u32,
}

/// The file that a shell reads with `.`; it holds [`Running::shell_variables`].
pub const ENV_FILE: &str = "env";

impl Running {
    /// Assignments of shell variables: what the first steps of the README need.
    fn shell_variables(&self) -> String {
        let variables = [
            ("URL", &self.http_url),
            ("KEY", &self.admin_key),
            ("SECRET", &self.webhook_shared_secret),
            ("DRIVER", &self.driver.id),
            ("TOKEN", &self.driver.token),
        ];
        variables.map(|(name, value)| format!("{name}='{}'\n", value.replace('\'', r"'\''"))).concat()
    }
}

/// Why the folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WorkspaceError {
    /// Another `dev` works in it.
    #[error("another `driver-tracker dev` is running in {0}: end it first, or name another folder with --dir")]
    InUse(PathBuf),
    /// A file in it.
    #[error("{0} cannot be used: {1}")]
    File(PathBuf, #[source] std::io::Error),
    /// What is kept cannot be read.
    #[error("{0} cannot be read ({1}): remove it to begin with new keys")]
    Kept(PathBuf, serde_json::Error),
}

/// The folder, held for this process alone.
#[derive(Debug)]
pub struct Workspace {
    dir: PathBuf,
    /// The lock ends with the process, however it ends.
    _lock: File,
}

impl Workspace {
    /// Makes the folder if it is not there, and takes it for this process.
    pub fn open(dir: &Path) -> Result<Self, WorkspaceError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |error| WorkspaceError::File(path, error)
        };
        std::fs::DirBuilder::new().recursive(true).mode(0o711).create(dir).map_err(failed(dir))?;
        let dir = dir.canonicalize().map_err(failed(dir))?;
        let path = dir.join("lock");
        let options = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).clone();
        let lock = options.open(&path).map_err(failed(&path))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { dir, _lock: lock }),
            Err(std::fs::TryLockError::WouldBlock) => Err(WorkspaceError::InUse(dir)),
            Err(std::fs::TryLockError::Error(error)) => Err(WorkspaceError::File(path, error)),
        }
    }

    /// A path inside.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// What earlier runs kept; nothing on the first.
    pub fn kept(&self) -> Result<Kept, WorkspaceError> {
        let path = self.path("kept.json");
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| WorkspaceError::Kept(path, error)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Kept::default()),
            Err(error) => Err(WorkspaceError::File(path, error)),
        }
    }

    /// Keeps for later runs.
    pub fn keep(&self, kept: &Kept) -> Result<(), WorkspaceError> {
        self.write_json("kept.json", kept)
    }

    /// Writes what is running: for programs (`state.json`), and for a shell to read (`env`).
    pub fn announce(&self, running: &Running) -> Result<(), WorkspaceError> {
        let path = self.path(ENV_FILE);
        let text = running.shell_variables();
        write_private(&path, text.as_bytes()).map_err(|error| WorkspaceError::File(path, error))?;
        self.write_json("state.json", running)
    }

    /// Nothing is running any more.
    pub fn forget_running(&self) {
        for name in ["state.json", ENV_FILE] {
            let _ = std::fs::remove_file(self.path(name));
        }
    }

    /// A file for the log, appended to.
    pub fn log_file(&self) -> Result<File, WorkspaceError> {
        let path = self.path("driver-tracker.log");
        let opened = OpenOptions::new().create(true).append(true).mode(0o600).open(&path);
        opened.map_err(|error| WorkspaceError::File(path, error))
    }

    fn write_json(&self, name: &str, value: &impl Serialize) -> Result<(), WorkspaceError> {
        let path = self.path(name);
        write_private_json(&path, value).map_err(|error| WorkspaceError::File(path, error))
    }
}

/// A file that its owner alone can read, whole or not at all: written beside, then put in place.
pub(super) fn write_private_json(path: &Path, value: &impl Serialize) -> std::io::Result<()> {
    write_private(path, &serde_json::to_vec_pretty(value)?)
}

fn write_private(path: &Path, contents: &[u8]) -> std::io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&beside)?;
    file.write_all(contents)?;
    file.sync_all()?;
    std::fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn one_process_at_a_time_and_what_is_kept_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let first = Workspace::open(&dir.path().join("dev")).unwrap();
        assert!(matches!(Workspace::open(&dir.path().join("dev")), Err(WorkspaceError::InUse(_))));
        let kept = Kept { admin_key: "k".to_owned(), ..Kept::default() };
        first.keep(&kept).unwrap();
        assert_eq!(first.kept().unwrap().admin_key, "k");
        let mode = std::fs::metadata(first.path("kept.json")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        drop(first);
        Workspace::open(&dir.path().join("dev")).unwrap();
    }

    #[test]
    fn a_shell_reads_what_is_running_whatever_is_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let workspace = Workspace::open(dir.path()).unwrap();
        let secret = "it's $HOME `x` \"y\" \\";
        let running = Running {
            http_url: "http://127.0.0.1:8080".to_owned(),
            admin_key: "key".to_owned(),
            webhook_shared_secret: secret.to_owned(),
            driver: KeptDriver { id: "d".to_owned(), token: "t".to_owned() },
            ..Running::default()
        };
        workspace.announce(&running).unwrap();
        let path = workspace.path(ENV_FILE);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let script = r#". "$1"; printf '%s\n' "$URL" "$KEY" "$SECRET" "$DRIVER" "$TOKEN""#;
        let read = std::process::Command::new("sh").args(["-euc", script, "sh"]).arg(&path).output().unwrap();
        let expected = format!("http://127.0.0.1:8080\nkey\n{secret}\nd\nt\n");
        assert_eq!(String::from_utf8_lossy(&read.stdout), expected);
        workspace.forget_running();
        assert!(!path.exists() && !workspace.path("state.json").exists());
    }
}
