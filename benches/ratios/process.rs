//! CPU time and memory of processes, from /proc.

use std::fs;
use std::time::Duration;

/// The kernel counts CPU time in hundredths of a second, whatever its own clock is (USER_HZ).
const TICKS_PER_SECOND: u64 = 100;

/// The numbers of `/proc/<pid>/stat` from the third field on.
fn stat(pid: u32) -> Option<Vec<i64>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets may hold spaces.
    let rest = &text[text.rfind(')')? + 2..];
    Some(rest.split(' ').skip(1).filter_map(|field| field.parse().ok()).collect())
}

/// User and system time that a process, and its children that ended, have used. Zero for one that is gone.
pub fn cpu(pid: u32) -> Duration {
    // utime, stime, cutime, cstime stand 14th to 17th in the line.
    let ticks: i64 = stat(pid).map_or(0, |fields| fields[10..14].iter().sum());
    Duration::from_millis(ticks.max(0).unsigned_abs() * 1000 / TICKS_PER_SECOND)
}

/// As [`cpu`], with the children that live.
pub fn cpu_of_tree(pid: u32) -> Duration {
    let Ok(entries) = fs::read_dir("/proc") else { return cpu(pid) };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let children = pids.filter(|child| stat(*child).is_some_and(|fields| fields[0] == i64::from(pid)));
    cpu(pid) + children.map(cpu).sum::<Duration>()
}

/// Resident memory in bytes.
pub fn resident_bytes(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// Keeps a process, and what it starts from now on, to one core (`taskset`).
pub fn pin(pid: u32, core: usize) {
    let done =
        std::process::Command::new("taskset").args(["-a", "-c", "-p", &core.to_string(), &pid.to_string()]).output();
    assert!(done.is_ok_and(|done| done.status.success()), "taskset (util-linux) is needed to keep processes to a core");
}
