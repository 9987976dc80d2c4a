//! Reads a JSON body by hand, so that every field at fault is named at once, by its path.
//!
//! Values stay raw text until a field is asked for: integers of any length keep their digits, `1e400` is a number out of
//! range and not a broken document, and unknown fields cost nothing, however deep. `null` means absent. Of a repeated key
//! the last one counts. NUL characters are refused everywhere (PostgreSQL holds none in text or jsonb).
//!
//! Reads and reports; knows no field by name.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use serde_json::value::RawValue;
use serde_json::{Number, Value};

use crate::domain::fields::FieldError;
use crate::domain::ids::{ExternalId, TextIdError};
use crate::domain::json;
use crate::domain::moment::{is_storable, parse_moment};

/// How deep a JSON value that we keep may nest: far below what parsers refuse, its own included.
const MAX_DEPTH: usize = 64;
/// Up to here a 64-bit float holds every whole number.
const MAX_EXACT: f64 = 9_007_199_254_740_992.0;

/// The body is not JSON; the words say where, never what stood there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the body is not JSON: {0}")]
pub struct NotJson(pub String);

/// Collects what is at fault while the fields are read.
#[derive(Debug, Default)]
pub struct Reader {
    errors: Vec<FieldError>,
}

/// A JSON object whose fields were not looked at yet.
#[derive(Debug)]
pub struct Object<'a> {
    path: String,
    fields: HashMap<String, &'a RawValue>,
}

/// A value that is there (not `null`), with its path.
#[derive(Debug)]
pub struct Field<'a> {
    path: String,
    raw: &'a str,
}

impl<'a> Object<'a> {
    /// The field of that name; `None` when it is absent or `null`.
    pub fn get(&self, key: &str) -> Option<Field<'a>> {
        let raw = self.fields.get(key)?.get();
        (raw != "null").then(|| Field { path: self.path_of(key), raw })
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }
}

impl Field<'_> {
    fn is_number(&self) -> bool {
        self.raw.starts_with(|c: char| c == '-' || c.is_ascii_digit())
    }

    fn is_integer(&self) -> bool {
        json::is_integer(self.raw)
    }

    /// The decimal text of an integer, with all its digits.
    fn integer_text(&self) -> Option<String> {
        let text = if self.raw == "-0" { "0" } else { self.raw };
        self.is_integer().then(|| text.to_owned())
    }

    /// The text of a number: of a whole one its decimal digits, of any other what is written.
    fn number_text(&self) -> Option<String> {
        let whole = || self.whole_float().map(|number| number.to_string());
        self.integer_text().or_else(whole).or_else(|| self.is_number().then(|| self.raw.to_owned()))
    }

    /// A whole number that is written as another one (`2.0`, `1e2`), which JSON Schema calls an integer too.
    fn whole_float(&self) -> Option<i64> {
        let number: f64 = if self.is_number() { self.raw.parse().ok()? } else { return None };
        (number.fract() == 0.0 && number.abs() <= MAX_EXACT).then_some(number as i64)
    }
}

impl Reader {
    /// Checks that `body` is one JSON document, and opens it. `None` when it is no object, which is then reported.
    pub fn open<'a>(&mut self, body: &'a [u8]) -> Result<Option<Object<'a>>, NotJson> {
        let text = std::str::from_utf8(json::without_bom(body)).map_err(|_| NotJson("it is not UTF-8".to_owned()))?;
        let document: &RawValue = serde_json::from_str(text).map_err(|error| NotJson(error.to_string()))?;
        Ok(self.object(&Field { path: String::new(), raw: document.get() }))
    }

    /// Names one more field at fault.
    pub fn fault(&mut self, path: &str, code: &'static str, message: impl Into<String>) {
        self.errors.push(FieldError::new(path, code, message));
    }

    /// What was found at fault, in the order of reading.
    pub fn into_errors(self) -> Vec<FieldError> {
        self.errors
    }

    /// True while nothing was at fault.
    pub fn is_clean(&self) -> bool {
        self.errors.is_empty()
    }

    /// Reports `object.key` as missing.
    pub fn missing(&mut self, object: &Object<'_>, key: &str) {
        self.fault(&object.path_of(key), "required", "is required");
    }

    /// Opens a field that must be an object.
    pub fn object<'a>(&mut self, field: &Field<'a>) -> Option<Object<'a>> {
        if !field.raw.starts_with('{') {
            self.fault(&field.path, "type", "must be a JSON object");
            return None;
        }
        match serde_json::from_str(field.raw) {
            Ok(fields) => Some(Object { path: field.path.clone(), fields }),
            Err(_) => {
                self.fault(&field.path, "characters", "must have names that are Unicode text");
                None
            }
        }
    }

    /// An optional object.
    pub fn optional_object<'a>(&mut self, object: &Object<'a>, key: &str) -> Option<Object<'a>> {
        self.object(&object.get(key)?)
    }

    /// An object that stands for one without fields when it is absent, so that its required fields are named. `None`
    /// when it is something else.
    pub fn object_or_empty<'a>(&mut self, object: &Object<'a>, key: &str) -> Option<Object<'a>> {
        match object.get(key) {
            Some(field) => self.object(&field),
            None => Some(Object { path: object.path_of(key), fields: HashMap::new() }),
        }
    }

    /// An optional array of objects, at most `max_items` of them; `null` entries are absent.
    pub fn objects<'a>(&mut self, object: &Object<'a>, key: &str, max_items: usize) -> Option<Vec<Object<'a>>> {
        let field = object.get(key)?;
        let Some(items) = field.raw.starts_with('[').then(|| serde_json::from_str::<Vec<&RawValue>>(field.raw)) else {
            self.fault(&field.path, "type", "must be an array");
            return None;
        };
        let items = items.unwrap_or_default();
        if items.len() > max_items {
            self.fault(&field.path, "length", format!("must have at most {max_items} entries"));
            return None;
        }
        let present = items.into_iter().enumerate().filter(|(_, item)| item.get() != "null");
        let fields = present.map(|(i, item)| Field { path: format!("{}[{i}]", field.path), raw: item.get() });
        Some(fields.filter_map(|field| self.object(&field)).collect())
    }

    /// An optional text of at most `max_chars` Unicode scalar values.
    pub fn text(&mut self, object: &Object<'_>, key: &str, max_chars: usize) -> Option<String> {
        let field = object.get(key)?;
        let text = self.string(&field, "must be a string")?;
        self.bounded(&field, text, max_chars)
    }

    /// An optional text that some senders write as a number: a number is taken as its text, a whole one (`9e9`, `5.0`) as
    /// its decimal digits.
    pub fn text_or_number(&mut self, object: &Object<'_>, key: &str, max_chars: usize) -> Option<String> {
        let field = object.get(key)?;
        let text = match field.number_text() {
            Some(text) => text,
            None => self.string(&field, "must be a string or a number")?,
        };
        self.bounded(&field, text, max_chars)
    }

    fn bounded(&mut self, field: &Field<'_>, text: String, max_chars: usize) -> Option<String> {
        if text.chars().count() > max_chars {
            self.fault(&field.path, "length", format!("must be at most {max_chars} characters"));
            return None;
        }
        if text.contains('\0') {
            self.fault(&field.path, "characters", "must not contain the NUL character");
            return None;
        }
        Some(text)
    }

    /// An optional opaque id: a string, or a JSON integer taken as its decimal text.
    pub fn id(&mut self, object: &Object<'_>, key: &str) -> Option<ExternalId> {
        let field = object.get(key)?;
        let text = match field.integer_text() {
            Some(digits) => digits,
            None => self.string(&field, "must be a string or an integer")?,
        };
        match ExternalId::parse(&text) {
            Ok(id) => Some(id),
            Err(error) => {
                let code = if error == TextIdError::Control { "characters" } else { "length" };
                self.fault(&field.path, code, error.to_string());
                None
            }
        }
    }

    /// An id that must be there.
    pub fn required_id(&mut self, object: &Object<'_>, key: &str) -> Option<ExternalId> {
        if object.get(key).is_none() {
            self.missing(object, key);
            return None;
        }
        self.id(object, key)
    }

    /// A number that must be there and pass `check`, whose error is the message of a `range` fault. A number too large
    /// for a double is given to `check` as infinite.
    pub fn required_number<E: std::fmt::Display>(
        &mut self,
        object: &Object<'_>,
        key: &str,
        check: impl FnOnce(f64) -> Result<(), E>,
    ) -> Option<f64> {
        let Some(field) = object.get(key) else {
            self.missing(object, key);
            return None;
        };
        let Some(number) = field.is_number().then(|| field.raw.parse::<f64>().ok()).flatten() else {
            self.fault(&field.path, "type", "must be a number");
            return None;
        };
        match check(number) {
            Ok(()) => Some(number),
            Err(error) => {
                self.fault(&field.path, "range", error.to_string());
                None
            }
        }
    }

    /// An optional number above 0, at most `max`. A whole one is kept as an integer, every other as the same double.
    pub fn positive(&mut self, object: &Object<'_>, key: &str, max: i64) -> Option<Number> {
        let field = object.get(key)?;
        if !field.is_number() {
            self.fault(&field.path, "type", "must be a number");
            return None;
        }
        let fits = |number: &f64| *number > 0.0 && *number <= max as f64;
        let number = field.raw.parse::<f64>().ok().filter(fits);
        let number = number.and_then(|number| field.whole_float().map(Number::from).or(Number::from_f64(number)));
        if number.is_none() {
            self.fault(&field.path, "range", format!("must be above 0 and at most {max}"));
        }
        number
    }

    /// An optional RFC 3339 time, in UTC.
    pub fn time(&mut self, object: &Object<'_>, key: &str) -> Option<DateTime<Utc>> {
        let field = object.get(key)?;
        let text = self.string(&field, "must be a string that holds an RFC 3339 time")?;
        let Some(time) = parse_moment(&text) else {
            self.fault(&field.path, "form", "must be an RFC 3339 time, such as 2026-01-27T10:00:00Z");
            return None;
        };
        if !is_storable(time) {
            self.fault(&field.path, "range", "must lie in the years 0 to 9999 of UTC");
            return None;
        }
        Some(time)
    }

    /// An optional JSON value of the sender's own, at most `max_bytes` when written without white space.
    pub fn json(&mut self, object: &Object<'_>, key: &str, max_bytes: usize) -> Option<Value> {
        let field = object.get(key)?;
        if depth(field.raw) > MAX_DEPTH {
            self.fault(&field.path, "form", format!("must nest at most {MAX_DEPTH} levels deep"));
            return None;
        }
        // Syntax is checked already.
        let json::Document { value, unholdable } = json::read(field.raw).ok()?;
        if let Some((_, why)) = unholdable.first() {
            self.fault(&field.path, why.code(), why.message());
            return None;
        }
        if value.to_string().len() > max_bytes {
            self.fault(&field.path, "length", format!("must be at most {max_bytes} bytes of JSON"));
            return None;
        }
        if holds_nul(&value) {
            self.fault(&field.path, "characters", "must not contain the NUL character");
            return None;
        }
        Some(value)
    }

    fn string(&mut self, field: &Field<'_>, wanted: &'static str) -> Option<String> {
        if !field.raw.starts_with('"') {
            self.fault(&field.path, "type", wanted);
            return None;
        }
        let text = serde_json::from_str(field.raw).ok();
        if text.is_none() {
            // Syntax is checked already: what is left is half of a surrogate pair.
            self.fault(&field.path, "characters", "must be Unicode text");
        }
        text
    }
}

/// The deepest nesting of arrays and objects in a JSON text of checked syntax.
fn depth(json: &str) -> usize {
    let (mut level, mut deepest, mut in_string, mut escaped) = (0usize, 0, false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                level += 1;
                deepest = deepest.max(level);
            }
            b']' | b'}' if !in_string => level = level.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// Recursion is bounded by [`MAX_DEPTH`].
fn holds_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(holds_nul),
        Value::Object(fields) => fields.iter().any(|(key, value)| key.contains('\0') || holds_nul(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}
