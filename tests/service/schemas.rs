//! Checks the schemas in `docs/schemas`: they are generated from the types, and they accept exactly what the service
//! accepts.

#[path = "../../examples/schemas/events.rs"]
mod events;
#[path = "../../examples/schemas/wire/mod.rs"]
mod wire;

use std::fs;
use std::path::{Path, PathBuf};

use chrono::Utc;
use driver_tracker::domain::plausibility::FixRules;
use driver_tracker::protocol::inbound::{FrameBody, parse_value};
use driver_tracker::webhooks::order::{parse_cancellation, parse_order};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::support::schema::{Schema, folder};

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn the_files_equal_the_generated_schemas() {
    for (name, schema) in wire::all() {
        assert!(read(&folder().join(name)) == wire::text_of(&schema), "{name}: run cargo run --example schemas");
    }
    for (name, text) in events::all() {
        assert!(read(&folder().join("examples").join(&name)) == text, "{name}: run cargo run --example schemas");
    }
}

/// Returns the examples in a directory: the schema's name, the file, the body.
fn examples(at: &str) -> Vec<(String, PathBuf, Value)> {
    let listed = fs::read_dir(folder().join(at))
        .expect("the directory is readable")
        .map(|entry| entry.expect("the entry is readable").path());
    let files = listed.filter(|path| path.extension().is_some_and(|ending| ending == "json"));
    let read = |path: PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap().split('.').next().unwrap().to_owned();
        let body = serde_json::from_str(&read(&path)).unwrap();
        (name, path, body)
    };
    files.map(read).collect()
}

/// Returns whether the service accepts a body, or `None` for a body that the service never reads.
fn service_accepts(schema: &str, body: &Value) -> Option<bool> {
    match schema {
        "seller-order-ready" => Some(parse_order(body.to_string().as_bytes()).is_ok()),
        "seller-order-cancelled" => Some(parse_cancellation(body.to_string().as_bytes()).is_ok()),
        "driver-frames" => Some(frame_is_accepted(body)),
        _ => None,
    }
}

/// Returns whether the service parses a frame. The plausibility of a fix is not checked here.
fn frame_is_accepted(body: &Value) -> bool {
    match parse_value(body, Utc::now(), &FixRules::default()).map(|frame| frame.body) {
        Ok(FrameBody::Batch { fixes }) => {
            fixes.iter().all(|fix| fix.as_ref().err().is_none_or(|refusal| refusal.code != "invalid_frame"))
        }
        parsed => parsed.is_ok(),
    }
}

#[test]
fn schema_and_service_agree_on_every_example() {
    for (at, is_good) in [("examples", true), ("examples/invalid", false)] {
        let all = examples(at);
        assert!(all.len() > 20, "{at} has more than 20 examples: {}", all.len());
        for (name, path, body) in all {
            let schema_errors = Schema::of(&name).errors(&body);
            assert_eq!(schema_errors.is_empty(), is_good, "{}: {schema_errors:?}", path.display());
            if let Some(accepted) = service_accepts(&name, &body) {
                assert_eq!(accepted, is_good, "schema and service agree on {}", path.display());
            }
        }
    }
}

#[test]
fn every_kind_has_an_example_and_an_invalid_one() {
    for (at, schemas) in [
        (
            "examples",
            &["seller-order-ready", "seller-order-cancelled", "delivery-event", "driver-frames", "server-frames"][..],
        ),
        ("examples/invalid", &["seller-order-ready", "seller-order-cancelled", "driver-frames", "server-frames"]),
    ] {
        let all = examples(at);
        for schema in schemas {
            assert!(all.iter().any(|(name, ..)| name == schema), "{at} has an example of {schema}");
        }
    }
}

/// Returns the valid examples of a schema, from which mutations are made.
fn valid_examples(schema: &str) -> Vec<Value> {
    examples("examples").into_iter().filter(|(name, ..)| name == schema).map(|(_, _, body)| body).collect()
}

/// Collects the path of every value in a body, made of names and indices.
fn paths_in(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match value {
        Value::Object(fields) => {
            fields.iter().for_each(|(name, inner)| paths_in(inner, &format!("{at}/{name}"), found))
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(n, inner)| paths_in(inner, &format!("{at}/{n}"), found))
        }
        _ => {}
    }
}

/// Returns values of unusual types and sizes.
fn unusual_values() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        Just(json!("")),
        Just(json!("x")),
        Just(json!("é".repeat(65))),
        Just(json!("y".repeat(129))),
        Just(json!("z".repeat(257))),
        Just(json!("z".repeat(1001))),
        Just(json!("a\u{0}b")),
        Just(json!("2026-01-27T10:00:00Z")),
        Just(json!("https://x.example/1")),
        Just(json!("AVAILABLE")),
        Just(json!("FAILED")),
        Just(json!({})),
        Just(json!([])),
        Just(json!([{}])),
        Just(json!(true)),
        Just(json!(0)),
        Just(json!(-1)),
        Just(json!(86)),
        Just(json!(181)),
        Just(json!(1.5)),
        Just(json!(1_000_000_001)),
        Just(json!({"code": "PICKUP_FAILED"})),
    ]
}

/// Returns an example with one field removed or one value replaced.
fn mutated(schema: &'static str) -> impl Strategy<Value = Value> {
    let bodies = valid_examples(schema);
    (0..bodies.len(), any::<prop::sample::Index>(), prop::option::of(unusual_values())).prop_map(
        move |(which, place, unusual_values)| {
            let mut body = bodies[which].clone();
            let mut all = Vec::new();
            paths_in(&body, "", &mut all);
            let at = place.get(&all);
            match (unusual_values, at.rsplit_once('/')) {
                (Some(unusual_values), _) => *body.pointer_mut(at).expect("the path exists") = unusual_values,
                (None, Some((parent, name))) => {
                    if let Some(Value::Object(fields)) = body.pointer_mut(parent) {
                        fields.remove(name);
                    }
                }
                (None, None) => {}
            }
            body
        },
    )
}

fn agrees(schema: &str, body: &Value) -> Result<(), TestCaseError> {
    let schema_errors = Schema::of(schema).errors(body);
    prop_assert_eq!(Some(schema_errors.is_empty()), service_accepts(schema, body), "{} {:?}", body, schema_errors);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn schema_and_service_agree_on_every_mutated_order(body in mutated("seller-order-ready")) {
        // A schema cannot express the depth limit of metadata, or that it must not contain NUL.
        prop_assume!(!body["metadata"].to_string().contains("\\u0000"));
        agrees("seller-order-ready", &body)?;
    }

    #[test]
    fn schema_and_service_agree_on_every_mutated_frame(body in mutated("driver-frames")) {
        agrees("driver-frames", &body)?;
    }
}

#[test]
fn the_schema_of_events_describes_every_field_and_requires_the_mandatory_ones() {
    let schema = Schema::of("delivery-event");
    for (name, text) in events::all() {
        let event: Value = serde_json::from_str(&text).unwrap();
        let unknown = schema.strict_errors(&event);
        assert!(unknown.is_empty(), "{name}: {unknown:?}");
        for field in event.as_object().unwrap().keys() {
            let mut without = event.clone();
            without.as_object_mut().unwrap().remove(field);
            const OPTIONAL: [&str; 11] = [
                "orderCode",
                "externalId",
                "metadata",
                "trackingUrl",
                "driverId",
                "assignmentId",
                "driver",
                "pickupProofUrl",
                "deliveryProofUrl",
                "deliveryLat",
                "deliveryLon",
            ];
            let schema_errors = schema.errors(&without);
            assert_eq!(
                schema_errors.is_empty(),
                OPTIONAL.contains(&field.as_str()),
                "{name} without {field}: {schema_errors:?}"
            );
        }
    }
}
