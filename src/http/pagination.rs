//! Pagination of lists: `?limit=&cursor=` in, `{items, nextCursor?}` out, newest first.
//!
//! A cursor names the last item shown, so items that arrive later cause neither repeats nor gaps. It is opaque to
//! callers: base64url of JSON.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::http::query::Query;

const DEFAULT_LIMIT: i64 = 50;
const MAX_LIMIT: i64 = 200;
/// The longest cursor that this service issues, in bytes.
const MAX_CURSOR_BYTES: usize = 256;

/// The requested page of a list. `K` is the sort key of an item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<K> {
    /// The most items in the page.
    pub limit: usize,
    /// Only items after this key.
    pub after: Option<K>,
}

impl<K: Serialize + DeserializeOwned> Page<K> {
    /// Reads `limit` and `cursor`. Errors are added to the query.
    pub fn read(query: &mut Query) -> Self {
        let limit = read_limit(query);
        let after = query.parse("cursor", "form", "must be a nextCursor of this list", decode);
        Self { limit, after }
    }

    /// The number of rows to read: one more than the limit shows whether there are more.
    pub fn fetch(&self) -> i64 {
        self.limit as i64 + 1
    }

    /// Removes the extra row and returns the cursor of the next page, if there is one.
    pub fn cut<T>(&self, rows: &mut Vec<T>, key: impl Fn(&T) -> K) -> Option<String> {
        let more = rows.len() > self.limit;
        rows.truncate(self.limit);
        rows.last().filter(|_| more).map(|last| encode(&key(last)))
    }
}

/// Reads only `limit`, for a list without pages.
pub fn read_limit(query: &mut Query) -> usize {
    let limit = query.parse("limit", "range", "must be a whole number from 1 to 200", |text| {
        text.parse().ok().filter(|n| (1..=MAX_LIMIT).contains(n))
    });
    limit.unwrap_or(DEFAULT_LIMIT) as usize
}

/// The body of a list.
pub fn list(items: Vec<Value>, next_cursor: Option<String>) -> Value {
    let mut body = json!({"items": items});
    if let Some(cursor) = next_cursor {
        body["nextCursor"] = Value::String(cursor);
    }
    body
}

/// Encodes `key` as a cursor.
pub fn encode<K: Serialize>(key: &K) -> String {
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(key).unwrap_or_default())
}

/// Decodes a cursor. `None` when it is malformed.
pub fn decode<K: DeserializeOwned>(text: &str) -> Option<K> {
    if text.len() > MAX_CURSOR_BYTES {
        return None;
    }
    let key = URL_SAFE_NO_PAD.decode(text).ok()?;
    // PostgreSQL holds no NUL, which JSON writes as an escape, and no year of five digits.
    let is_storable = !key.windows(6).any(|six| six == br"\u0000") && !key.windows(2).any(|two| two == b"\"+");
    if is_storable { serde_json::from_slice(&key).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::{DateTime, Utc};
    use uuid::Uuid;

    #[test]
    fn a_cursor_reads_back_and_nothing_else_does() {
        let moment: DateTime<Utc> = "2026-01-27T10:00:00.123456Z".parse().unwrap();
        let key = (moment, Uuid::now_v7());
        assert_eq!(decode(&encode(&key)), Some(key));
        for bad in ["", "x", "!!!", &encode(&7), &"A".repeat(300)] {
            assert_eq!(decode::<(DateTime<Utc>, Uuid)>(bad), None, "{bad}");
        }
        assert_eq!(decode::<(DateTime<Utc>, String)>(&encode(&(moment, "\0"))), None, "PostgreSQL holds no NUL");
        let late: DateTime<Utc> = "+12026-01-27T10:00:00Z".parse().unwrap();
        assert_eq!(decode::<(DateTime<Utc>, String)>(&encode(&(late, "a"))), None, "nor such a year");
    }

    #[test]
    fn the_extra_row_tells_that_there_are_more() {
        let page = Page::<i32> { limit: 2, after: None };
        let mut rows = vec![9, 8, 7];
        assert_eq!(page.cut(&mut rows, |n| *n), Some(encode(&8)));
        assert_eq!(rows, [9, 8]);
        assert_eq!(page.cut(&mut rows, |n| *n), None);
    }

    #[test]
    fn limits_and_cursors_that_are_wrong_are_told_together() {
        let mut query = Query::parse_text("limit=201&cursor=%21");
        let _ = Page::<i32>::read(&mut query);
        assert_eq!(query.finish().unwrap_err().to_string(), "422 invalid_fields");
        let mut query = Query::parse_text("unknown=1");
        assert_eq!(Page::<i32>::read(&mut query), Page { limit: 50, after: None });
        assert!(query.finish().is_ok());
    }
}
