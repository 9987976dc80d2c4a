//! Reads the fields of a JSON object. All errors are collected, so that the answer names every invalid field at once.
//! `null` means absent, except in [`Fields::is_null`].

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};

use crate::domain::fields::FieldError;
use crate::domain::ids::ExternalId;
use crate::domain::moment::parse_moment;
use crate::http::problem::Problem;

/// The most characters of a name or a telephone number.
const MAX_NAME_CHARS: usize = 200;
/// The most characters of a reason.
const MAX_REASON_CHARS: usize = 1000;
/// The most characters of a URL.
const MAX_URL_CHARS: usize = 2048;
/// The most bytes of metadata, as compact JSON.
const MAX_METADATA_BYTES: usize = 4096;

/// The fields of one JSON object.
pub struct Fields<'a> {
    object: &'a Map<String, Value>,
    prefix: &'a str,
    errors: Vec<FieldError>,
}

impl<'a> Fields<'a> {
    /// Reads `object`. Errors use its own field names.
    pub fn of(object: &'a Map<String, Value>) -> Self {
        Self { object, prefix: "", errors: Vec::new() }
    }

    fn within(object: &'a Map<String, Value>, prefix: &'a str) -> Self {
        Self { object, prefix, errors: Vec::new() }
    }

    /// Records an error of a field.
    pub fn fault(&mut self, name: &str, code: &'static str, message: impl Into<String>) {
        self.errors.push(FieldError::new(format!("{}{name}", self.prefix), code, message));
    }

    /// Returns the 422 when any field is invalid.
    pub fn finish(self) -> Result<(), Problem> {
        if self.errors.is_empty() { Ok(()) } else { Err(Problem::fields(self.errors)) }
    }

    /// Whether the field is present and null, for fields where null removes a value.
    pub fn is_null(&self, name: &str) -> bool {
        self.object.get(name).is_some_and(Value::is_null)
    }

    fn get(&self, name: &str) -> Option<&'a Value> {
        self.object.get(name).filter(|value| !value.is_null())
    }

    fn typed<T>(&mut self, name: &str, kind: &str, take: impl FnOnce(&'a Value) -> Option<T>) -> Option<T> {
        let value = self.get(name)?;
        let taken = take(value);
        if taken.is_none() {
            self.fault(name, "type", format!("must be {kind}"));
        }
        taken
    }

    /// Reads a required value. An absent field is an error.
    pub fn required<T>(&mut self, name: &str, read: impl FnOnce(&mut Self, &str) -> Option<T>) -> Option<T> {
        if self.get(name).is_none() {
            self.fault(name, "required", "is required");
            return None;
        }
        read(self, name)
    }

    fn text_of(&mut self, name: &str, max_chars: usize) -> Option<String> {
        let text = self.typed(name, "a string", Value::as_str)?;
        if text.trim().is_empty() || text.chars().count() > max_chars {
            self.fault(name, "length", format!("must have 1 to {max_chars} characters"));
            return None;
        }
        if text.contains('\0') {
            self.fault(name, "characters", "must not contain NUL");
            return None;
        }
        Some(text.to_owned())
    }

    /// A name or a telephone number: 1 to 200 characters.
    pub fn name(&mut self, name: &str) -> Option<String> {
        self.text_of(name, MAX_NAME_CHARS)
    }

    /// A reason, as free text.
    pub fn reason(&mut self, name: &str) -> Option<String> {
        self.text_of(name, MAX_REASON_CHARS)
    }

    /// One of a fixed set of words.
    pub fn choice<T>(&mut self, name: &str, words: &str, take: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        let text = self.typed(name, "a string", Value::as_str)?;
        let taken = take(text);
        if taken.is_none() {
            self.fault(name, "unknown", format!("must be one of {words}"));
        }
        taken
    }

    /// A boolean.
    pub fn boolean(&mut self, name: &str) -> Option<bool> {
        self.typed(name, "true or false", Value::as_bool)
    }

    /// How many deliveries fit: a whole number from 1 to 100.
    pub fn capacity(&mut self, name: &str) -> Option<i32> {
        self.whole(name, 1, 100).and_then(|number| i32::try_from(number).ok())
    }

    /// A rate per second: a whole number from 0 (no limit) to a million.
    pub fn rate(&mut self, name: &str) -> Option<i32> {
        self.whole(name, 0, 1_000_000).and_then(|number| i32::try_from(number).ok())
    }

    /// A duration: whole seconds from 0 to `most`.
    pub fn seconds(&mut self, name: &str, most: i64) -> Option<i64> {
        self.whole(name, 0, most)
    }

    fn whole(&mut self, name: &str, least: i64, most: i64) -> Option<i64> {
        let number = self.typed(name, "a whole number", Value::as_i64)?;
        let fits = (least..=most).contains(&number);
        if !fits {
            self.fault(name, "range", format!("must be from {least} to {most}"));
        }
        fits.then_some(number)
    }

    /// A URL, checked by `read`. Its error completes the sentence that starts with the field.
    pub fn url(&mut self, name: &str, read: impl FnOnce(&str) -> Result<String, String>) -> Option<String> {
        let text = self.text_of(name, MAX_URL_CHARS)?;
        read(&text).map_err(|rest| self.fault(name, "form", rest)).ok()
    }

    /// A text, read by `read`. `what` names the expected form.
    pub fn parse<T>(&mut self, name: &str, what: &str, read: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        let text = self.typed(name, "a string", Value::as_str)?;
        let taken = read(text);
        if taken.is_none() {
            self.fault(name, "form", format!("must be {what}"));
        }
        taken
    }

    /// An RFC 3339 time.
    pub fn moment(&mut self, name: &str) -> Option<DateTime<Utc>> {
        self.parse(name, "an RFC 3339 time", parse_moment)
    }

    /// An internal id: a UUID.
    pub fn id<T: std::str::FromStr>(&mut self, name: &str) -> Option<T> {
        let text = self.typed(name, "a string", Value::as_str)?;
        let id = text.parse().ok();
        if id.is_none() {
            self.fault(name, "form", "must be a UUID");
        }
        id
    }

    /// An external id, chosen by the caller. An integer is accepted as its decimal text.
    pub fn external_id(&mut self, name: &str) -> Option<ExternalId> {
        let text = self.typed(name, "a string or an integer", |value| match value {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) if number.is_i64() || number.is_u64() => Some(number.to_string()),
            _ => None,
        })?;
        match ExternalId::parse(&text) {
            Ok(id) => Some(id),
            Err(error) => {
                self.fault(name, "form", error.to_string());
                None
            }
        }
    }

    /// Metadata of the caller: a JSON object of at most 4 KiB.
    pub fn metadata(&mut self, name: &str) -> Option<Value> {
        let value = self.typed(name, "an object", |value| value.is_object().then_some(value))?;
        if value.to_string().len() > MAX_METADATA_BYTES {
            self.fault(name, "length", format!("must be at most {MAX_METADATA_BYTES} bytes"));
            return None;
        }
        if holds_nul(value) {
            self.fault(name, "characters", "must not contain NUL");
            return None;
        }
        Some(value.clone())
    }

    /// A nested object, read by `read`. Its fields are named `name.field`.
    pub fn object<T>(&mut self, name: &str, read: impl FnOnce(&mut Fields<'_>) -> Option<T>) -> Option<T> {
        let inner = self.typed(name, "an object", Value::as_object)?;
        let prefix = format!("{}{name}.", self.prefix);
        let mut fields = Fields::within(inner, &prefix);
        let taken = read(&mut fields);
        let errors = fields.errors;
        self.errors.extend(errors);
        taken
    }
}

/// Whether any text inside contains NUL, which PostgreSQL cannot store.
fn holds_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(values) => values.iter().any(holds_nul),
        Value::Object(object) => object.iter().any(|(name, value)| name.contains('\0') || holds_nul(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn faults(value: &Value, read: impl FnOnce(&mut Fields<'_>)) -> Vec<(String, &'static str)> {
        let mut fields = Fields::of(value.as_object().unwrap());
        read(&mut fields);
        fields.errors.into_iter().map(|e| (e.field, e.code)).collect()
    }

    #[test]
    fn every_field_at_fault_is_named() {
        let body = json!({"name": "  ", "phone": 5, "capacity": 0, "metadata": {"a": "\u{0}"}, "externalId": null});
        let found = faults(&body, |f| {
            f.required("name", Fields::name);
            f.required("phone", Fields::name);
            f.capacity("capacity");
            f.metadata("metadata");
            f.external_id("externalId");
            f.required("reason", Fields::reason);
        });
        let named: Vec<&str> = found.iter().map(|(field, _)| field.as_str()).collect();
        assert_eq!(named, ["name", "phone", "capacity", "metadata", "reason"]);
        let codes: Vec<&str> = found.iter().map(|(_, code)| *code).collect();
        assert_eq!(codes, ["length", "type", "range", "characters", "required"]);
    }

    #[test]
    fn fields_within_are_named_by_their_path() {
        let found = faults(&json!({"failure": {"code": 1}}), |f| {
            f.object("failure", |inner| inner.required("code", |inner, name| inner.choice(name, "A", |_| Some(()))));
        });
        assert_eq!(found, [("failure.code".to_owned(), "type")]);
    }

    #[test]
    fn metadata_is_bounded() {
        let body = json!({"metadata": {"a": "x".repeat(5000)}});
        assert_eq!(faults(&body, |f| drop(f.metadata("metadata")))[0].1, "length");
    }
}
