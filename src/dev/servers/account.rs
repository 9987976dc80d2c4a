//! Chooses the account that the servers run under: the account of this process, or an unprivileged one when this process
//! is root.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::{env, fs};

use super::programs::in_path;
use super::{ServerError, launcher, process};

/// The environment variables that the servers inherit. None of them configures a server or holds a secret.
const KEPT: [&str; 2] = ["PATH", "LD_LIBRARY_PATH"];

/// A user id and its group id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// The user id of this process and the account that the servers run under.
#[derive(Clone, Copy, Debug)]
pub(super) struct Accounts {
    pub(super) own_uid: u32,
    /// `Some` only when this process is root.
    pub(super) unprivileged: Option<Account>,
}

impl Accounts {
    /// Reads the accounts from the operating system.
    pub(super) fn find() -> Result<Self, ServerError> {
        let own_uid = own_uid()?;
        if own_uid != 0 {
            return Ok(Self { own_uid, unprivileged: None });
        }
        let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let found = ["postgres", "nobody"].iter().find_map(|name| lookup(&users, name));
        Ok(Self { own_uid, unprivileged: Some(found.ok_or(ServerError::NoAccount)?) })
    }
}

fn own_uid() -> Result<u32, ServerError> {
    let what = || "could not get the user id from `id -u`".to_owned();
    let output = Command::new("id").arg("-u").output().map_err(|source| ServerError::Io { what: what(), source })?;
    let number = String::from_utf8_lossy(&output.stdout).trim().parse();
    number.map_err(|_| ServerError::Io { what: what(), source: std::io::ErrorKind::InvalidData.into() })
}

fn lookup(passwd: &str, name: &str) -> Option<Account> {
    let mut fields = passwd.lines().map(|line| line.split(':')).find(|fields| fields.clone().next() == Some(name))?;
    let uid = fields.nth(2)?.parse().ok()?;
    let gid = fields.next()?.parse().ok()?;
    Some(Account { uid, gid })
}

/// Builds a command that runs `program` as `account` (`None`: as the user of this process). The command runs in its own
/// process group, so that Ctrl-C reaches only this process. The kernel sends it `parent_death_signal` when this process
/// ends in any way.
pub(super) fn command(
    program: impl AsRef<OsStr>,
    account: Option<Account>,
    parent_death_signal: &str,
) -> Result<Command, ServerError> {
    let mut command = match (in_path("setpriv"), account) {
        (None, None) => Command::new(program),
        (None, Some(_)) => return Err(ServerError::Missing { program: "setpriv (of util-linux)" }),
        (Some(setpriv), account) => {
            let mut command = Command::new(setpriv);
            if let Some(Account { uid, gid }) = account {
                command.arg(format!("--reuid={uid}")).arg(format!("--regid={gid}")).arg("--clear-groups");
            }
            command.arg(format!("--pdeathsig={parent_death_signal}")).arg("--").arg(program);
            command
        }
    };
    command.env_clear().env("LC_ALL", "C").current_dir("/").process_group(0).stdin(Stdio::null());
    for name in KEPT {
        if let Some(value) = env::var_os(name) {
            command.env(name, value);
        }
    }
    Ok(command)
}

/// Returns whether `account` can reach `dir`. The kernel answers, because it also applies access lists and namespaces.
pub(super) fn can_reach(dir: &Path, account: Account) -> Result<bool, ServerError> {
    let mut test = command("test", Some(account), "KILL")?;
    test.arg("-x").arg(dir);
    let output = launcher::run(test, process::TOOL_LIMIT)
        .map_err(|source| ServerError::Io { what: "could not run setpriv".to_owned(), source })?;
    Ok(output.status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_found_by_its_whole_name() {
        let passwd = "root:x:0:0::/root:/bin/sh\nnobody2:x:9:9::/:\nnobody:x:65534:65533:nobody:/:/bin/false\n";
        assert_eq!(lookup(passwd, "nobody"), Some(Account { uid: 65534, gid: 65533 }));
        assert_eq!(lookup(passwd, "postgres"), None);
    }
}
