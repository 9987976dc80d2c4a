//! Reading the fields of a request: from a JSON object, or from a query. Whatever is wrong is gathered, so that the
//! answer names every field at once. `null` means absent, but where
//! [`Fields::is_null`] is asked.

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};

use super::problem::Problem;
use crate::domain::fields::FieldError;
use crate::domain::ids::ExternalId;
use crate::domain::moment::parse_moment;

/// The most characters of a name or a telephone number.
const MAX_NAME_CHARS: usize = 200;
/// The most characters of a reason.
const MAX_REASON_CHARS: usize = 1000;
/// The most characters of an address.
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
    /// Reads `object`, whose fields are named as they are.
    pub fn of(object: &'a Map<String, Value>) -> Self {
        Self { object, prefix: "", errors: Vec::new() }
    }

    fn within(object: &'a Map<String, Value>, prefix: &'a str) -> Self {
        Self { object, prefix, errors: Vec::new() }
    }

    /// Notes a fault.
    pub fn fault(&mut self, name: &str, code: &'static str, message: impl Into<String>) {
        self.errors.push(FieldError::new(format!("{}{name}", self.prefix), code, message));
    }

    /// Whether nothing was at fault; else the 422.
    pub fn finish(self) -> Result<(), Problem> {
        if self.errors.is_empty() { Ok(()) } else { Err(Problem::fields(self.errors)) }
    }

    /// Whether the field is there and null, where that takes a value away.
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

    /// A value that must be there; a fault is noted when the field is absent.
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

    /// A reason in words.
    pub fn reason(&mut self, name: &str) -> Option<String> {
        self.text_of(name, MAX_REASON_CHARS)
    }

    /// One of a few words.
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

    /// How many a second: a whole number from 0, which is no limit, to a million.
    pub fn rate(&mut self, name: &str) -> Option<i32> {
        self.whole(name, 0, 1_000_000).and_then(|number| i32::try_from(number).ok())
    }

    /// How long: whole seconds from 0 to `most`.
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

    /// A web address, as `read` takes it; the error is the rest of a sentence.
    pub fn url(&mut self, name: &str, read: impl FnOnce(&str) -> Result<String, String>) -> Option<String> {
        let text = self.text_of(name, MAX_URL_CHARS)?;
        read(&text).map_err(|rest| self.fault(name, "form", rest)).ok()
    }

    /// Any text, read by `read`; `what` it must be.
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

    /// An id of ours: a UUID.
    pub fn id<T: std::str::FromStr>(&mut self, name: &str) -> Option<T> {
        let text = self.typed(name, "a string", Value::as_str)?;
        let id = text.parse().ok();
        if id.is_none() {
            self.fault(name, "form", "must be a UUID");
        }
        id
    }

    /// An id of the caller's own; an integer is taken as its decimal text.
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

    /// A JSON object of the caller's own, at most 4 KiB.
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

    /// An object within, read by `read` and named `name.field`.
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

/// Whether a text somewhere inside holds NUL, which PostgreSQL cannot.
fn holds_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(values) => values.iter().any(holds_nul),
        Value::Object(object) => object.iter().any(|(name, value)| name.contains('\0') || holds_nul(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// The parameters of a query. Unknown ones are ignored; of a repeated one the first counts.
pub struct Query {
    pairs: Vec<(String, String)>,
    errors: Vec<FieldError>,
}

impl Query {
    /// Reads a query as it stands in the address.
    pub fn parse_text(text: &str) -> Self {
        let pairs = url::form_urlencoded::parse(text.as_bytes()).into_owned().collect();
        Self { pairs, errors: Vec::new() }
    }

    /// The query of a request.
    pub fn of(request: &actix_web::HttpRequest) -> Self {
        Self::parse_text(request.query_string())
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Notes a fault.
    pub fn fault(&mut self, name: &str, code: &'static str, message: impl Into<String>) {
        self.errors.push(FieldError::new(name, code, message));
    }

    /// A parameter as `take` reads it; a fault is noted when it cannot.
    pub fn parse<T>(
        &mut self,
        name: &str,
        code: &'static str,
        message: &str,
        take: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let taken = take(self.get(name)?);
        if taken.is_none() {
            self.fault(name, code, message);
        }
        taken
    }

    /// A value that must be there; a fault is noted when it is absent.
    pub fn require(&mut self, name: &str) {
        if self.get(name).is_none() {
            self.fault(name, "required", "is required");
        }
    }

    /// A state, by its name.
    pub fn state<T: std::str::FromStr>(&mut self, name: &str) -> Option<T> {
        self.parse(name, "unknown", "must be the name of a state", |text| text.parse().ok())
    }

    /// `true` or `false`.
    pub fn boolean(&mut self, name: &str) -> Option<bool> {
        self.parse(name, "type", "must be true or false", |text| text.parse().ok())
    }

    /// An id of ours.
    pub fn id<T: std::str::FromStr>(&mut self, name: &str) -> Option<T> {
        self.parse(name, "form", "must be a UUID", |text| text.parse().ok())
    }

    /// An opaque text of the outside world.
    pub fn external_id(&mut self, name: &str) -> Option<String> {
        self.parse(name, "form", "must have 1 to 128 characters, none of them a control character", |text| {
            ExternalId::parse(text).is_ok().then(|| text.to_owned())
        })
    }

    /// A moment, RFC 3339.
    pub fn moment(&mut self, name: &str) -> Option<DateTime<Utc>> {
        self.parse(name, "form", "must be an RFC 3339 time", |text| {
            // A plus sign that was not escaped arrives as a space; one before the time of day stands for `T`.
            let time_of_day = text.char_indices().nth(11).map_or(text.len(), |(start, _)| start);
            let (date, rest) = text.split_at(time_of_day);
            parse_moment(&format!("{date}{}", rest.replace(' ', "+")))
        })
    }

    /// A finite number.
    pub fn number(&mut self, name: &str) -> Option<f64> {
        self.parse(name, "type", "must be a number", |text| text.parse().ok().filter(|n: &f64| n.is_finite()))
    }

    /// Whether nothing was at fault; else the 422.
    pub fn finish(self) -> Result<(), Problem> {
        if self.errors.is_empty() { Ok(()) } else { Err(Problem::fields(self.errors)) }
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

    #[test]
    fn a_query_reads_typed_values() {
        let mut query = Query::parse_text("online=true&from=2026-01-27T10:00:00+01:00&lat=1e999&driverId=7&x=%00");
        assert_eq!(query.boolean("online"), Some(true));
        assert_eq!(query.moment("from").unwrap().to_rfc3339(), "2026-01-27T09:00:00+00:00");
        for text in [
            "2026-01-27T10:00:00+0100",
            "2026-01-27%2010:00:00%2B01:00",
            "2026-01-27+09:00:00z",
            "2026-01-27t09:00:00-0000",
        ] {
            let moment = Query::parse_text(&format!("from={text}")).moment("from").expect(text);
            assert_eq!(moment.to_rfc3339(), "2026-01-27T09:00:00+00:00", "{text}");
        }
        for text in ["noon", "", "2026-01-2%C3%A9T10:00:00Z"] {
            assert_eq!(Query::parse_text(&format!("from={text}")).moment("from"), None, "{text}");
        }
        assert_eq!(query.number("lat"), None);
        assert_eq!(query.id::<crate::domain::ids::DriverId>("driverId"), None);
        assert_eq!(query.external_id("x"), None);
        let named: Vec<String> = query.errors.into_iter().map(|e| e.field).collect();
        assert_eq!(named, ["lat", "driverId", "x"]);
    }
}
