//! Processes: signals, and what they use of the machine, looked at once a second.

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use driver_tracker::dev::servers::usage;

use crate::failure::Result;
use crate::now_ms;

const MIB: f64 = 1024.0 * 1024.0;

/// Whose use is shown apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Group {
    Service,
    Redis,
    Postgres,
    LoadGenerator,
}

impl Group {
    /// All, in the order of the report.
    pub const ALL: [Self; 4] = [Self::Service, Self::Redis, Self::Postgres, Self::LoadGenerator];

    /// As the report calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Redis => "Redis",
            Self::Postgres => "PostgreSQL",
            Self::LoadGenerator => "k6",
        }
    }
}

/// The processes to look at; they come and go while a scenario runs.
#[derive(Clone, Default)]
pub struct Watched(Arc<Mutex<HashMap<(Group, String), u32>>>);

impl Watched {
    /// From now on this process has that name in that group; `None`: none has.
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
        // PostgreSQL has a process for each connection.
        if group == Group::Postgres {
            return pids.into_iter().flat_map(usage::tree).collect();
        }
        pids
    }
}

/// What one group used at a moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Use {
    /// Processor time since the sample before, in cores.
    pub cores: f64,
    /// Memory in MiB: resident, for PostgreSQL with shared pages counted once.
    pub mib: f64,
}

/// One look at all groups.
#[derive(Clone, Debug)]
pub struct Sample {
    pub at_ms: u64,
    pub uses: HashMap<Group, Use>,
}

/// Looks once a second until it is dropped.
pub struct Sampler {
    samples: Arc<Mutex<Vec<Sample>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Sampler {
    pub fn start(watched: Watched) -> Self {
        let samples: Arc<Mutex<Vec<Sample>>> = Arc::default();
        let kept = samples.clone();
        let task = tokio::spawn(async move {
            let mut cpu = HashMap::new();
            let mut every = tokio::time::interval(Duration::from_secs(1));
            let mut last_ms = now_ms();
            look(&watched, &mut cpu, 1.0);
            every.tick().await;
            loop {
                every.tick().await;
                let at_ms = now_ms();
                let uses = look(&watched, &mut cpu, (at_ms - last_ms).max(1) as f64 / 1000.0);
                last_ms = at_ms;
                kept.lock().unwrap_or_else(PoisonError::into_inner).push(Sample { at_ms, uses });
            }
        });
        Self { samples, task }
    }

    /// What was seen.
    pub fn samples(&self) -> Vec<Sample> {
        self.samples.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn look(watched: &Watched, cpu: &mut HashMap<u32, Duration>, seconds: f64) -> HashMap<Group, Use> {
    let mut seen = HashMap::new();
    let mut uses = HashMap::new();
    for group in Group::ALL {
        let mut used = Use::default();
        for pid in watched.pids(group) {
            let Some(now) = usage::cpu(pid) else { continue };
            // A process that was not there before began with nothing.
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

/// PostgreSQL's processes share most of what they have.
fn memory_mib(pid: u32, group: Group) -> f64 {
    let shared = (group == Group::Postgres).then(|| usage::proportional_bytes(pid)).flatten();
    shared.or_else(|| usage::resident_bytes(pid)).map_or(0.0, |bytes| bytes as f64 / MIB)
}

/// A command that runs `program` and ends with this process, however that ends (where `setpriv` is).
pub fn dying_with_us(program: &Path) -> Command {
    let setpriv = ["/usr/bin/setpriv", "/bin/setpriv"].into_iter().find(|path| Path::new(path).is_file());
    let Some(setpriv) = setpriv else { return Command::new(program) };
    let mut command = Command::new(setpriv);
    command.arg("--pdeathsig=KILL").arg("--").arg(program);
    command
}

/// Sends a signal by the shell's own `kill`.
pub fn signal(pid: u32, name: &str) -> Result<()> {
    Command::new("sh").args(["-c", r#"kill -s "$0" "$1""#, name]).arg(pid.to_string()).status()?;
    Ok(())
}
