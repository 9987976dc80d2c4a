//! Cores for processes.

use std::process::Command;

/// Keeps a process, and what it starts from now on, to one core (`taskset`).
pub fn pin(pid: u32, core: usize) {
    let done = Command::new("taskset").args(["-a", "-c", "-p", &core.to_string(), &pid.to_string()]).output();
    assert!(done.is_ok_and(|done| done.status.success()), "taskset (util-linux) is needed to keep processes to a core");
}
