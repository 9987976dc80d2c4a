//! Writes callers' JSON to `jsonb` columns, so that every number is read back as the double that was sent.
//!
//! PostgreSQL stores the numbers of `jsonb` as exact decimals, which have no negative zero. A negative zero is written as a
//! decimal that is so small that every reader rounds it to the double -0.0.

use std::io;

use serde::{Serialize, Serializer};
use serde_json::Value;
use serde_json::ser::{CompactFormatter, Formatter};
use serde_json::value::RawValue;
use sqlx::types::Json;

/// The magnitude is below that of the smallest double, and above that of the smallest decimal of PostgreSQL.
const NEGATIVE_ZERO: &[u8] = b"-1e-400";

/// Wraps a value for a `jsonb` parameter.
pub(super) fn exact(value: &Value) -> Json<Exact<'_>> {
    Json(Exact(value))
}

/// A value whose numbers are all read back as the same doubles.
pub(super) struct Exact<'v>(&'v Value);

impl Serialize for Exact<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::Error;
        if !holds_negative_zero(self.0) {
            return self.0.serialize(serializer);
        }
        let mut text = Vec::new();
        let mut spelling = serde_json::Serializer::with_formatter(&mut text, SignedZero);
        self.0.serialize(&mut spelling).map_err(S::Error::custom)?;
        let text = String::from_utf8(text).map_err(S::Error::custom)?;
        RawValue::from_string(text).map_err(S::Error::custom)?.serialize(serializer)
    }
}

fn holds_negative_zero(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.as_f64().is_some_and(|number| number == 0.0 && number.is_sign_negative()),
        Value::Array(items) => items.iter().any(holds_negative_zero),
        Value::Object(fields) => fields.values().any(holds_negative_zero),
        Value::Null | Value::Bool(_) | Value::String(_) => false,
    }
}

struct SignedZero;

impl Formatter for SignedZero {
    fn write_f64<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        if value == 0.0 && value.is_sign_negative() {
            writer.write_all(NEGATIVE_ZERO)
        } else {
            CompactFormatter.write_f64(writer, value)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_of(sent: &str) -> String {
        let value: Value = serde_json::from_str(sent).unwrap();
        serde_json::to_string(&Exact(&value)).unwrap()
    }

    #[test]
    fn a_negative_zero_is_written_as_a_decimal_that_reads_as_one() {
        assert_eq!(text_of(r#"{"a":[0,0.0,1.5,"-0.0"]}"#), r#"{"a":[0,0.0,1.5,"-0.0"]}"#);
        let text = text_of(r#"{"a":[-0.0,0.0],"b":-0}"#);
        assert_eq!(text, r#"{"a":[-1e-400,0.0],"b":-1e-400}"#);
        // The first text is the one that PostgreSQL prints.
        for spelled in [text.replace("-1e-400", &format!("-0.{}1", "0".repeat(399))), text] {
            let read: Value = serde_json::from_str(&spelled).unwrap();
            for zero in [&read["a"][0], &read["b"]] {
                assert_eq!(zero.as_f64().map(f64::to_bits), Some((-0.0_f64).to_bits()), "{spelled}");
            }
        }
    }
}
