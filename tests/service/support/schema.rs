//! The JSON Schemas of `docs/schemas`.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use jsonschema::Validator;
use serde_json::Value;

/// A schema in two forms: `open` as the file has it, `closed` without unknown fields.
pub struct Schema {
    open: Validator,
    closed: Validator,
}

/// Returns the directory of the schemas.
pub fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/schemas")
}

impl Schema {
    /// Returns the schema in the file `name`, without its extension. Each file is read once.
    pub fn of(name: &str) -> Arc<Schema> {
        static ALL: OnceLock<Mutex<HashMap<String, Arc<Schema>>>> = OnceLock::new();
        let mut all = ALL.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(name.to_owned()).or_insert_with(|| Arc::new(Self::read(name))).clone()
    }

    fn read(name: &str) -> Schema {
        let path = folder().join(format!("{name}.json"));
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut schema: Value = serde_json::from_str(&text).expect("the schema is JSON");
        let compile = |schema: &Value| {
            let options = jsonschema::options().should_validate_formats(true);
            options.build(schema).unwrap_or_else(|error| panic!("{name}: {error}"))
        };
        let open = compile(&schema);
        forbid_unknown_fields(&mut schema);
        Schema { open, closed: compile(&schema) }
    }

    /// Returns the errors of a value as text.
    pub fn errors(&self, value: &Value) -> Vec<String> {
        error_texts(&self.open, value)
    }

    /// Returns the errors of a value as text, including fields that the schema does not describe.
    pub fn strict_errors(&self, value: &Value) -> Vec<String> {
        error_texts(&self.closed, value)
    }
}

fn error_texts(validator: &Validator, value: &Value) -> Vec<String> {
    validator.iter_errors(value).map(|error| format!("{}: {error}", error.instance_path())).collect()
}

/// Forbids, in every object of the schema, fields that it does not describe.
fn forbid_unknown_fields(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            fields.values_mut().for_each(forbid_unknown_fields);
            if fields.contains_key("properties") && fields.get("type").is_some_and(|kind| kind == "object") {
                fields.insert("additionalProperties".to_owned(), Value::Bool(false));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(forbid_unknown_fields),
        _ => {}
    }
}
