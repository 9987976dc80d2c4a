//! Collects the values of settings from all sources and decides which one is used.
//!
//! Invariants:
//! - The precedence is preset < file < environment < flag.
//! - An empty value counts as not set. `REDIS_KEY_PREFIX=` in a compose file therefore means the default.
//! - Problems found while reading (an unreadable file, an unknown key) are kept and reported with all other problems.
//!
//! Must not: validate a value, which `build` does.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use super::file;
use super::settings::{SETTINGS, Setting};

/// The environment variable that names the file when `--config` is not set.
pub const CONFIG_FILE_VARIABLE: &str = "DRIVER_TRACKER_CONFIG";

/// The source of a value.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Origin {
    /// The table of settings.
    Default,
    /// The command itself. For example, `dev` provides its own database.
    Preset,
    /// The file.
    File,
    /// The environment.
    Environment,
    /// The command line.
    Flag,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Default => "default",
            Self::Preset => "preset",
            Self::File => "file",
            Self::Environment => "environment",
            Self::Flag => "flag",
        })
    }
}

/// Every value that was set, by setting and source. The values are not validated.
#[derive(Clone, Default)]
pub struct Sources {
    given: BTreeMap<(&'static str, Origin), String>,
    file: Option<PathBuf>,
    problems: Vec<String>,
}

impl Sources {
    /// No sources: only the defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the values of the environment. `lookup` is [`std::env::var_os`], or a function of a test.
    pub fn with_environment(mut self, lookup: impl Fn(&str) -> Option<OsString>) -> Self {
        for setting in SETTINGS {
            match lookup(setting.name).map(OsString::into_string) {
                Some(Ok(value)) => self.put(setting, Origin::Environment, &value),
                Some(Err(_)) => self.problems.push(format!("{setting} (environment) must be UTF-8 text")),
                None => {}
            }
        }
        self
    }

    /// Reads a file and adds its values.
    pub fn with_file(self, path: &Path) -> Self {
        match file::read(path) {
            Ok(text) => self.with_file_text(path, &text),
            Err(sentence) => {
                let mut this = self;
                this.file = Some(path.to_owned());
                this.problems.push(sentence);
                this
            }
        }
    }

    /// Adds the values of a file with this text.
    pub fn with_file_text(mut self, path: &Path, text: &str) -> Self {
        let (values, problems) = file::parse(path, text);
        self.file = Some(path.to_owned());
        self.problems.extend(problems);
        for (setting, value) in values {
            self.put(setting, Origin::File, &value);
        }
        self
    }

    /// Sets a value by the setting's name in the environment. An unknown name is a programming error and is reported as a
    /// problem.
    pub fn set(&mut self, origin: Origin, name: &str, value: &str) {
        match Setting::named(name) {
            Some(setting) => self.put(setting, origin, value),
            None => self.problems.push(format!("{name} is not a setting")),
        }
    }

    /// The effective value, set or default, and its source.
    pub fn value(&self, setting: &'static Setting) -> Option<(&str, Origin)> {
        let range = (setting.name, Origin::Default)..=(setting.name, Origin::Flag);
        let given = self.given.range(range).next_back().map(|((_, origin), value)| (value.as_str(), *origin));
        given.or_else(|| setting.default.map(|value| (value, Origin::Default)))
    }

    /// The effective value of the setting with this name in the environment. `None` without a value.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.value(Setting::named(name)?).map(|(value, _)| value)
    }

    /// The effective value, unless it is the default.
    pub fn given(&self, name: &str) -> Option<&str> {
        let (value, origin) = self.value(Setting::named(name)?)?;
        (origin != Origin::Default).then_some(value)
    }

    /// The configuration file, even if it could not be read.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// The problems found while the sources were read.
    pub(super) fn problems(&self) -> &[String] {
        &self.problems
    }

    fn put(&mut self, setting: &'static Setting, origin: Origin, value: &str) {
        let value = value.trim();
        if !value.is_empty() {
            self.given.insert((setting.name, origin), value.to_owned());
        }
    }
}

impl fmt::Debug for Sources {
    /// Prints which settings were set and by which source, never their values.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.given.keys()).finish()
    }
}
