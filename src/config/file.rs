//! Reads the configuration file: flat TOML with keys in lower case.
//!
//! Invariants: an unknown key is refused, and the problem suggests the nearest known key.
//!
//! Must not: repeat the text of the file. TOML's own errors quote the invalid line, which may hold a secret. Only the message
//! and the line number are reported.

use std::path::Path;

use toml::{Table, Value};

use super::settings::{SETTINGS, Setting};

/// The largest file that is read, in bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Reads the file. The error is a sentence.
pub(super) fn read(path: &Path) -> Result<String, String> {
    let shown = path.display();
    let found = std::fs::metadata(path)
        .map_err(|error| format!("the configuration file {shown} cannot be read: {error}; correct the path given by --config or DRIVER_TRACKER_CONFIG"))?;
    if !found.is_file() || found.len() > MAX_FILE_BYTES {
        return Err(format!("the configuration file {shown} must be a regular file of at most 1 MiB"));
    }
    std::fs::read_to_string(path).map_err(|error| format!("the configuration file {shown} cannot be read: {error}"))
}

/// The values of a file's text, and its problems.
pub(super) fn parse(path: &Path, text: &str) -> (Vec<(&'static Setting, String)>, Vec<String>) {
    let shown = path.display();
    let table = match text.parse::<Table>() {
        Ok(table) => table,
        Err(error) => {
            let start = error.span().map_or(0, |span| span.start);
            let line = text.bytes().take(start).filter(|byte| *byte == b'\n').count() + 1;
            return (
                Vec::new(),
                vec![format!("the configuration file {shown} is not TOML: line {line}: {}", error.message())],
            );
        }
    };
    let (mut values, mut problems) = (Vec::new(), Vec::new());
    for (key, value) in &table {
        let Some(setting) = SETTINGS.iter().find(|setting| setting.file_key() == *key) else {
            problems.push(unknown_key(&format!("{shown}"), key, value));
            continue;
        };
        match as_text(value) {
            Some(text) => values.push((setting, text)),
            None => problems.push(format!(
                "{setting} (file {shown}) must be a string, a number, true or false, or an array of strings"
            )),
        }
    }
    (values, problems)
}

/// A value as the text that the environment would hold.
fn as_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(number) => Some(number.to_string()),
        Value::Float(number) => Some(number.to_string()),
        Value::Boolean(truth) => Some(truth.to_string()),
        Value::Array(items) => {
            let texts: Option<Vec<_>> = items.iter().map(Value::as_str).collect();
            texts.map(|texts| texts.join(","))
        }
        _ => None,
    }
}

fn unknown_key(file: &str, key: &str, value: &Value) -> String {
    let mut sentence = format!("the configuration file {file} has the key {key:?}, which is no setting");
    // A table is most likely `[database] url = …`. The keys of the file are flat.
    if let Value::Table(inner) = value {
        sentence.push_str("; keys are flat, without tables");
        let first = inner.keys().find_map(|inner_key| suggestion(&format!("{key}_{inner_key}")));
        return first.map_or(sentence.clone(), |near| format!("{sentence}: write {near} = …"));
    }
    match suggestion(key) {
        Some(near) => format!("{sentence}: did you mean {near}?"),
        None => format!("{sentence}: take it out"),
    }
}

/// The key of the setting nearest to `key`, if it is near enough.
fn suggestion(key: &str) -> Option<String> {
    let wanted = key.to_ascii_lowercase().replace(['-', '.'], "_");
    if wanted.len() > 64 {
        return None;
    }
    let (distance, near) =
        SETTINGS.iter().map(Setting::file_key).map(|known| (edit_distance(&wanted, &known), known)).min()?;
    (distance <= wanted.len().max(3) / 3).then_some(near)
}

/// The Levenshtein distance, in bytes.
fn edit_distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.bytes().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, to) in b.bytes().enumerate() {
            let substituted = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<String> {
        parse(Path::new("t.toml"), text).1
    }

    #[test]
    fn values_of_every_kind_become_text() {
        let (values, problems) = parse(
            Path::new("t.toml"),
            "database_max_connections = 7\nmigrate_on_start = true\nsearch_max_radius_m = 1500.5\n\
             allowed_origins = ['https://a.example', 'https://b.example']\nredis_key_prefix = 'a:'",
        );
        assert!(problems.is_empty(), "{problems:?}");
        let texts: Vec<_> = values.iter().map(|(setting, text)| format!("{setting}={text}")).collect();
        for expected in [
            "DATABASE_MAX_CONNECTIONS=7",
            "MIGRATE_ON_START=true",
            "SEARCH_MAX_RADIUS_M=1500.5",
            "ALLOWED_ORIGINS=https://a.example,https://b.example",
            "REDIS_KEY_PREFIX=a:",
        ] {
            assert!(texts.iter().any(|text| text == expected), "{expected} in {texts:?}");
        }
    }

    #[test]
    fn an_unknown_key_is_refused_with_the_nearest_known() {
        assert!(problems("databse_url = 'x'")[0].contains("did you mean database_url?"));
        assert!(problems("LISTEN_ADDR = 'x'")[0].contains("did you mean listen_addr?"));
        assert!(problems("[database]\nurl = 'x'")[0].contains("write database_url"));
        assert!(problems("zzzzzzzzzz = 1")[0].contains("take it out"));
        assert!(problems("database_url = 1979-05-27")[0].starts_with("DATABASE_URL (file t.toml) must be"));
    }

    #[test]
    fn a_broken_file_is_told_by_line_without_its_text() {
        let told = problems("redis_key_prefix = 'a'\nvendure_webhook_shared_secret = 'hunter2\n");
        assert!(told[0].contains("line 2"), "{told:?}");
        assert!(!told[0].contains("hunter2"), "{told:?}");
    }

    #[test]
    fn distances_are_levenshtein() {
        assert_eq!(edit_distance("kitten", "sitting"), 3);
        assert_eq!(edit_distance("", "abc"), 3);
        assert_eq!(edit_distance("abc", "abc"), 0);
    }
}
