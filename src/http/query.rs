//! Reads the parameters of a query. All errors are collected, so that the answer names every invalid parameter at once.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use crate::domain::fields::FieldError;
use crate::domain::ids::ExternalId;
use crate::domain::moment::parse_moment;
use crate::http::problem::Problem;

/// The parameters of a query. Unknown ones are ignored. A parameter that appears twice is an error, unless it is a set.
pub struct Query {
    pairs: Vec<(String, String)>,
    errors: Vec<FieldError>,
}

impl Query {
    /// Reads the query of a URL.
    pub fn parse_text(text: &str) -> Self {
        Self::parse_with_set(text, None)
    }

    /// The query of a request.
    pub fn of(request: &actix_web::HttpRequest) -> Self {
        Self::parse_text(request.query_string())
    }

    /// The query of a request in which the parameter `set` may appear several times.
    pub fn with_set(request: &actix_web::HttpRequest, set: &str) -> Self {
        Self::parse_with_set(request.query_string(), Some(set))
    }

    fn parse_with_set(text: &str, set: Option<&str>) -> Self {
        let pairs: Vec<(String, String)> = url::form_urlencoded::parse(text.as_bytes()).into_owned().collect();
        let mut times: BTreeMap<&str, usize> = BTreeMap::new();
        pairs.iter().for_each(|(name, _)| *times.entry(name).or_default() += 1);
        let repeated = times.into_iter().filter(|(name, times)| *times > 1 && Some(*name) != set);
        let message = "must not stand more than once";
        let errors = repeated.map(|(name, _)| FieldError::new(name, "repeated", message)).collect();
        Self { pairs, errors }
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Records an error of a parameter.
    pub fn fault(&mut self, name: &str, code: &'static str, message: impl Into<String>) {
        self.errors.push(FieldError::new(name, code, message));
    }

    /// Reads a parameter by `take`. A value that it cannot read is an error.
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

    /// Requires a parameter. An absent one is an error.
    pub fn require(&mut self, name: &str) {
        if self.get(name).is_none() {
            self.fault(name, "required", "is required");
        }
    }

    /// A state, by its name.
    pub fn state<T: std::str::FromStr>(&mut self, name: &str) -> Option<T> {
        self.parse(name, "unknown", "must be the name of a state", |text| text.parse().ok())
    }

    /// A set of states: each is one parameter with the name of a state. `None` when there is none.
    pub fn states<T: std::str::FromStr + PartialEq>(&mut self, name: &str) -> Option<Vec<T>> {
        let mut states = Vec::new();
        let mut is_unknown = false;
        for (_, text) in self.pairs.iter().filter(|(key, _)| key == name) {
            match text.parse() {
                Ok(state) if !states.contains(&state) => states.push(state),
                Ok(_) => {}
                Err(_) => is_unknown = true,
            }
        }
        if is_unknown {
            self.fault(name, "unknown", "must be the name of a state; several states are several parameters");
        }
        (!states.is_empty()).then_some(states)
    }

    /// `true` or `false`.
    pub fn boolean(&mut self, name: &str) -> Option<bool> {
        self.parse(name, "type", "must be true or false", |text| text.parse().ok())
    }

    /// An internal id: a UUID.
    pub fn id<T: std::str::FromStr>(&mut self, name: &str) -> Option<T> {
        self.parse(name, "form", "must be a UUID", |text| text.parse().ok())
    }

    /// An external id: opaque text.
    pub fn external_id(&mut self, name: &str) -> Option<String> {
        self.parse(name, "form", "must have 1 to 128 characters, none of them a control character", |text| {
            ExternalId::parse(text).is_ok().then(|| text.to_owned())
        })
    }

    /// An RFC 3339 time.
    pub fn moment(&mut self, name: &str) -> Option<DateTime<Utc>> {
        self.parse(name, "form", "must be an RFC 3339 time", |text| {
            // An unescaped plus sign arrives as a space. A space before the time of day stands for `T`.
            let time_of_day = text.char_indices().nth(11).map_or(text.len(), |(start, _)| start);
            let (date, rest) = text.split_at(time_of_day);
            parse_moment(&format!("{date}{}", rest.replace(' ', "+")))
        })
    }

    /// A finite number.
    pub fn number(&mut self, name: &str) -> Option<f64> {
        self.parse(name, "type", "must be a number", |text| text.parse().ok().filter(|n: &f64| n.is_finite()))
    }

    /// Returns the 422 when any parameter is invalid.
    pub fn finish(self) -> Result<(), Problem> {
        if self.errors.is_empty() { Ok(()) } else { Err(Problem::fields(self.errors)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_that_stands_twice_is_a_fault_but_for_a_set() {
        let named = |query: Query| -> Vec<String> { query.errors.into_iter().map(|e| e.field).collect() };
        assert_eq!(named(Query::parse_text("limit=1&x=1&limit=1&x=2&y=3")), ["limit", "x"]);
        let text = "status=PENDING&limit=1&status=ASSIGNED&status=PENDING";
        let mut query = Query::parse_with_set(text, Some("status"));
        use crate::domain::delivery::DeliveryStatus::{self, Assigned, Pending};
        assert_eq!(query.states("status"), Some(vec![Pending, Assigned]));
        assert!(query.errors.is_empty());
        assert_eq!(query.states::<DeliveryStatus>("none"), None);
        for unknown in ["status=PENDING,ASSIGNED", "status=PENDING&status=LOST", "status="] {
            let mut query = Query::parse_with_set(unknown, Some("status"));
            let _ = query.states::<DeliveryStatus>("status");
            assert_eq!(named(query), ["status"], "{unknown}");
        }
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
