//! CPU time and memory of processes, read from `/proc`, for measurements.

use std::fs;
use std::time::Duration;

use super::process::{children, stat};

/// The kernel reports CPU time in hundredths of a second (USER_HZ), whatever its own clock rate is.
const TICK: Duration = Duration::from_millis(10);

/// Returns the CPU time of a process, user and system. `None` when it has ended.
pub fn cpu(pid: u32) -> Option<Duration> {
    stat(pid).map(|stat| TICK * stat.ticks)
}

/// Like [`cpu`], children included: those that live, and those that ended and were waited for.
pub fn cpu_of_tree(pid: u32) -> Option<Duration> {
    let stat = stat(pid)?;
    Some(TICK * (stat.ticks + stat.ticks_of_ended) + children(pid).into_iter().filter_map(cpu).sum::<Duration>())
}

/// Returns a process and its living children.
pub fn tree(pid: u32) -> Vec<u32> {
    std::iter::once(pid).chain(children(pid)).collect()
}

/// Returns resident memory in bytes. `None` when the process has ended.
pub fn resident_bytes(pid: u32) -> Option<u64> {
    kib(pid, "status", "VmRSS:").map(|kib| kib * 1024)
}

/// Like [`resident_bytes`], but memory that processes share counts in equal parts for each of them.
pub fn proportional_bytes(pid: u32) -> Option<u64> {
    kib(pid, "smaps_rollup", "Pss:").map(|kib| kib * 1024)
}

fn kib(pid: u32, file: &str, name: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_working_process_uses_cpu_time_and_memory() {
        let own = std::process::id();
        let before = cpu(own).expect("this process");
        while cpu(own).expect("this process") == before {
            std::hint::black_box(vec![0_u8; 4096]);
        }
        assert!(cpu_of_tree(own) >= cpu(own));
        assert!(tree(own).contains(&own));
        let resident = resident_bytes(own).expect("this process");
        assert!(resident > 1 << 20, "{resident} bytes");
        assert!(proportional_bytes(own).expect("this process") <= resident);
        assert_eq!(cpu(u32::MAX), None);
    }
}
