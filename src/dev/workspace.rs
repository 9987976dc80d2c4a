//! The folder of `dev`: data, keys and ports that later runs reuse, and a description of the run in progress.
//!
//! Invariants: one process at a time uses the folder; only its owner can read the files in it.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// What `dev` saves for later runs.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SavedState {
    /// Port of the private PostgreSQL.
    pub postgres_port: Option<u16>,
    /// Port of the private Redis.
    pub redis_port: Option<u16>,
    /// Port of the API.
    pub http_port: Option<u16>,
    /// Port of the metrics.
    pub metrics_port: Option<u16>,
    /// Signs the orders that the shop posts.
    pub webhook_secret: String,
    /// The value of the plain header that an order may carry instead of a signature.
    pub webhook_shared_secret: String,
    /// Signs the events that the service posts.
    pub events_secret: String,
    /// The key from which the secrets of other shops are derived.
    pub shop_secrets_key: String,
    /// An API key with the scope `admin`.
    pub admin_key: String,
    /// The driver that the reader uses.
    pub driver: Option<DriverCredentials>,
    /// The simulated drivers.
    pub fleet: Vec<DriverCredentials>,
}

/// A driver's id and one of its tokens.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct DriverCredentials {
    /// The driver's id.
    pub id: String,
    /// A token of this driver.
    pub token: String,
}

/// Describes the run in progress, for scripts. The files that hold it exist only while the run lasts.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Running {
    /// The base URL of the API.
    pub http_url: String,
    /// The URL of the metrics.
    pub metrics_url: String,
    /// The URL of the PostgreSQL database.
    pub database_url: String,
    /// The URL of Redis.
    pub redis_url: String,
    /// An API key with the scope `admin`.
    pub admin_key: String,
    /// Signs the orders that the shop posts.
    pub webhook_secret: String,
    /// The value of the plain header that an order may carry instead of a signature.
    pub webhook_shared_secret: String,
    /// Signs the events that the service posts.
    pub events_secret: String,
    /// The URL of the receiving shop.
    pub shop_url: String,
    /// The driver that the reader uses.
    pub driver: DriverCredentials,
    /// The id of this process.
    pub pid: u32,
}

/// The file that a shell reads with `.`. It holds [`Running::shell_variables`].
pub const ENV_FILE: &str = "env";

impl Running {
    /// Returns assignments of the shell variables that the first steps of the README use.
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
    /// Another `dev` uses it.
    #[error("another `driver-tracker dev` is running in {0}: end it first, or name another folder with --dir")]
    InUse(PathBuf),
    /// A file in it cannot be read or written.
    #[error("{0} cannot be used: {1}")]
    File(PathBuf, #[source] std::io::Error),
    /// The saved state cannot be parsed.
    #[error("{0} cannot be read ({1}): remove it to begin with new keys")]
    State(PathBuf, serde_json::Error),
}

/// The folder, locked for this process.
#[derive(Debug)]
pub struct Workspace {
    dir: PathBuf,
    /// The kernel releases the lock when the process ends, in whatever way it ends.
    _lock: File,
}

impl Workspace {
    /// Creates the folder if it is missing and locks it for this process.
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

    /// Returns the path of `name` in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Reads the state that earlier runs saved. On the first run the state is empty.
    pub fn load_state(&self) -> Result<SavedState, WorkspaceError> {
        let path = self.path("kept.json");
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| WorkspaceError::State(path, error)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(SavedState::default()),
            Err(error) => Err(WorkspaceError::File(path, error)),
        }
    }

    /// Saves the state for later runs.
    pub fn save_state(&self, kept: &SavedState) -> Result<(), WorkspaceError> {
        self.write_json("kept.json", kept)
    }

    /// Writes the description of this run: `state.json` for programs, `env` for a shell.
    pub fn announce(&self, running: &Running) -> Result<(), WorkspaceError> {
        let path = self.path(ENV_FILE);
        let text = running.shell_variables();
        write_private(&path, text.as_bytes()).map_err(|error| WorkspaceError::File(path, error))?;
        self.write_json("state.json", running)
    }

    /// Removes the description of this run. An error is ignored: a stale description harms only scripts.
    pub fn remove_running(&self) {
        for name in ["state.json", ENV_FILE] {
            let _ = std::fs::remove_file(self.path(name));
        }
    }

    /// Opens the log file for appending.
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

/// Writes a JSON file that only its owner can read. The write is atomic: a temporary file beside it is renamed into place.
pub(super) fn write_private_json(path: &Path, value: &impl Serialize) -> std::io::Result<()> {
    write_private(path, &serde_json::to_vec_pretty(value)?)
}

fn write_private(path: &Path, contents: &[u8]) -> std::io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&temporary)?;
    file.write_all(contents)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn one_process_at_a_time_uses_the_folder_and_the_saved_state_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let first = Workspace::open(&dir.path().join("dev")).unwrap();
        assert!(matches!(Workspace::open(&dir.path().join("dev")), Err(WorkspaceError::InUse(_))));
        let kept = SavedState { admin_key: "k".to_owned(), ..SavedState::default() };
        first.save_state(&kept).unwrap();
        assert_eq!(first.load_state().unwrap().admin_key, "k");
        let mode = std::fs::metadata(first.path("kept.json")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        drop(first);
        Workspace::open(&dir.path().join("dev")).unwrap();
    }

    #[test]
    fn a_shell_reads_the_variables_whatever_characters_they_hold() {
        let dir = tempfile::tempdir().unwrap();
        let workspace = Workspace::open(dir.path()).unwrap();
        let secret = "it's $HOME `x` \"y\" \\";
        let running = Running {
            http_url: "http://127.0.0.1:8080".to_owned(),
            admin_key: "key".to_owned(),
            webhook_shared_secret: secret.to_owned(),
            driver: DriverCredentials { id: "d".to_owned(), token: "t".to_owned() },
            ..Running::default()
        };
        workspace.announce(&running).unwrap();
        let path = workspace.path(ENV_FILE);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let script = r#". "$1"; printf '%s\n' "$URL" "$KEY" "$SECRET" "$DRIVER" "$TOKEN""#;
        let read = std::process::Command::new("sh").args(["-euc", script, "sh"]).arg(&path).output().unwrap();
        let expected = format!("http://127.0.0.1:8080\nkey\n{secret}\nd\nt\n");
        assert_eq!(String::from_utf8_lossy(&read.stdout), expected);
        workspace.remove_running();
        assert!(!path.exists() && !workspace.path("state.json").exists());
    }
}
