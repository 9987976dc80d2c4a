//! Every SQL statement of the program is prepared against the real, migrated schema.

use std::path::{Path, PathBuf};

use driver_tracker::store;
use sqlx::{Executor, SqlSafeStr};

use super::support::servers;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_statement_of_the_store_fits_the_schema() {
    let (url, _) = servers::fresh_database().await;
    let mut conn = servers::connect(&url).await;
    let statements = store::statements();
    assert!(statements.len() > 20, "only {} statements", statements.len());
    for (name, sql) in statements {
        let prepared = (&mut conn).prepare(sql.into_sql_str()).await;
        prepared.unwrap_or_else(|error| panic!("{name} cannot be prepared: {error}\n{sql}"));
    }
    drop(conn);
    servers::drop_database(&url).await;
}

/// Sources below a folder.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
    found
}

/// What stands after each call of sqlx's query functions, up to `length` characters.
fn arguments_of_queries(source: &str) -> Vec<&str> {
    ["query(", "query_as(", "query_scalar(", "raw_sql(", "query_with("]
        .iter()
        .flat_map(|call| source.match_indices(call).map(move |(at, _)| source[at + call.len()..].trim_start()))
        .collect()
}

#[test]
fn the_store_runs_no_statement_that_is_not_listed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut calls = 0;
    for path in sources(&root) {
        let source = std::fs::read_to_string(&path).expect("a source");
        let in_store = path.starts_with(root.join("store"));
        // Tests below a module may say what they like.
        let code = source.split("#[cfg(test)]").next().unwrap_or_default();
        if !in_store {
            assert!(!code.contains("sqlx::query"), "{} holds SQL outside the store", path.display());
            continue;
        }
        for argument in arguments_of_queries(code) {
            calls += 1;
            let name: String = argument.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
            let is_constant =
                !name.is_empty() && name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
            assert!(is_constant, "{}: a query is given {:.40} instead of a listed constant", path.display(), argument);
            let listed = code.contains(&format!("    {name} = "));
            assert!(listed, "{}: {name} is not listed by statements!", path.display());
        }
    }
    assert!(calls > 20, "only {calls} calls were found; has the way to write them changed?");
}
