//! Sends signals to a server and its children, and reads process data from `/proc`.
//!
//! The `kill` built into the shell sends the signals, because `unsafe` is forbidden in this crate and `/bin/kill` does not
//! exist on every system.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

/// The interval between two checks of a condition.
pub(super) const POLL: Duration = Duration::from_millis(20);

/// How long a small tool may run.
pub(super) const TOOL_LIMIT: Duration = Duration::from_secs(20);

/// How long to wait until a process shows as stopped.
const FREEZE_LIMIT: Duration = Duration::from_secs(2);

/// Signals to send in order, each with a time limit. SIGKILL to the whole process tree follows.
pub(super) type StopPlan = [(&'static str, Duration)];

/// The process of a server that this process started.
pub(super) struct Process(Child);

impl Process {
    pub(super) fn new(child: Child) -> Self {
        Self(child)
    }

    pub(super) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Returns whether the process has ended. It is then also reaped from the process table.
    pub(super) fn has_ended(&mut self) -> bool {
        !matches!(self.0.try_wait(), Ok(None))
    }

    /// Ends the process by the signals of `plan`, then by SIGKILL. The process may be frozen.
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

    /// Kills the process and all its children at once, like a crash of the machine.
    pub(super) fn kill(&mut self) {
        if !self.has_ended() {
            kill_tree(self.pid());
            let _ = self.0.wait();
        }
    }
}

/// Fields of `/proc/<pid>/stat`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stat {
    state: char,
    parent: u32,
    /// CPU time of the process itself, in hundredths of a second.
    pub(super) ticks: u32,
    /// CPU time of children that ended and were waited for, in hundredths of a second.
    pub(super) ticks_of_ended: u32,
    /// Start time in clock ticks since boot. Together with the process id it identifies a process.
    pub(super) started: u64,
}

/// Reads the state of a process. Returns `None` when it does not exist or is a zombie.
pub(super) fn stat(pid: u32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?).filter(|stat| stat.state != 'Z')
}

fn parse_stat(line: &str) -> Option<Stat> {
    // The name stands in parentheses and may itself contain spaces and parentheses.
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

/// Returns the arguments of a process, or none when it does not exist.
pub(super) fn arguments(pid: u32) -> Vec<String> {
    let bytes = fs::read(PathBuf::from(format!("/proc/{pid}/cmdline"))).unwrap_or_default();
    String::from_utf8_lossy(&bytes).split('\0').filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

pub(super) fn children(pid: u32) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|child| stat(*child).is_some_and(|stat| stat.parent == pid)).collect()
}

/// Sends a signal to each of `pids`. A process that has already ended is not an error.
pub(super) fn signal(name: &str, pids: &[u32]) -> io::Result<()> {
    let pids = pids.iter().map(u32::to_string);
    Command::new("sh").args(["-c", r#"kill -s "$0" "$@" 2>/dev/null"#, name]).args(pids).status().map(|_| ())
}

/// Suspends a process and its children. A signal to the process group would not reach them, because PostgreSQL gives each
/// child its own group. The parent is stopped first, so that it cannot start more children.
pub(super) fn freeze(pid: u32) -> io::Result<()> {
    signal("STOP", &[pid])?;
    wait_until(FREEZE_LIMIT, || stat(pid).is_none_or(|stat| stat.state == 'T'));
    signal("STOP", &children(pid))
}

/// Resumes a frozen process and its children.
pub(super) fn thaw(pid: u32) {
    let mut pids = children(pid);
    pids.push(pid);
    let _ = signal("CONT", &pids);
}

/// Kills a process and its children at once.
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

/// Waits for `condition`. Returns whether it became true within `limit`.
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
    fn stat_is_parsed_when_the_name_contains_spaces_and_parentheses() {
        let line = "7 (a) b (c) S 3 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 98765 1 2 3";
        let stat = Stat { state: 'S', parent: 3, ticks: 11, ticks_of_ended: 15, started: 98765 };
        assert_eq!(parse_stat(line), Some(stat));
        assert_eq!(parse_stat("nonsense"), None);
    }

    #[test]
    fn a_child_is_frozen_and_a_frozen_child_is_stopped() {
        let mut process = Process::new(Command::new("sleep").arg("60").spawn().expect("sleep"));
        let pid = process.pid();
        assert!(children(std::process::id()).contains(&pid));
        freeze(pid).expect("freeze");
        assert_eq!(stat(pid).map(|stat| stat.state), Some('T'));
        process.stop(&[("TERM", Duration::from_secs(5))]);
        assert_eq!(stat(pid), None);
    }
}
