//! Processes: signals to a server and all its children, and what `/proc` says.
//!
//! Signals go out by the shell's own `kill`, since `unsafe` is forbidden here and `/bin/kill` is not everywhere.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

/// How often a condition is looked at while waiting.
pub(super) const POLL: Duration = Duration::from_millis(20);

/// How long a small tool may run.
pub(super) const TOOL_LIMIT: Duration = Duration::from_secs(20);

/// How long a frozen process may take to be seen frozen.
const FREEZE_LIMIT: Duration = Duration::from_secs(2);

/// Signals to try in turn, and how long each may take. SIGKILL to the whole tree follows.
pub(super) type StopPlan = [(&'static str, Duration)];

/// A server that we started.
pub(super) struct Process(Child);

impl Process {
    pub(super) fn new(child: Child) -> Self {
        Self(child)
    }

    pub(super) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Whether it has ended; its entry in the process table is then gone too.
    pub(super) fn has_ended(&mut self) -> bool {
        !matches!(self.0.try_wait(), Ok(None))
    }

    /// Ends it gently, then less so. It may be frozen.
    pub(super) fn stop(&mut self, plan: &StopPlan) {
        for (name, limit) in plan {
            if self.has_ended() {
                return;
            }
            let _ = signal(name, &[self.pid()]);
            thaw(self.pid());
            if wait_until(*limit, || self.has_ended()) {
                return;
            }
        }
        self.kill();
    }

    /// Ends it and all its children at once, as a crash of the machine would.
    pub(super) fn kill(&mut self) {
        if !self.has_ended() {
            kill_tree(self.pid());
            let _ = self.0.wait();
        }
    }
}

/// What `/proc/<pid>/stat` says of a process.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stat {
    state: char,
    parent: u32,
    /// CPU time in hundredths of a second: its own, and that of children that ended and were waited for.
    pub(super) ticks: u32,
    pub(super) ticks_of_ended: u32,
    /// In clock ticks since boot: with the process id, the identity of a process.
    pub(super) started: u64,
}

/// Looks a process up; `None` when there is none, or only its body is left.
pub(super) fn stat(pid: u32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?).filter(|stat| stat.state != 'Z')
}

fn parse_stat(line: &str) -> Option<Stat> {
    // The name, in parentheses, may hold spaces and parentheses itself.
    let fields: Vec<&str> = line[line.rfind(')')? + 1..].split_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<u32>().ok();
    Some(Stat {
        state: fields.first()?.chars().next()?,
        parent: number(1)?,
        ticks: number(11)? + number(12)?,
        ticks_of_ended: number(13)? + number(14)?,
        started: fields.get(19)?.parse().ok()?,
    })
}

/// The arguments of a process; empty when there is none.
pub(super) fn arguments(pid: u32) -> Vec<String> {
    let bytes = fs::read(PathBuf::from(format!("/proc/{pid}/cmdline"))).unwrap_or_default();
    String::from_utf8_lossy(&bytes).split('\0').filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

pub(super) fn children(pid: u32) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|child| stat(*child).is_some_and(|stat| stat.parent == pid)).collect()
}

/// Sends a signal to each of `pids`. One that is gone already is no error.
pub(super) fn signal(name: &str, pids: &[u32]) -> io::Result<()> {
    let pids = pids.iter().map(u32::to_string);
    Command::new("sh").args(["-c", r#"kill -s "$0" "$@" 2>/dev/null"#, name]).args(pids).status().map(|_| ())
}

/// Stops a process and its children where they stand (PostgreSQL gives each child a process group of its own, so a group
/// is not enough). The parent first: it can then start no more of them.
pub(super) fn freeze(pid: u32) -> io::Result<()> {
    signal("STOP", &[pid])?;
    wait_until(FREEZE_LIMIT, || stat(pid).is_none_or(|stat| stat.state == 'T'));
    signal("STOP", &children(pid))
}

/// Lets a frozen process and its children go on.
pub(super) fn thaw(pid: u32) {
    let mut pids = children(pid);
    pids.push(pid);
    let _ = signal("CONT", &pids);
}

/// Ends a process and its children at once.
pub(super) fn kill_tree(pid: u32) {
    let _ = freeze(pid);
    let mut pids = children(pid);
    pids.push(pid);
    let _ = signal("KILL", &pids);
}

/// Ends a process that an earlier run left behind.
pub(super) fn end_leftover(pid: u32, plan: &StopPlan) {
    let Some(found) = stat(pid) else { return };
    let has_ended = || stat(pid).is_none_or(|now| now.started != found.started);
    for (name, limit) in plan {
        let _ = signal(name, &[pid]);
        thaw(pid);
        if wait_until(*limit, has_ended) {
            return;
        }
    }
    kill_tree(pid);
    wait_until(FREEZE_LIMIT, has_ended);
}

/// Waits for `condition`; whether it came true in time.
pub(super) fn wait_until(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    while !condition() {
        if Instant::now() > deadline {
            return false;
        }
        thread::sleep(POLL);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_read_whatever_the_process_is_called() {
        let line = "7 (a) b (c) S 3 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 98765 1 2 3";
        let stat = Stat { state: 'S', parent: 3, ticks: 11, ticks_of_ended: 15, started: 98765 };
        assert_eq!(parse_stat(line), Some(stat));
        assert_eq!(parse_stat("nonsense"), None);
    }

    #[test]
    fn a_child_is_frozen_thawed_and_ended() {
        let mut process = Process::new(Command::new("sleep").arg("60").spawn().expect("sleep"));
        let pid = process.pid();
        assert!(children(std::process::id()).contains(&pid));
        freeze(pid).expect("freeze");
        assert_eq!(stat(pid).map(|stat| stat.state), Some('T'));
        process.stop(&[("TERM", Duration::from_secs(5))]);
        assert_eq!(stat(pid), None);
    }
}
