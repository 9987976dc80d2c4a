//! The report: one self-contained HTML file, and a short form for the terminal.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use crate::checks::Check;
use crate::k6::Outcome;
use crate::plot::{Line, Mark, chart, escaped, figure};
use crate::processes::{Group, Sample};
use crate::scenario::Scenario;
use crate::series::Series;

/// The results of one scenario.
pub struct ScenarioResult {
    pub scenario: Scenario,
    pub outcome: Outcome,
    pub checks: Vec<Check>,
    pub series: Series,
    pub samples: Vec<Sample>,
    pub marks: Vec<Mark>,
}

impl ScenarioResult {
    /// Returns whether every threshold and every check held.
    pub fn passed(&self) -> bool {
        self.outcome.thresholds.iter().all(|one| one.held) && self.checks.iter().all(|one| one.held)
    }

    /// Returns the most important figures.
    fn figures(&self) -> Vec<(&'static str, String)> {
        let quantiles = |metric: &str| {
            let of = |field: &str| figure(self.outcome.figure(metric, field));
            format!("{} / {} ms", of("med"), of("p(99)"))
        };
        let highest = |points: &[(f64, f64)]| points.iter().map(|(_, value)| *value).fold(0.0, f64::max);
        let mut figures = vec![
            ("most drivers connected", figure(highest(&self.series.connected()))),
            ("heartbeats acknowledged", figure(self.outcome.figure("heartbeats_acked", "count"))),
            ("most heartbeats a second", figure(highest(&self.series.count("heartbeats_acked")))),
            ("heartbeat → ack, p50 / p99", quantiles("heartbeat_ack_ms")),
        ];
        if !self.series.accepted.is_empty() {
            figures.push(("orders accepted", figure(self.series.accepted.len() as f64)));
            figures.push(("webhook → answer, p50 / p99", quantiles("webhook_ms")));
            figures.push(("webhook → assignment, p50 / p99", quantiles("assignment_ms")));
        }
        if self.outcome.figure("away_ms", "max") > 0.0 {
            figures.push(("disconnect → welcome, p50 / p99", quantiles("away_ms")));
        }
        for group in Group::ALL {
            let uses: Vec<_> = self.samples.iter().filter_map(|sample| sample.uses.get(&group)).collect();
            let mib = uses.iter().map(|one| one.mib).fold(0.0, f64::max);
            let cores = uses.iter().map(|one| one.cores).sum::<f64>() / uses.len().max(1) as f64;
            figures.push((
                match group {
                    Group::Service => "service, mean cores, highest memory",
                    Group::Redis => "Redis",
                    Group::Postgres => "PostgreSQL",
                    Group::LoadGenerator => "k6 itself",
                },
                format!("{cores:.2}, {mib:.0} MiB"),
            ));
        }
        figures
    }

    /// Returns the short form for the terminal.
    pub fn summary(&self) -> String {
        let mut text = String::new();
        for (name, value) in self.figures() {
            let _ = writeln!(text, "    {name:<38} {value}");
        }
        for (what, count) in self.series.by_code() {
            let _ = writeln!(text, "    {what:<38} {}", figure(count));
        }
        for one in self.outcome.thresholds.iter().filter(|one| !one.held) {
            let found = one.found.map(figure).unwrap_or_default();
            let _ = writeln!(text, "    CROSSED  {} {}  ({found})", one.metric, one.demand);
        }
        for one in self.checks.iter().filter(|one| !one.held) {
            let _ = writeln!(text, "    WRONG    {}: {}", one.what, one.found);
        }
        text
    }

    fn charts(&self) -> String {
        let named = |name: &str, points: Vec<(f64, f64)>| -> Line { (name.to_owned(), points) };
        let both = |metric: &str| {
            vec![named("p50", self.series.quantile(metric, 0.5)), named("p99", self.series.quantile(metric, 0.99))]
        };
        let uses = |of: fn(&crate::processes::Use) -> f64| -> Vec<Line> {
            let points = |group: Group| {
                let at = |sample: &Sample| Some((sample.at_ms as f64 / 1000.0, of(sample.uses.get(&group)?)));
                self.samples.iter().filter_map(at).collect()
            };
            Group::ALL.map(|group| named(group.name(), points(group))).to_vec()
        };
        let mut charts = vec![
            ("Drivers connected", vec![named("connected", self.series.connected())]),
            (
                "Heartbeats a second",
                vec![
                    named("sent", self.series.count("heartbeats_sent")),
                    named("acknowledged", self.series.count("heartbeats_acked")),
                ],
            ),
            ("Heartbeat → ack, ms", both("heartbeat_ack_ms")),
        ];
        if !self.series.accepted.is_empty() {
            charts.push((
                "Orders a second",
                vec![
                    named("accepted", self.series.count("orders_accepted")),
                    named("assigned", self.series.count("assignments")),
                    named("delivered", self.series.count("deliveries_done")),
                ],
            ));
            charts.push(("Webhook → assignment on the driver's socket, ms", both("assignment_ms")));
        }
        charts.push((
            "Errors a second",
            vec![
                named("frames", self.series.count("frame_errors")),
                named("retries", self.series.count("frame_retries")),
                named("upgrades", self.series.count("upgrades_failed")),
                named("order retries", self.series.count("order_retries")),
            ],
        ));
        charts.push(("Processor, cores", uses(|one| one.cores)));
        charts.push(("Memory, MiB", uses(|one| one.mib)));
        let times = || self.series.seconds.keys().map(|t| *t as f64);
        let span = (times().fold(f64::MAX, f64::min), times().fold(0.0, f64::max));
        charts.iter().map(|(title, lines)| chart(title, span, lines, &self.marks)).collect()
    }

    fn html(&self) -> String {
        let Scenario { name, about, drivers, seconds, order_rate, nodes, .. } = &self.scenario;
        let verdict = if self.passed() { "passed" } else { "failed" };
        let mut html = format!(
            "<section id=\"{name}\"><h2>{name} <span class=\"{verdict}\">{verdict}</span></h2><p>{}</p>\
             <p>{drivers} drivers, {nodes} node(s), {seconds} s, {} orders a second.</p><table>",
            escaped(about),
            figure(*order_rate)
        );
        for (what, value) in self.figures() {
            let _ = write!(html, "<tr><td>{}</td><td>{}</td></tr>", escaped(what), escaped(&value));
        }
        for (what, count) in self.series.by_code() {
            let _ = write!(html, "<tr><td>{}</td><td>{}</td></tr>", escaped(&what), figure(count));
        }
        html.push_str("</table>");
        html.push_str(&self.charts());
        html.push_str("<details><summary>Thresholds and checks</summary><table>");
        let mut row = |held: bool, what: &str, found: &str| {
            let (class, word) = if held { ("passed", "held") } else { ("failed", "crossed") };
            let (what, found) = (escaped(what), escaped(found));
            let _ = write!(html, "<tr><td class=\"{class}\">{word}</td><td>{what}</td><td>{found}</td></tr>");
        };
        for one in &self.outcome.thresholds {
            row(one.held, &format!("{} {}", one.metric, one.demand), &one.found.map(figure).unwrap_or_default());
        }
        for one in &self.checks {
            row(one.held, &one.what, &one.found);
        }
        html.push_str("</table></details></section>");
        html
    }
}

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:800px;margin:2em auto;padding:0 1em;color:#1f2328}\
    table{border-collapse:collapse;margin:1em 0}td{padding:2px 14px 2px 0;vertical-align:top}svg{display:block;margin:1em 0}\
    .passed{color:#1a7f37}.failed{color:#d1242f}polyline{fill:none;stroke-width:1.5}.grid{stroke:#d8dee4}\
    .mark{stroke:#8c959f;stroke-dasharray:4 3}text{font:11px system-ui,sans-serif;fill:#57606a}.y{text-anchor:end}\
    .x{text-anchor:middle}.title{font-weight:600;fill:#1f2328}";

/// Writes the report into `dir` and returns its path.
pub fn write(dir: &Path, about_run: &[(&str, String)], results: &[ScenarioResult]) -> std::io::Result<PathBuf> {
    std::fs::create_dir_all(dir)?;
    let at = chrono::Utc::now();
    let when = at.format("%F %H:%M UTC");
    let mut html = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Load tests {when}</title>\
         <style>{STYLE}</style><h1>driver-tracker under load</h1><p>{when}</p><table>",
    );
    for (what, value) in about_run {
        let _ = write!(html, "<tr><td>{}</td><td>{}</td></tr>", escaped(what), escaped(value));
    }
    html.push_str(
        "</table><p>Times are measured by k6 in whole milliseconds. k6 runs on the same machine as everything else. When k6 and \
         the service together use all cores, the times describe the machine and not the service.</p>",
    );
    results.iter().for_each(|one| html.push_str(&one.html()));
    html.push_str("</html>\n");
    let path = dir.join(format!("{}.html", at.format("%Y%m%d-%H%M%S")));
    std::fs::write(&path, &html)?;
    std::fs::write(dir.join("latest.html"), &html)?;
    Ok(path)
}
