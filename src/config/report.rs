//! The report that `check-config` prints: every setting, its value and the source of the value.
//!
//! Must not: show a secret. A secret is shown as `[set]` or `[not set]`.

use std::fmt;

use url::Url;

use super::secret::SecretUrl;
use super::settings::{SETTINGS, Setting, Shown};
use super::sources::{Origin, Sources};
use crate::domain::postgres_url;

/// The effective configuration without secrets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    file: Option<String>,
    rows: Vec<Row>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Row {
    setting: &'static str,
    group: &'static str,
    value: String,
    origin: Origin,
}

impl Report {
    /// Reports the effective values of `sources`, valid or not.
    pub fn new(sources: &Sources) -> Self {
        let rows = SETTINGS.iter().map(|setting| Row::new(setting, sources)).collect();
        Self { file: sources.file().map(|path| path.display().to_string()), rows }
    }
}

impl Row {
    fn new(setting: &'static Setting, sources: &Sources) -> Self {
        let (value, origin) = match (sources.value(setting), setting.shown) {
            (Some((_, origin)), Shown::Nothing) => ("[set]".to_owned(), origin),
            (Some((value, origin)), Shown::Url) => (shown_url(value), origin),
            (Some((value, origin)), Shown::Plain) => (value.escape_debug().to_string(), origin),
            (None, Shown::Plain) => (format!("({})", setting.otherwise), Origin::Default),
            (None, _) => ("[not set]".to_owned(), Origin::Default),
        };
        Self { setting: setting.name, group: setting.group.title(), value, origin }
    }
}

/// A URL without the parts that may be secret. A text that is not a URL may hold anything, so nothing of it is shown. A list of
/// PostgreSQL servers is shown as the URL of each server.
fn shown_url(value: &str) -> String {
    let urls = Url::parse(value).map(|url| vec![url]).ok().or_else(|| postgres_url::servers(value).ok());
    match urls {
        Some(urls) if urls.iter().all(Url::has_host) => {
            urls.into_iter().map(|url| SecretUrl::new(url).to_string()).collect::<Vec<_>>().join(", ")
        }
        _ => "[set]".to_owned(),
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            writeln!(f, "file: {file}")?;
        }
        let mut group = "";
        for row in &self.rows {
            if row.group != group {
                group = row.group;
                writeln!(f, "\n{group}")?;
            }
            writeln!(f, "  {:<30} {:<11}  {}", row.setting, row.origin, row.value)?;
        }
        Ok(())
    }
}
