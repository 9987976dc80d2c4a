//! Finds the installed programs of PostgreSQL and Redis.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use super::ServerError;

/// Where distributions install PostgreSQL: parent folders, and the prefix of the folder of each version.
const VERSIONED: [(&str, &str); 3] =
    [("/usr/lib/postgresql", ""), ("/usr", "pgsql-"), ("/opt/homebrew/opt", "postgresql@")];

/// The folder with `postgres`, `initdb` and `psql`, of one major version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PostgresPrograms {
    pub(super) bin: PathBuf,
    pub(super) major: u32,
}

/// Finds PostgreSQL of major version `wanted`, or the newest.
pub(super) fn postgres(wanted: Option<u32>) -> Result<Option<PostgresPrograms>, ServerError> {
    let found: Vec<PostgresPrograms> = candidates().into_iter().filter_map(inspect).collect();
    if found.is_empty() {
        return Err(ServerError::Missing { program: "PostgreSQL" });
    }
    Ok(found.into_iter().filter(|one| wanted.is_none_or(|major| one.major == major)).max_by_key(|one| one.major))
}

/// Finds `redis-server`.
pub(super) fn redis() -> Result<PathBuf, ServerError> {
    in_path("redis-server").ok_or(ServerError::Missing { program: "redis-server" })
}

/// Finds a program on the search path.
pub(super) fn in_path(name: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).map(|dir| dir.join(name)).find(|path| path.is_file())
}

fn candidates() -> Vec<PathBuf> {
    let mut bins = Vec::new();
    for (parent, prefix) in VERSIONED {
        let Ok(entries) = fs::read_dir(parent) else { continue };
        let named = |entry: &fs::DirEntry| {
            let name = entry.file_name();
            let rest = name.to_str().and_then(|name| name.strip_prefix(prefix)).map(str::to_owned);
            rest.is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
        };
        bins.extend(entries.flatten().filter(named).map(|entry| entry.path().join("bin")));
    }
    bins.extend(in_path("postgres").and_then(|path| path.parent().map(Path::to_path_buf)));
    bins
}

/// Inspects `bin`. Returns `None` when a program is missing: Debian's client packages leave a `bin` without a server.
fn inspect(bin: PathBuf) -> Option<PostgresPrograms> {
    if !["postgres", "initdb", "psql"].iter().all(|name| bin.join(name).is_file()) {
        return None;
    }
    let output = Command::new(bin.join("postgres")).arg("--version").output().ok()?;
    let major = major_of(&String::from_utf8_lossy(&output.stdout))?;
    Some(PostgresPrograms { bin, major })
}

/// `postgres (PostgreSQL) 15.13 (Debian 15.13-0)` → 15.
fn major_of(version_line: &str) -> Option<u32> {
    let version =
        version_line.split_whitespace().find(|word| word.starts_with(|first: char| first.is_ascii_digit()))?;
    let digits = version.find(|c: char| !c.is_ascii_digit()).unwrap_or(version.len());
    version[..digits].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn major_versions_are_read_from_the_output_of_the_server() {
        assert_eq!(major_of("postgres (PostgreSQL) 15.13 (Debian 15.13-0+deb12u1)"), Some(15));
        assert_eq!(major_of("postgres (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(major_of("something else"), None);
    }

    #[test]
    fn the_newest_version_is_found_and_a_missing_version_is_none() {
        assert!(postgres(None).expect("PostgreSQL is installed").is_some());
        assert_eq!(postgres(Some(7)).expect("PostgreSQL is installed"), None);
    }
}
