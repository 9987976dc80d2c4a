//! The problems of a configuration, all at once. Each is a sentence that says what to change.
//!
//! Must not: hold the value of a secret in a sentence.

use std::fmt;

/// Every problem of a configuration. Never empty.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigErrors(Vec<String>);

impl ConfigErrors {
    /// From all problems, at least one.
    pub(super) fn new(problems: Vec<String>) -> Self {
        debug_assert!(!problems.is_empty(), "an error says what is wrong");
        Self(problems)
    }

    /// From one problem.
    pub fn one(sentence: impl Into<String>) -> Self {
        Self(vec![sentence.into()])
    }

    /// The sentences, in the order of the table of settings.
    pub fn sentences(&self) -> &[String] {
        &self.0
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the configuration cannot work:")?;
        self.0.iter().try_for_each(|sentence| write!(f, "\n  - {sentence}"))
    }
}
