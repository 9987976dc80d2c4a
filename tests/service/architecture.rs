//! Checks the layers: which module may import which, that no imports form a cycle, and which crates and SQL each
//! module may use.
//!
//! The test reads `src/**/*.rs` as text. The map below is the architecture.
//!
//! Invariant: a change of the map also changes `docs/architecture.md`.

mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use source::{Placed, Token, begins_with_crate, module_of, read, targets};

/// Every module with the modules that it may import. `app` and `main` may import every module. No module imports
/// them.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("process", &[]),
    ("config", &["domain"]),
    ("telemetry", &["config", "domain"]),
    ("store", &["domain"]),
    ("presence", &["domain"]),
    ("webhooks", &["domain"]),
    ("shops", &["domain", "config", "store", "webhooks"]),
    // Use cases return effects. The caller applies them.
    ("dispatch", &["domain", "store", "webhooks"]),
    // The frames of drivers: the wire format of the input and the output of use cases.
    ("protocol", &["domain", "store", "dispatch"]),
    ("effects", &["domain", "process", "store", "presence", "dispatch"]),
    ("ingest", &["domain", "process", "config", "store", "presence", "effects"]),
    ("assignment", &["domain", "process", "config", "store", "presence", "dispatch", "effects"]),
    ("outbox", &["domain", "process", "config", "store", "webhooks", "shops", "effects"]),
    ("sessions", &["domain", "process", "config", "store", "presence", "dispatch", "protocol", "effects", "ingest"]),
    ("background", &["domain", "process", "config", "store", "presence", "dispatch", "shops", "effects", "ingest"]),
    (
        "http",
        &[
            "domain",
            "process",
            "config",
            "telemetry",
            "store",
            "presence",
            "webhooks",
            "shops",
            "dispatch",
            "protocol",
            "effects",
            "assignment",
            "sessions",
        ],
    ),
    // Starts the HTTP and WebSocket listeners.
    ("listeners", &["telemetry", "sessions", "http"]),
    // Parses the command line and does nothing else.
    ("cli", &["domain", "config"]),
    // Reads and writes the stores. Does not run the service.
    ("commands", &["domain", "config", "cli", "store", "presence"]),
    ("dev", &["domain", "config", "telemetry", "store", "presence", "webhooks", "app", "cli", "commands"]),
];

/// The modules that connect all others.
const WIRING: [&str; 3] = ["app", "main", "lib"];

/// Crates with the modules that may use them. An entry that ends in `.rs` is one file.
const CRATES: &[(&str, &[&str])] = &[
    ("actix_web_actors", &["sessions/driver_session.rs"]),
    ("redis", &["presence", "dev"]),
    ("sqlx", &["store", "dispatch", "http", "dev"]),
];

/// The modules that may contain SQL.
const SQL: [&str; 2] = ["store", "dev"];

/// Returns every violation in one file, each as a sentence.
fn violations(file: &str, source: &str) -> Vec<String> {
    let placed = read(file, source);
    let mut found = imports(file, &placed);
    for (at, one) in placed.iter().enumerate() {
        match &one.token {
            Token::Word(word) => found.extend(forbidden_use(file, word, &placed, at)),
            Token::Text(text) if !SQL.contains(&module_name(file)) && !is_test(&one.module) && is_sql(text) => {
                found.push(format!("{file} contains SQL, which belongs in src/store: {text:.60}"));
            }
            _ => {}
        }
    }
    found
}

/// Returns the module of a file: its first directory, or the file itself.
fn module_name(file: &str) -> &str {
    file.split('/').next().unwrap_or(file).trim_end_matches(".rs")
}

fn is_test(module: &[String]) -> bool {
    module.iter().any(|name| name == "tests")
}

fn imports(file: &str, placed: &[Placed]) -> Vec<String> {
    let own = module_name(file);
    if WIRING.contains(&own) {
        return Vec::new();
    }
    let Some((_, allowed)) = MAY_IMPORT.iter().find(|(name, _)| *name == own) else {
        return vec![format!("{file} is in no module; add its module to MAY_IMPORT")];
    };
    let is_allowed = |name: &str, module: &[String]| {
        // Tests in every module may start private servers.
        name == own || allowed.contains(&name) || (name == "dev" && is_test(module))
    };
    let names = targets(placed).into_iter().filter_map(|(path, module)| Some((path.into_iter().next()?, module)));
    let forbidden = names.filter(|(name, module)| !is_allowed(name, module));
    forbidden.map(|(name, _)| format!("{file} imports crate::{name}, which {own} may not import")).collect()
}

fn forbidden_use(file: &str, word: &str, placed: &[Placed], at: usize) -> Option<String> {
    let (name, allowed) = CRATES.iter().find(|(name, _)| *name == word)?;
    let is_allowed = allowed.iter().any(|place| *place == file || *place == module_name(file));
    // A module of this crate may have the name of a crate. A path in which the name is not first is not a use of
    // the crate.
    let is_used = begins_with_crate(placed, at, name);
    (is_used && !is_allowed).then(|| format!("{file} uses {name}, which only {} may use", allowed.join(", ")))
}

fn is_sql(text: &str) -> bool {
    let words: Vec<&str> = text.split_whitespace().collect();
    let pair = |first: &str, second: &str| words.windows(2).any(|two| two == [first, second]);
    // A sentence in capitals is not a statement. A statement has a second keyword, or more than one word.
    let after = |first: &str, second: &str| {
        words.iter().position(|word| *word == first).is_some_and(|at| words[at + 1..].contains(&second))
    };
    let selects = words.iter().position(|word| *word == "SELECT" || word.ends_with("(SELECT"));
    selects.is_some_and(|at| at + 1 < words.len())
        || pair("INSERT", "INTO")
        || pair("DELETE", "FROM")
        || after("UPDATE", "SET")
}

/// Collects every source file under `dir` with its path relative to `dir`.
fn files(dir: &Path, prefix: &str, found: &mut Vec<(String, String)>) {
    for entry in
        fs::read_dir(dir).expect("the directory is readable").map(|entry| entry.expect("the entry is readable"))
    {
        let name = format!("{prefix}{}", entry.file_name().to_str().expect("the file name is UTF-8"));
        if entry.path().is_dir() {
            files(&entry.path(), &format!("{name}/"), found);
        } else if name.ends_with(".rs") {
            found.push((name, fs::read_to_string(entry.path()).expect("the source file is readable")));
        }
    }
}

#[test]
fn modules_import_only_what_the_map_allows() {
    let mut sources = Vec::new();
    files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), "", &mut sources);
    assert!(sources.len() > 10, "the source files are found");
    let found: Vec<String> = sources.iter().flat_map(|(file, source)| violations(file, source)).collect();
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

/// Returns every import, from module to module, and from file to file within a module.
fn edges(sources: &[(String, String)]) -> Edges {
    let mut edges = Edges::new();
    for (file, source) in sources {
        let placed = read(file, source);
        let own = module_of(file);
        for (target, module) in targets(&placed) {
            if is_test(&module) || is_test(&own) || target.is_empty() {
                continue;
            }
            let (from, to) = (module_name(file).to_owned(), target[0].clone());
            if from != to && !WIRING.contains(&from.as_str()) {
                edges.entry(from).or_default().insert(to);
            }
            // A file and the directory of the same module are one node.
            if let Some(other) = file_of(sources, &target)
                && module_of(&other) != own
                && !own.starts_with(&module_of(&other))
                && !module_of(&other).starts_with(&own)
            {
                edges.entry(file.clone()).or_default().insert(other);
            }
        }
    }
    edges
}

type Edges = BTreeMap<String, BTreeSet<String>>;

/// Returns the file whose module is the longest prefix of a path.
fn file_of(sources: &[(String, String)], path: &[String]) -> Option<String> {
    (1..=path.len()).rev().find_map(|length| {
        let found = sources.iter().find(|(file, _)| module_of(file) == path[..length]);
        found.map(|(file, _)| file.clone())
    })
}

/// Returns the names along a cycle of imports, if there is one.
fn cycle(edges: &Edges) -> Option<Vec<String>> {
    fn visit(at: &str, edges: &Edges, path: &mut Vec<String>, done: &mut BTreeSet<String>) -> Option<Vec<String>> {
        if let Some(start) = path.iter().position(|name| name == at) {
            return Some(path[start..].to_vec());
        }
        if !done.insert(at.to_owned()) {
            return None;
        }
        path.push(at.to_owned());
        let found = edges.get(at).into_iter().flatten().find_map(|next| visit(next, edges, path, done));
        path.pop();
        found
    }
    let mut done = BTreeSet::new();
    edges.keys().find_map(|name| visit(name, edges, &mut Vec::new(), &mut done))
}

#[test]
fn imports_form_no_cycle_between_modules_or_between_files() {
    let mut sources = Vec::new();
    files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), "", &mut sources);
    let edges = edges(&sources);
    assert!(edges.len() > 100, "the imports are found: {}", edges.len());
    assert_eq!(cycle(&edges), None);
}

#[test]
fn cycles_between_modules_and_between_files_are_found() {
    let source = |file: &str, text: &str| (file.to_owned(), text.to_owned());
    let cycle_of = |sources: &[(String, String)]| cycle(&edges(sources)).is_some();
    assert!(cycle_of(&[source("a/mod.rs", "use crate::b::X;"), source("b/mod.rs", "use crate::a::Y;")]));
    assert!(cycle_of(&[
        source("a/mod.rs", "mod b; mod c;"),
        source("a/b.rs", "use super::c::X;"),
        source("a/c.rs", "use super::b::{Y, Z};"),
    ]));
    assert!(!cycle_of(&[
        source("a/mod.rs", "mod b; use b::X;"),
        source("a/b.rs", "use super::Y; use crate::c::Z; mod tests { use crate::a::d::W; }"),
        source("a/d.rs", "use super::b::X;"),
        source("c.rs", ""),
    ]));
}

#[track_caller]
fn assert_caught(file: &str, source: &str) {
    assert_ne!(violations(file, source), Vec::<String>::new(), "in {file}: {source}");
}

#[track_caller]
fn assert_allowed(file: &str, source: &str) {
    assert_eq!(violations(file, source), Vec::<String>::new(), "in {file}: {source}");
}

#[test]
fn imports_upward_and_sideways_are_caught() {
    assert_caught("domain/order.rs", "use crate::store::deliveries;");
    assert_caught("store/drivers.rs", "use crate::presence::Presence;");
    assert_caught("presence/mod.rs", "use super::webhooks;");
    assert_caught("dispatch/claim.rs", "fn f() { crate::presence::join() }");
    assert_caught("outbox/relay.rs", "use crate::{domain::ids, http::problem};");
    assert_caught("sessions/mod.rs", "use crate::assignment::CandidateSource;");
    assert_caught("http/webhook.rs", "use super::super::dev::servers;");
    assert_caught("config.rs", "use crate::store;");
    assert_caught("store/drivers.rs", "use crate::*;");
    assert_caught("store/drivers.rs", "use crate::dev::servers;");
    assert_caught("dev/mod.rs", "use crate::main;");
    assert_caught("newmodule/mod.rs", "");

    assert_allowed("store/drivers.rs", "use crate::domain::ids; use super::migrate; use crate::store::x;");
    assert_allowed("store/drivers.rs", "mod tests { use super::*; use crate::dev::servers; }");
    assert_allowed("http/shops/webhook.rs", "use crate::{dispatch, presence, sessions}; // crate::dev");
    assert_allowed("dev/simulate.rs", "use crate::{app, cli, store};");
    assert_allowed("app.rs", "use crate::{dev, http};");
}

#[test]
fn crates_outside_their_modules_are_caught() {
    assert_caught("outbox/relay.rs", "use actix_web_actors::ws;");
    assert_caught("http/socket.rs", "fn f(m: actix_web_actors::ws::Message) {}");
    assert_caught("store/drivers.rs", "use redis::AsyncCommands;");
    assert_caught("outbox/relay.rs", "use ::redis as r;");
    assert_caught("outbox/relay.rs", "use redis;");
    assert_caught("domain/ids.rs", "#[derive(sqlx::Type)] struct S;");
    assert_caught("presence/mod.rs", "use sqlx::PgPool;");

    assert_allowed("sessions/driver_session.rs", "use actix_web_actors::ws;");
    assert_allowed("presence/mod.rs", "use redis::AsyncCommands;");
    assert_allowed("outbox/relay.rs", "/// As redis::Client does.\nuse super::redis::x;");
}

#[test]
fn sql_outside_the_store_is_caught() {
    assert_caught("dispatch/claim.rs", r#"let q = "SELECT id FROM drivers";"#);
    assert_caught("outbox/relay.rs", r##"let q = r#"INSERT INTO "outbox" VALUES ($1)"#;"##);
    assert_caught("http/drivers.rs", "let q = \"UPDATE drivers\n SET active = false\";");
    assert_caught("app.rs", r#"let q = "WITH x AS (SELECT 1) DELETE FROM outbox";"#);

    assert_allowed("store/drivers.rs", r#"let q = "SELECT id FROM drivers";"#);
    assert_allowed("http/drivers.rs", r#"let q = "an UPDATE of a driver"; // SELECT id FROM drivers"#);
    assert_allowed("outbox/relay.rs", r#"mod tests { const Q: &str = "DELETE FROM outbox"; }"#);
    assert_eq!(module_of("store/mod.rs"), ["store"]);
}
