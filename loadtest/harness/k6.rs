//! Runs k6 and reads its results.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::process::{Child, Command};

use crate::failure::{Context, Failure, Result, bail};
use crate::processes::{self, Group, Watched};

/// The exit code of k6 when a threshold was crossed.
const THRESHOLDS_CROSSED: i32 = 99;

/// Finds k6 in `.tools` or on the search path.
pub fn find() -> Result<PathBuf> {
    let own = PathBuf::from(".tools/bin/k6");
    let on_path =
        || std::env::split_paths(&std::env::var_os("PATH")?).map(|dir| dir.join("k6")).find(|k6| k6.is_file());
    let found = if own.is_file() { own.canonicalize().ok() } else { on_path() };
    found.ok_or_else(|| Failure("k6 was not found: run `scripts/setup.sh load` to install it".to_owned()))
}

/// One threshold and whether it held.
#[derive(Clone, Debug)]
pub struct Threshold {
    pub metric: String,
    pub demand: String,
    /// The measured value, if the threshold is about a single value.
    pub found: Option<f64>,
    pub held: bool,
}

/// A running k6 process.
pub struct Running {
    child: Child,
    dir: PathBuf,
    name: String,
    watched: Watched,
}

/// The results of a run of k6.
pub struct Outcome {
    /// Every threshold, crossed ones first.
    pub thresholds: Vec<Threshold>,
    /// The summary: the values of each metric.
    pub metrics: Value,
    /// The figures that the scripts wrote each second, one JSON object per line.
    pub lines: String,
}

impl Outcome {
    /// Returns one value of a metric, or 0 when it is missing.
    pub fn figure(&self, metric: &str, field: &str) -> f64 {
        self.metrics[metric][field].as_f64().unwrap_or_default()
    }
}

/// Starts a scenario. Its parameters are in the environment, which other users cannot read.
pub fn start(k6: &Path, script: &Path, dir: &Path, env: &[(String, String)], watched: &Watched) -> Result<Running> {
    let name = script.file_stem().and_then(|name| name.to_str()).unwrap_or("k6").to_owned();
    for file in ["lines", "summary.json"] {
        let _ = std::fs::remove_file(dir.join(format!("{name}-k6.{file}")));
    }
    let log = File::create(dir.join(format!("{name}-k6.log")))?;
    let mut command = Command::from(processes::ending_with_parent(k6));
    command.args(["run", "--quiet", "--no-usage-report", "--no-color", "--address", "", "--log-format", "raw"]);
    command.arg("--summary-export").arg(dir.join(format!("{name}-k6.summary.json")));
    command.arg("--console-output").arg(dir.join(format!("{name}-k6.lines")));
    command.arg(script);
    command.env_clear().envs(env.iter().cloned()).env("HOME", dir).env("SERIES", "1");
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0).kill_on_drop(true);
    let child = command.spawn().with("k6 could not be started")?;
    watched.set(Group::LoadGenerator, &name, child.id());
    Ok(Running { child, dir: dir.to_owned(), name, watched: watched.clone() })
}

impl Running {
    /// Waits until k6 ends, at most `limit`, and reads its results.
    pub async fn wait(mut self, limit: Duration) -> Result<Outcome> {
        let ended = tokio::time::timeout(limit, self.child.wait()).await;
        self.watched.set(Group::LoadGenerator, &self.name, None);
        let Ok(status) = ended else { bail!("k6 did not end within {} s", limit.as_secs()) };
        let status = status?;
        let log = std::fs::read_to_string(self.file("log")).unwrap_or_default();
        if !status.success() && status.code() != Some(THRESHOLDS_CROSSED) {
            let tail: Vec<&str> = log.lines().rev().take(20).collect();
            bail!("k6 failed ({status}):\n{}", tail.into_iter().rev().collect::<Vec<_>>().join("\n"));
        }
        let summary = std::fs::read_to_string(self.file("summary.json")).with("k6 wrote no summary")?;
        let metrics =
            serde_json::from_str::<Value>(&summary).with("the summary of k6 cannot be parsed")?["metrics"].take();
        let thresholds = thresholds(&metrics);
        // The exit code and the summary must agree. Otherwise this code misreads one of them.
        if thresholds.iter().all(|one| one.held) != status.success() {
            bail!("k6 ended with {status}, which contradicts its summary");
        }
        let lines = std::fs::read_to_string(self.file("lines")).unwrap_or_default();
        Ok(Outcome { thresholds, metrics, lines })
    }

    fn file(&self, end: &str) -> PathBuf {
        self.dir.join(format!("{}-k6.{end}", self.name))
    }
}

/// Reads the thresholds of the summary. There, the value `true` means that the threshold was crossed.
fn thresholds(metrics: &Value) -> Vec<Threshold> {
    let mut found = Vec::new();
    for (metric, values) in metrics.as_object().into_iter().flatten() {
        for (demand, crossed) in values["thresholds"].as_object().into_iter().flatten() {
            let field = demand.split(['<', '>', '=']).next().unwrap_or(demand).trim();
            let field = if field == "p(50)" { "med" } else { field };
            found.push(Threshold {
                metric: metric.clone(),
                demand: demand.clone(),
                found: values[field].as_f64(),
                held: crossed == &Value::Bool(false),
            });
        }
    }
    found.sort_by(|a, b| (a.held, &a.metric).cmp(&(b.held, &b.metric)));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crossed_threshold_comes_first_with_the_measured_value() {
        let metrics = serde_json::json!({
            "acks": {"count": 0, "thresholds": {"count==0": false}},
            "ack_ms": {"med": 3, "p(99)": 9, "thresholds": {"p(50)<5": false, "p(99)<1": true}},
            "no_threshold": {"count": 1},
        });
        let found = thresholds(&metrics);
        let summary: Vec<_> = found.iter().map(|one| (one.demand.as_str(), one.found, one.held)).collect();
        assert_eq!(
            summary,
            [("p(99)<1", Some(9.0), false), ("p(50)<5", Some(3.0), true), ("count==0", Some(0.0), true)]
        );
    }
}
