//! Processes: signals, and what they use of the machine, read from `/proc` once a second.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::failure::Result;
use crate::now_ms;

/// Ticks of `/proc/<pid>/stat` in a second: what Linux tells programs, on every architecture that matters here.
const TICKS_A_SECOND: f64 = 100.0;

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
        let mut pids: Vec<u32> = self.all().iter().filter(|((of, _), _)| *of == group).map(|(_, pid)| *pid).collect();
        // PostgreSQL has a process for each connection.
        if group == Group::Postgres {
            pids.extend(pids.clone().into_iter().flat_map(children));
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
            let mut ticks = HashMap::new();
            let mut every = tokio::time::interval(Duration::from_secs(1));
            let mut last_ms = now_ms();
            look(&watched, &mut ticks, 1.0);
            every.tick().await;
            loop {
                every.tick().await;
                let at_ms = now_ms();
                let uses = look(&watched, &mut ticks, (at_ms - last_ms).max(1) as f64 / 1000.0);
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

fn look(watched: &Watched, ticks: &mut HashMap<u32, f64>, seconds: f64) -> HashMap<Group, Use> {
    let mut seen = HashMap::new();
    let mut uses = HashMap::new();
    for group in Group::ALL {
        let mut used = Use::default();
        for pid in watched.pids(group) {
            let Some(now) = cpu_ticks(pid) else { continue };
            // A process that was not there before began with nothing.
            let before = ticks.get(&pid).copied().filter(|before| *before <= now).unwrap_or_default();
            used.cores += (now - before) / TICKS_A_SECOND / seconds;
            used.mib += memory_mib(pid, group == Group::Postgres).unwrap_or_default();
            seen.insert(pid, now);
        }
        uses.insert(group, used);
    }
    *ticks = seen;
    uses
}

fn stat_fields(pid: u32) -> Option<Vec<String>> {
    let line = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold spaces.
    Some(line[line.rfind(')')? + 1..].split_whitespace().map(str::to_owned).collect())
}

fn cpu_ticks(pid: u32) -> Option<f64> {
    let fields = stat_fields(pid)?;
    let field = |at: usize| fields.get(at)?.parse::<f64>().ok();
    Some(field(11)? + field(12)?)
}

fn children(pid: u32) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let is_child = |child: &u32| stat_fields(*child).is_some_and(|fields| fields.get(1) == Some(&pid.to_string()));
    pids.filter(is_child).collect()
}

fn memory_mib(pid: u32, shared: bool) -> Option<f64> {
    let kib = |file: &str, name: &str| {
        let text = fs::read_to_string(format!("/proc/{pid}/{file}")).ok()?;
        let line = text.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse::<f64>().ok()
    };
    let proportional = shared.then(|| kib("smaps_rollup", "Pss:")).flatten();
    proportional.or_else(|| kib("status", "VmRSS:")).map(|kib| kib / 1024.0)
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
