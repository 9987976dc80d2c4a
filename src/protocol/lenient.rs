//! Reads JSON whose syntax is right and of which some value cannot be represented: a number that no double holds (`1e400`),
//! text with half of a surrogate pair, or nesting too deep for a parser. Such a value alone becomes [`unreadable`], so that
//! it is one faulty field and never a lost document: its `ref`, its `seq` and everything beside it are still read.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// How many levels are opened in search of the unreadable value; more than any frame has.
const MAX_LEVELS: usize = 6;

/// Parses a JSON document. An error only when the syntax is wrong or the text is not UTF-8.
pub fn parse(json: &[u8]) -> Result<Value, serde_json::Error> {
    serde_json::from_slice(json).or_else(|_| {
        let raw: &RawValue = serde_json::from_slice(json)?;
        Ok(read(raw.get(), MAX_LEVELS))
    })
}

/// What stands for a value that cannot be represented: an object, which no field of a frame is unless it has fields itself.
fn unreadable() -> Value {
    Value::Object(Map::new())
}

/// Reads JSON of checked syntax.
fn read(json: &str, levels: usize) -> Value {
    if let Ok(value) = serde_json::from_str(json) {
        return value;
    }
    let Some(levels) = levels.checked_sub(1) else { return unreadable() };
    if json.trim_start().starts_with('{') {
        let fields = serde_json::from_str(json).map(|RawFields(fields)| fields).unwrap_or_default();
        fields.into_iter().map(|(name, raw)| (name.into_owned(), read(raw.get(), levels))).collect()
    } else if json.trim_start().starts_with('[') {
        let items: Vec<&RawValue> = serde_json::from_str(json).unwrap_or_default();
        items.into_iter().map(|raw| read(raw.get(), levels)).collect()
    } else {
        unreadable()
    }
}

/// The fields of an object, unread; a name that is not Unicode text has its faulty characters replaced.
struct RawFields<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de> Deserialize<'de> for RawFields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = RawFields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::new();
                while let Some(Name(name)) = map.next_key()? {
                    fields.push((name, map.next_value()?));
                }
                Ok(RawFields(fields))
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

/// A field's name, read as bytes: as text, half of a surrogate pair would be an error.
struct Name<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl<'de> Visitor<'de> for Bytes {
            type Value = Name<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_borrowed_bytes<E>(self, bytes: &'de [u8]) -> Result<Self::Value, E> {
                Ok(Name(String::from_utf8_lossy(bytes)))
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Self::Value, E> {
                Ok(Name(Cow::Owned(String::from_utf8_lossy(bytes).into_owned())))
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_can_be_read_stands_beside_what_cannot() {
        let read = |text: &str| parse(text.as_bytes()).unwrap();
        assert_eq!(read(r#" {"ref": "a", "lat": 1e400} "#), json!({"ref": "a", "lat": {}}));
        assert_eq!(read(r#"[1, {"reason": "\ud83d", "x": [-1e999]}]"#), json!([1, {"reason": {}, "x": [{}]}]));
        assert_eq!(read(r#"{"\ud83d": 1, "a\u0062": 2}"#)["ab"], 2);
        assert_eq!(read("1e400"), json!({}));
        let deep = format!(r#"{{"ref": "a", "x": {}{}}}"#, "[".repeat(5000), "]".repeat(5000));
        assert_eq!(read(&deep)["ref"], "a");
        assert_eq!(read(r#"{"a": 1e400, "a": 2}"#), json!({"a": 2}), "the last one counts, as ever");
    }

    #[test]
    fn wrong_syntax_is_an_error() {
        for text in ["", "{", r#"{"a": 1e400"#, r#"{"a": 1e400} x"#, "nul", r#"{"a": 01}"#] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
        assert!(parse(b"{\"a\": \"\xff\"}").is_err());
    }
}
