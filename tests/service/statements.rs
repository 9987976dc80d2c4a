//! Prepares every SQL statement of the program against a real, migrated database.
//!
//! A missing column or a wrong type fails here and not in production.

use driver_tracker::dev::servers::{PostgresOptions, PrivatePostgres};
use driver_tracker::store;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, SqlSafeStr};

#[tokio::test]
async fn every_statement_of_the_store_prepares() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    let server = tokio::task::spawn_blocking(move || {
        let server = PrivatePostgres::start_with(&path, None, PostgresOptions::for_tests()).unwrap();
        server.create_database("statements").unwrap();
        server
    })
    .await
    .unwrap();
    let url = server.url("statements");
    store::schema::migrate(&url).await.unwrap();
    // The second migration must leave applied migrations unchanged.
    store::schema::migrate(&url).await.unwrap();
    let mut conn = PgConnection::connect(&url).await.unwrap();
    let statements = store::statements();
    assert!(statements.len() > 50, "more than 50 statements are listed: {}", statements.len());
    let mut failures = Vec::new();
    for (name, sql) in statements {
        if let Err(error) = conn.prepare(AssertSqlSafe(sql).into_sql_str()).await {
            failures.push(format!("{name}: {error}\n{sql}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    assert!(!store::schema::identity(&mut conn).await.unwrap().is_empty());
}

/// A statement outside the lists would not be prepared by the test above.
#[test]
fn no_query_of_the_store_has_inline_sql() {
    let store = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store");
    for entry in std::fs::read_dir(store).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        for (number, line) in text.lines().enumerate() {
            // Only `statement.rs` calls sqlx. So no prepared statement stays on a connection, which a
            // pooler would not allow.
            let is_maker = path.ends_with("statement.rs");
            assert!(is_maker || !line.contains("sqlx::query"), "{}:{}", path.display(), number + 1);
            for call in ["query(", "query_as(", "query_scalar(", "query_as::<Row>("] {
                if let Some(at) = line.find(call) {
                    let argument = &line[at + call.len()..];
                    assert!(
                        is_maker || argument.starts_with(|c: char| c.is_ascii_uppercase()),
                        "{}:{}: name the statement in `statements!`",
                        path.display(),
                        number + 1
                    );
                }
            }
        }
    }
}
