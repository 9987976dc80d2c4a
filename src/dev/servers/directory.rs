//! A server's directory: its lock, its files and log, and the place for PostgreSQL's data.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::account::{Account, Accounts, can_reach};
use super::process::wait_until;
use super::{ServerError, about};

/// A log longer than this is truncated at the next start.
const LOG_MAX_BYTES: u64 = 8 * 1024 * 1024;

/// How many bytes of a log's end an error holds.
const TAIL_BYTES: u64 = 2048;

/// How long to wait for a directory's lock.
const LOCK_LIMIT: Duration = Duration::from_secs(1);

/// The parent folder for data that an unprivileged account cannot reach in the directory itself.
const FALLBACK_PARENT: &str = "/var/tmp";

/// A server's directory. This run holds its lock until the value is dropped.
pub(super) struct Directory {
    path: PathBuf,
    _lock: File,
}

impl Directory {
    /// Creates the directory if it is missing and locks it.
    pub(super) fn lock(path: &Path) -> Result<Self, ServerError> {
        fs::create_dir_all(path).map_err(about("create", path))?;
        let path = fs::canonicalize(path).map_err(about("find", path))?;
        let lock_path = path.join("lock");
        let lock = private_file().open(&lock_path).map_err(about("open", &lock_path))?;
        let mut outcome = Ok(());
        // A child holds copies of all open files of this process between fork and exec, so a lock may be released late.
        wait_until(LOCK_LIMIT, || {
            outcome = lock.try_lock();
            !matches!(outcome, Err(TryLockError::WouldBlock))
        });
        match outcome {
            Ok(()) => Ok(Self { path, _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(ServerError::InUse { dir: path }),
            Err(TryLockError::Error(source)) => Err(about("lock", &lock_path)(source)),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads and parses the file `name`. Returns `None` when it is missing or cannot be parsed.
    pub(super) fn read<T: std::str::FromStr>(&self, name: &str) -> Option<T> {
        fs::read_to_string(self.path.join(name)).ok()?.trim().parse().ok()
    }

    /// Writes a file that only the user of this process can read.
    pub(super) fn write(&self, name: &str, contents: &str) -> Result<(), ServerError> {
        let path = self.path.join(name);
        let write = || private_file().truncate(true).open(&path)?.write_all(contents.as_bytes());
        write().map_err(about("write", &path))
    }

    /// Opens the log for a server to append to. Also returns the offset at which new output begins.
    pub(super) fn open_log(&self) -> Result<(File, u64), ServerError> {
        let path = self.path.join("server.log");
        let file = private_file().append(true).open(&path).map_err(about("open", &path))?;
        let length = file.metadata().map_err(about("inspect", &path))?.len();
        if length <= LOG_MAX_BYTES {
            return Ok((file, length));
        }
        file.set_len(0).map_err(about("truncate", &path))?;
        Ok((file, 0))
    }

    /// Returns the end of the log after offset `from`. Returns an empty text when the log cannot be read.
    pub(super) fn log_since(&self, from: u64) -> String {
        let read = || -> io::Result<String> {
            let mut file = File::open(self.path.join("server.log"))?;
            let start = from.max(file.metadata()?.len().saturating_sub(TAIL_BYTES));
            file.seek(SeekFrom::Start(start))?;
            let mut bytes = Vec::new();
            file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).trim_end().to_owned())
        };
        read().unwrap_or_default()
    }
}

fn private_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.create(true).read(true).write(true).mode(0o600);
    options
}

/// Writes a new file that only `owner` (`None`: the user of this process) can read. The folder may belong to another
/// account, so an existing link at `path` must not be followed.
pub(super) fn write_new(path: &Path, contents: &str, owner: Option<Account>) -> Result<(), ServerError> {
    if fs::symlink_metadata(path).is_ok() {
        fs::remove_file(path).map_err(about("remove", path))?;
    }
    let write = || private_file().create_new(true).open(path)?.write_all(contents.as_bytes());
    write().map_err(about("write", path))?;
    set_owner(path, owner)
}

/// The folder of PostgreSQL's data and the account that owns it (`None`: the user of this process).
#[derive(Debug)]
pub(super) struct Place {
    pub(super) path: PathBuf,
    pub(super) account: Option<Account>,
}

/// Finds or creates the folder for PostgreSQL's data. It is `cluster` in `dir`. When the unprivileged account cannot reach
/// `dir` (for example a checkout in root's home), `cluster` is a link to a folder elsewhere.
pub(super) fn place(dir: &Path, accounts: Accounts) -> Result<Place, ServerError> {
    let link = dir.join("cluster");
    if let Ok(found) = fs::metadata(&link) {
        let path = fs::canonicalize(&link).map_err(about("find", &link))?;
        // As root, the data keeps its owner, also when the first run was not by root.
        let owner = Account { uid: found.uid(), gid: found.gid() };
        let account = accounts.unprivileged.map(|_| owner);
        let usable = if accounts.own_uid == 0 { owner.uid != 0 } else { owner.uid == accounts.own_uid };
        return if usable { Ok(Place { path, account }) } else { Err(not_ours(&path, owner.uid, dir)) };
    }
    if fs::symlink_metadata(&link).is_ok() {
        // The link is dangling: a cleaner of temporary files removed the data.
        fs::remove_file(&link).map_err(about("remove", &link))?;
    }
    let Some(account) = accounts.unprivileged else {
        make_private(&link, None)?;
        return Ok(Place { path: link, account: None });
    };
    if can_reach(dir, account)? {
        make_private(&link, Some(account))?;
        return Ok(Place { path: link, account: Some(account) });
    }
    let path = fallback_place(dir, account)?;
    symlink(&path, &link).map_err(about("create", &link))?;
    Ok(Place { path, account: Some(account) })
}

/// Creates the folder for data of `dir` in the folder for temporary files. Any user may already have created a folder of
/// that name there, so its owner is checked.
fn fallback_place(dir: &Path, account: Account) -> Result<PathBuf, ServerError> {
    let hash = hex::encode(Sha256::digest(dir.as_os_str().as_encoded_bytes()));
    let path = Path::new(FALLBACK_PARENT).join(format!("driver-tracker-{}", &hash[..16]));
    match fs::symlink_metadata(&path) {
        Err(_) => make_private(&path, Some(account))?,
        Ok(found) if found.is_dir() && found.uid() == account.uid => {}
        Ok(found) => return Err(not_ours(&path, found.uid(), &path)),
    }
    Ok(path)
}

fn not_ours(path: &Path, uid: u32, dir: &Path) -> ServerError {
    ServerError::NotOurs { path: path.to_owned(), uid, dir: dir.to_owned() }
}

fn make_private(path: &Path, owner: Option<Account>) -> Result<(), ServerError> {
    DirBuilder::new().mode(0o700).create(path).map_err(about("create", path))?;
    set_owner(path, owner)
}

/// Makes `owner`, the account that the server runs as, the owner of `path`.
fn set_owner(path: &Path, owner: Option<Account>) -> Result<(), ServerError> {
    let Some(Account { uid, gid }) = owner else { return Ok(()) };
    chown(path, Some(uid), Some(gid)).map_err(about("change the owner of", path))
}
