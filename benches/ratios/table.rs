//! The table of results and the page that contains it.

use std::fmt::Write as _;
use std::path::Path;

/// One figure and its targets.
pub struct Row {
    /// The benchmark that measured it.
    pub name: &'static str,
    /// What is divided by what.
    pub what: String,
    /// The ratio.
    pub ratio: f64,
    /// The floor and the stretch target, if there are targets.
    pub target: Option<Target>,
    /// The figures that the ratio is computed from.
    pub detail: String,
}

/// The targets of a ratio: the floor, and the stretch target.
#[derive(Clone, Copy)]
pub enum Target {
    /// The ratio must not exceed the floor, and should not exceed the stretch target.
    AtMost(f64, f64),
    /// The ratio must not be below the floor, and should not be below the stretch target.
    AtLeast(f64, f64),
}

impl Target {
    fn columns(target: Option<Self>, ratio: f64) -> (String, &'static str) {
        let (text, floor, stretch) = match target {
            None => return ("–".to_owned(), "printed"),
            Some(Self::AtMost(floor, stretch)) => (format!("≤ {floor} / {stretch}"), ratio <= floor, ratio <= stretch),
            Some(Self::AtLeast(floor, stretch)) => (format!("≥ {floor} / {stretch}"), ratio >= floor, ratio >= stretch),
        };
        let met = if stretch {
            "stretch"
        } else if floor {
            "floor"
        } else {
            "**missed**"
        };
        (text, met)
    }
}

/// All rows that were measured.
#[derive(Default)]
pub struct Page {
    rows: Vec<Row>,
}

/// The benchmark replaces the text between these two lines of the page.
const BEGIN: &str = "<!-- figures: written by make bench -->";
const END: &str = "<!-- end of figures -->";

impl Page {
    pub fn extend(&mut self, rows: Vec<Row>) {
        for row in &rows {
            eprintln!("{}: {:.2} ({})", row.what, row.ratio, row.detail);
        }
        self.rows.extend(rows);
    }

    /// Returns the table as Markdown.
    pub fn table(&self) -> String {
        let mut text = String::from(
            "| benchmark | ratio | measured | floor / stretch | met | from |\n|---|---|---|---|---|---|\n",
        );
        for Row { name, what, ratio, target, detail } in &self.rows {
            let (target, met) = Target::columns(*target, *ratio);
            let _ = writeln!(text, "| `{name}` | {what} | {ratio:.2} | {target} | {met} | {detail} |");
        }
        text
    }

    /// Replaces the last table in the page.
    pub fn write(&self, path: &Path) {
        let page = std::fs::read_to_string(path).expect("the page");
        let (before, rest) = page.split_once(BEGIN).expect("the page marks where figures begin");
        let (_, after) = rest.split_once(END).expect("the page marks where figures end");
        let text = format!("{before}{BEGIN}\n\n{}\n\n{}\n{END}{after}", machine(), self.table());
        std::fs::write(path, text).expect("the page to be written");
    }
}

/// Describes the date, the machine and the versions of this run.
fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model =
        cpu.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1)).unwrap_or("unknown CPU");
    let memory = read("/proc/meminfo");
    let kib = memory.lines().next().and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).unwrap_or(0);
    // `/proc/cpuinfo` lists all cores, also when a benchmark has pinned this process to one.
    let cores = cpu.lines().filter(|line| line.starts_with("processor")).count();
    let version = |program: &str, argument: &str| {
        let output = std::process::Command::new(program).arg(argument).output().ok();
        let text = output.map(|output| String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or("").to_owned());
        text.unwrap_or_default()
    };
    format!(
        "Measured on {} with {cores} cores ({model}), {} GiB; {}; Node {}.",
        chrono::Utc::now().format("%Y-%m-%d"),
        kib.div_ceil(1024 * 1024),
        version("redis-server", "--version").split(' ').take(3).collect::<Vec<_>>().join(" "),
        version("node", "--version"),
    )
}
