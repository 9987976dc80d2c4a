//! An invalid field of a request, named by its path.

use serde::Serialize;

/// One entry of `errors` in a problem document.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct FieldError {
    /// The path of the field, such as `pickup.lat`.
    pub field: String,
    /// A stable code: `required`, `type`, `length`, `characters`, `range`, `form`, `unknown` or `repeated`.
    pub code: &'static str,
    /// What a valid value is, in words.
    pub message: String,
}

impl FieldError {
    /// Creates an entry.
    pub fn new(field: impl Into<String>, code: &'static str, message: impl Into<String>) -> Self {
        Self { field: field.into(), code, message: message.into() }
    }
}
