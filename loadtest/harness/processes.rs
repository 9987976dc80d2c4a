//! Sends signals to processes, and samples their CPU time and memory once a second.

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use driver_tracker::dev::servers::usage;

use crate::failure::Result;
use crate::now_ms;

const MIB: f64 = 1024.0 * 1024.0;

/// The groups of processes that the report lists separately.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Group {
    Service,
    Redis,
    Postgres,
    LoadGenerator,
}

impl Group {
    /// All groups, in the order of the report.
    pub const ALL: [Self; 4] = [Self::Service, Self::Redis, Self::Postgres, Self::LoadGenerator];

    /// Returns the name in the report.
    pub fn name(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Redis => "Redis",
            Self::Postgres => "PostgreSQL",
            Self::LoadGenerator => "k6",
        }
    }
}

/// The processes to sample. They start and end while a scenario runs.
#[derive(Clone, Default)]
pub struct Watched(Arc<Mutex<HashMap<(Group, String), u32>>>);

impl Watched {
    /// Sets the process of this name in this group. `None` removes it.
    pub fn set(&self, group: Group, name: &str, pid: Option<u32>) {
        let mut all = self.all();
        match pid {
            Some(pid) => drop(all.insert((group, name.to_owned()), pid)),
            None => drop(all.remove(&(group, name.to_owned()))),
        }
    }

    fn all(&self) -> MutexGuard<'_, HashMap<(Group, String), u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pids(&self, group: Group) -> Vec<u32> {
        let pids: Vec<u32> = self.all().iter().filter(|((of, _), _)| *of == group).map(|(_, pid)| *pid).collect();
        // PostgreSQL runs one process for each connection.
        if group == Group::Postgres {
            return pids.into_iter().flat_map(usage::tree).collect();
        }
        pids
    }
}

/// The usage of one group in one sample.
#[derive(Clone, Copy, Debug, Default)]
pub struct Use {
    /// CPU time since the previous sample, in cores.
    pub cores: f64,
    /// Resident memory in MiB. For PostgreSQL, shared pages count once.
    pub mib: f64,
}

/// One sample of all groups.
#[derive(Clone, Debug)]
pub struct Sample {
    pub at_ms: u64,
    pub uses: HashMap<Group, Use>,
}

/// Takes a sample once a second until it is dropped.
pub struct Sampler {
    samples: Arc<Mutex<Vec<Sample>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Sampler {
    pub fn start(watched: Watched) -> Self {
        let samples: Arc<Mutex<Vec<Sample>>> = Arc::default();
        let sink = samples.clone();
        let task = tokio::spawn(async move {
            let mut cpu = HashMap::new();
            let mut every = tokio::time::interval(Duration::from_secs(1));
            let mut last_ms = now_ms();
            sample_uses(&watched, &mut cpu, 1.0);
            every.tick().await;
            loop {
                every.tick().await;
                let at_ms = now_ms();
                let uses = sample_uses(&watched, &mut cpu, (at_ms - last_ms).max(1) as f64 / 1000.0);
                last_ms = at_ms;
                sink.lock().unwrap_or_else(PoisonError::into_inner).push(Sample { at_ms, uses });
            }
        });
        Self { samples, task }
    }

    /// Returns all samples.
    pub fn samples(&self) -> Vec<Sample> {
        self.samples.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn sample_uses(watched: &Watched, cpu: &mut HashMap<u32, Duration>, seconds: f64) -> HashMap<Group, Use> {
    let mut seen = HashMap::new();
    let mut uses = HashMap::new();
    for group in Group::ALL {
        let mut used = Use::default();
        for pid in watched.pids(group) {
            let Some(now) = usage::cpu(pid) else { continue };
            // A new process starts with no CPU time.
            let before = cpu.get(&pid).copied().filter(|before| *before <= now).unwrap_or_default();
            used.cores += (now - before).as_secs_f64() / seconds;
            used.mib += memory_mib(pid, group);
            seen.insert(pid, now);
        }
        uses.insert(group, used);
    }
    *cpu = seen;
    uses
}

/// Returns the memory of a process. PostgreSQL's processes share most of their memory, so their shares are added up.
fn memory_mib(pid: u32, group: Group) -> f64 {
    let shared = (group == Group::Postgres).then(|| usage::proportional_bytes(pid)).flatten();
    shared.or_else(|| usage::resident_bytes(pid)).map_or(0.0, |bytes| bytes as f64 / MIB)
}

/// Builds a command that runs `program` and is killed when this process ends in any way. This needs `setpriv`; without it
/// the command may outlive this process.
pub fn ending_with_parent(program: &Path) -> Command {
    let setpriv = ["/usr/bin/setpriv", "/bin/setpriv"].into_iter().find(|path| Path::new(path).is_file());
    let Some(setpriv) = setpriv else { return Command::new(program) };
    let mut command = Command::new(setpriv);
    command.arg("--pdeathsig=KILL").arg("--").arg(program);
    command
}

/// Sends a signal with the `kill` built into the shell.
pub fn signal(pid: u32, name: &str) -> Result<()> {
    Command::new("sh").args(["-c", r#"kill -s "$0" "$1""#, name]).arg(pid.to_string()).status()?;
    Ok(())
}
