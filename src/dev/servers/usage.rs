//! What processes use, from `/proc`: for measurements.

use std::fs;
use std::time::Duration;

use super::process::{children, stat};

/// The kernel counts in hundredths of a second, whatever its own clock is (USER_HZ).
const TICK: Duration = Duration::from_millis(10);

/// CPU time that a process has used, user and system. `None` when it is gone.
pub fn cpu(pid: u32) -> Option<Duration> {
    stat(pid).map(|stat| TICK * stat.ticks)
}

/// As [`cpu`], with its children: those that live, and those that ended and were waited for.
pub fn cpu_of_tree(pid: u32) -> Option<Duration> {
    let stat = stat(pid)?;
    Some(TICK * (stat.ticks + stat.ticks_of_ended) + children(pid).into_iter().filter_map(cpu).sum::<Duration>())
}

/// A process and its children that live.
pub fn tree(pid: u32) -> Vec<u32> {
    std::iter::once(pid).chain(children(pid)).collect()
}

/// Resident memory in bytes. `None` when the process is gone.
pub fn resident_bytes(pid: u32) -> Option<u64> {
    kib(pid, "status", "VmRSS:").map(|kib| kib * 1024)
}

/// As [`resident_bytes`], with each process's part of what it shares with others.
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
    fn a_process_that_works_uses_time_and_memory() {
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
