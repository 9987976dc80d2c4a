//! Reads JSON that callers send, and writes it in a canonical form.
//!
//! - `serde_json` refuses a whole document for one number that does not fit a double. [`read`] reads such a document and
//!   names the field of each unholdable value, so that the answer can name the field.
//! - [`canonical`] gives the same text for every spelling of the same content.
//! - [`without_bom`] removes a byte order mark.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Number, Value};

/// The deepest nesting of a document with an unholdable value, and of a document in canonical form.
const MAX_DEPTH: usize = 64;
/// How names begin that mean something to `serde_json` itself. It takes an object with such a name for the document in its
/// text, and reads that text from depth 0 again: a few kilobytes of nested text overflow the stack.
const RESERVED: &str = "$serde_json::private::";
/// Up to here a 64-bit float holds every whole number.
const MAX_EXACT: f64 = 9_007_199_254_740_992.0;

/// `body` without a UTF-8 byte order mark at its start.
pub fn without_bom(body: &[u8]) -> &[u8] {
    body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body)
}

/// Why a value is unholdable: no Rust type of this crate can represent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unholdable {
    /// A number beyond the range of a double.
    Number,
    /// A text with half of a surrogate pair, or an object with such a name.
    Text,
    /// A value with too deep a nesting.
    Depth,
    /// An object with a name that is reserved.
    Name,
}

impl Unholdable {
    /// The stable code of the error.
    pub fn code(self) -> &'static str {
        match self {
            Self::Number => "range",
            Self::Text => "characters",
            Self::Depth | Self::Name => "form",
        }
    }

    /// What a valid value is, in words.
    pub fn message(self) -> &'static str {
        match self {
            Self::Number => "must hold only numbers that fit a double",
            Self::Text => "must hold only Unicode text",
            Self::Depth => "must not nest so deep",
            Self::Name => "must not hold names that begin with $serde_json::private::",
        }
    }
}

/// A document, and what could not be read of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// The document. `false` replaces each unholdable value. A field that expects a number, a text, an object or a list
    /// refuses `false` and names itself in the error.
    pub value: Value,
    /// The unholdable values, each with its top-level field. The field is empty for the document itself.
    pub unholdable: Vec<(String, Unholdable)>,
}

/// A value as it is written: objects with a reserved name are refused.
struct Plain(Value);

impl<'de> Deserialize<'de> for Plain {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PlainVisitor).map(Self)
    }
}

struct PlainVisitor;

impl<'de> Visitor<'de> for PlainVisitor {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("a number is out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut read = Vec::new();
        while let Some(Plain(item)) = items.next_element()? {
            read.push(item);
        }
        Ok(Value::Array(read))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut read = Map::new();
        while let Some((name, Plain(value))) = fields.next_entry::<String, Plain>()? {
            if name.starts_with(RESERVED) {
                return Err(A::Error::custom("a name is reserved"));
            }
            read.insert(name, value);
        }
        Ok(Value::Object(read))
    }
}

/// Reads a document. The error is the parser's, for what is no JSON.
pub fn read(text: &str) -> Result<Document, serde_json::Error> {
    match serde_json::from_str(text).map(|Plain(value)| value) {
        Ok(value) => Ok(Document { value, unholdable: Vec::new() }),
        Err(error) => {
            // The parser checks only the syntax of a raw value.
            let Ok(raw) = serde_json::from_str::<&RawValue>(text) else { return Err(error) };
            let mut unholdable = Vec::new();
            let value = rebuild(raw.get(), "", 0, &mut unholdable);
            Ok(Document { value, unholdable })
        }
    }
}

fn rebuild(raw: &str, field: &str, depth: usize, unholdable: &mut Vec<(String, Unholdable)>) -> Value {
    if let Ok(Plain(value)) = serde_json::from_str(raw) {
        return value;
    }
    let mut give_up = |why| {
        unholdable.push((field.to_owned(), why));
        Value::Bool(false)
    };
    match raw.as_bytes().first() {
        Some(b'{' | b'[') if depth >= MAX_DEPTH => give_up(Unholdable::Depth),
        Some(b'{') => {
            let Ok(RawFields(fields)) = serde_json::from_str(raw) else { return give_up(Unholdable::Text) };
            if fields.iter().any(|(name, _)| name.starts_with(RESERVED)) {
                return give_up(Unholdable::Name);
            }
            let rebuilt = fields.into_iter().map(|(name, inner)| {
                let own = if depth == 0 { &*name } else { field };
                if name.contains(char::REPLACEMENT_CHARACTER) {
                    unholdable.push((own.to_owned(), Unholdable::Text));
                }
                let value = rebuild(inner.get(), own, depth + 1, unholdable);
                (name.into_owned(), value)
            });
            Value::Object(rebuilt.collect())
        }
        Some(b'[') => match serde_json::from_str::<Vec<&RawValue>>(raw) {
            Ok(items) => items.into_iter().map(|item| rebuild(item.get(), field, depth + 1, unholdable)).collect(),
            Err(_) => give_up(Unholdable::Text),
        },
        Some(b'"') => give_up(Unholdable::Text),
        _ => give_up(Unholdable::Number),
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

/// One spelling for one content: names sorted, no white space, each text and each number written one way. Integers keep their
/// digits. `None` for what is no JSON, holds half of a surrogate pair, or nests too deep.
pub fn canonical(text: &str) -> Option<String> {
    let raw: &RawValue = serde_json::from_str(text).ok()?;
    let mut spelled = String::with_capacity(text.len());
    spell(raw.get(), 0, &mut spelled)?;
    Some(spelled)
}

fn spell(raw: &str, depth: usize, into: &mut String) -> Option<()> {
    match raw.as_bytes().first()? {
        b'{' | b'[' if depth >= MAX_DEPTH => return None,
        b'{' => {
            let fields: BTreeMap<String, &RawValue> = serde_json::from_str(raw).ok()?;
            into.push('{');
            for (name, inner) in fields {
                into.push_str(&serde_json::to_string(&name).ok()?);
                into.push(':');
                spell(inner.get(), depth + 1, into)?;
                into.push(',');
            }
            into.push('}');
        }
        b'[' => {
            let items: Vec<&RawValue> = serde_json::from_str(raw).ok()?;
            into.push('[');
            for item in items {
                spell(item.get(), depth + 1, into)?;
                into.push(',');
            }
            into.push(']');
        }
        b'"' => {
            let text: String = serde_json::from_str(raw).ok()?;
            into.push_str(&serde_json::to_string(&text).ok()?);
        }
        b'-' | b'0'..=b'9' => into.push_str(&spell_number(raw)),
        _ => into.push_str(raw),
    }
    Some(())
}

fn spell_number(raw: &str) -> String {
    if is_integer(raw) {
        return raw.to_owned();
    }
    match raw.parse::<f64>() {
        Ok(number) if number == 0.0 && number.is_sign_negative() => "-0".to_owned(),
        Ok(number) if number.fract() == 0.0 && number.abs() <= MAX_EXACT => (number as i64).to_string(),
        Ok(number) if number.is_finite() => format!("{number:e}"),
        _ => raw.to_owned(),
    }
}

/// Whether a JSON number is written as an integer: only digits, with an optional minus sign.
pub fn is_integer(raw: &str) -> bool {
    let digits = raw.strip_prefix('-').unwrap_or(raw);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn a_value_that_cannot_be_held_is_named_by_its_field() {
        let text = r#"{"a": {"b": [1, 1e400, "x"]}, "c": "\ud800", "d": [[[9]]], "e": 2.5}"#;
        let document = read(text).unwrap();
        assert_eq!(document.value, json!({"a": {"b": [1, false, "x"]}, "c": false, "d": [[[9]]], "e": 2.5}));
        let named: Vec<_> = document.unholdable.iter().map(|(field, why)| (field.as_str(), *why)).collect();
        assert_eq!(named, [("a", Unholdable::Number), ("c", Unholdable::Text)]);
        for beyond in ["1e400".to_owned(), "-1e400".to_owned(), "9".repeat(400), format!("-{}.5", "9".repeat(400))] {
            let unholdable = read(&format!("{{\"n\": {beyond}}}")).unwrap().unholdable;
            assert_eq!(unholdable, [("n".to_owned(), Unholdable::Number)], "{beyond}");
        }
        let deep = format!("{{\"n\": {}}}", "[".repeat(200) + &"]".repeat(200));
        assert_eq!(read(&deep).unwrap().unholdable, [("n".to_owned(), Unholdable::Depth)]);
        assert_eq!(read("1e400").unwrap().unholdable, [(String::new(), Unholdable::Number)]);
        for broken in ["{", "{\"a\": 1e}", "[1e400,]", "nope"] {
            assert!(read(broken).is_err(), "{broken}");
        }
    }

    #[test]
    fn a_reserved_name_is_refused_and_its_text_is_not_read() {
        for name in
            ["$serde_json::private::RawValue", "$serde_json::private::Number", r"\u0024serde_json::private::RawValue"]
        {
            for value in ["1", r#""1""#, r#""no JSON""#, r#""1", "b": 2"#] {
                let document = read(&format!(r#"{{"a": [{{"{name}": {value}}}], "c": 3}}"#)).unwrap();
                assert_eq!(document.value, json!({"a": [false], "c": 3}), "{name} {value}");
                assert_eq!(document.unholdable, [("a".to_owned(), Unholdable::Name)], "{name} {value}");
            }
        }
        // Each text is a document that holds a text that is a document.
        let mut nested = "1".to_owned();
        for _ in 0..14 {
            let text = Value::from(nested).to_string();
            nested = format!("{}{{\"{RESERVED}RawValue\": {text}}}{}", "[".repeat(60), "]".repeat(60));
        }
        assert_eq!(read(&format!("{{\"a\": {nested}}}")).unwrap().unholdable, [("a".to_owned(), Unholdable::Name)]);
    }

    #[test]
    fn one_content_has_one_spelling() {
        let spelled = canonical(r#"{"b": [1.0, 0.5, 1e2, "é"], "a": null, "a": true, "n": 1.7976931348623157e308}"#);
        assert!(spelled.is_some());
        let respelled = r#"{"n":1.7976931348623157E+308,"a":true,"b":[1,5e-1,100,"\u00e9"]}"#;
        assert_eq!(spelled, canonical(respelled));
        for (one, other) in [
            ("[1]", "[2]"),
            ("[1,[2]]", "[[1],2]"),
            ("{\"a\":1}", "{\"b\":1}"),
            ("\"1\"", "1"),
            ("0.1", "0.10000000000000002"),
            ("-0.0", "0.0"),
            ("123456789012345678901234567890", "123456789012345678901234567891"),
        ] {
            assert_ne!(canonical(one), canonical(other), "{one} {other}");
        }
        assert_eq!(canonical("{"), None);
        assert_eq!(canonical(r#""\ud800""#), None);
    }

    proptest! {
        #[test]
        fn every_double_returns_as_the_same_double(bits in any::<u64>()) {
            let number = f64::from_bits(bits);
            prop_assume!(number.is_finite());
            let read = read(&format!("[{number:e}]")).unwrap().value;
            let back: Value = serde_json::from_str(&read.to_string()).unwrap();
            prop_assert_eq!(back[0].as_f64().map(f64::to_bits), Some(bits));
            prop_assert_eq!(canonical(&format!("{number:e}")), canonical(&serde_json::json!(number).to_string()));
        }

        #[test]
        fn no_text_panics(text in ".{0,200}") {
            let _ = read(&text);
            let _ = canonical(&text);
        }
    }
}
