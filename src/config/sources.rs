//! Where values come from, and which one wins: preset < file < environment < flag.
//!
//! A value that is empty counts as not given, so that `REDIS_KEY_PREFIX=` in a compose file means the default. Problems
//! found while reading (a file that cannot be read, a key that does not exist) are kept and reported with all the others.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use super::file;
use super::settings::{SETTINGS, Setting};

/// The environment's name for the file, where `--config` is not given.
pub const CONFIG_FILE_VARIABLE: &str = "DRIVER_TRACKER_CONFIG";

/// Where a value came from.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Origin {
    /// The table of settings.
    Default,
    /// The command itself, as `dev` brings its own database.
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

/// Every value that was given, by setting and source; nothing is validated yet.
#[derive(Clone, Default)]
pub struct Sources {
    given: BTreeMap<(&'static str, Origin), String>,
    file: Option<PathBuf>,
    problems: Vec<String>,
}

impl Sources {
    /// Nothing given: the defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds what the environment gives; `lookup` is [`std::env::var_os`], or a test's own.
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

    /// Adds the values of a file that is read now.
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

    /// Adds the values of a file whose text is known.
    pub fn with_file_text(mut self, path: &Path, text: &str) -> Self {
        let (values, problems) = file::parse(path, text);
        self.file = Some(path.to_owned());
        self.problems.extend(problems);
        for (setting, value) in values {
            self.put(setting, Origin::File, &value);
        }
        self
    }

    /// Sets a value by the name that it has in the environment. A name that is no setting is a programmer's mistake and
    /// is reported as a problem.
    pub fn set(&mut self, origin: Origin, name: &str, value: &str) {
        match Setting::named(name) {
            Some(setting) => self.put(setting, origin, value),
            None => self.problems.push(format!("{name} is not a setting")),
        }
    }

    /// The value that wins, as it was given or by default, and where it came from.
    pub fn value(&self, setting: &'static Setting) -> Option<(&str, Origin)> {
        let range = (setting.name, Origin::Default)..=(setting.name, Origin::Flag);
        let given = self.given.range(range).next_back().map(|((_, origin), value)| (value.as_str(), *origin));
        given.or_else(|| setting.default.map(|value| (value, Origin::Default)))
    }

    /// The winning value of the setting that has this name in the environment; `None` when it has none.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.value(Setting::named(name)?).map(|(value, _)| value)
    }

    /// The winning value that somebody gave; a default is nobody's.
    pub fn given(&self, name: &str) -> Option<&str> {
        let (value, origin) = self.value(Setting::named(name)?)?;
        (origin != Origin::Default).then_some(value)
    }

    /// The file that was read, or was to be.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// What went wrong while the sources were read.
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
    /// Says which settings were given and where; never their values.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.given.keys()).finish()
    }
}
