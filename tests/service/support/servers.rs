//! PostgreSQL and Redis servers for tests.
//!
//! Invariants:
//! - Ordinary tests share one pair of servers and have a database and a key prefix each.
//! - A test that stops, freezes or flushes a server has a private one. It must not do so to a shared server.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use driver_tracker::dev::servers::{PostgresOptions, PrivatePostgres, PrivateRedis, ServerError};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::task::block_in_place;

use super::node::{self, Env};

/// The template database. It is migrated once and copied for every test.
const TEMPLATE: &str = "template_driver_tracker";

/// The prefix of the names of test databases. A number follows.
const DATABASE: &str = "test_";

/// A prepared database: the operator's key in it.
pub struct Prepared {
    pub admin_key: String,
}

static NUMBER: AtomicUsize = AtomicUsize::new(1);

/// Returns a number that is unique in this run.
pub fn next_number() -> usize {
    NUMBER.fetch_add(1, Ordering::Relaxed)
}

fn scratch() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("service")
}

/// Starts a server in the first directory that no other run uses. The directories stay between runs, because creating
/// a cluster takes long.
fn in_free_directory<S>(name: &str, start: impl Fn(&Path) -> Result<S, ServerError>) -> S {
    for n in 0..16 {
        match start(&scratch().join(format!("{name}-{n}"))) {
            Err(ServerError::InUse { .. }) => {}
            outcome => return outcome.unwrap_or_else(|error| panic!("{error}")),
        }
    }
    panic!("all 16 directories are in use by other test runs");
}

/// Returns the Redis that ordinary tests share. Each test has its own key prefix.
pub fn shared_redis() -> &'static PrivateRedis {
    static REDIS: OnceLock<PrivateRedis> = OnceLock::new();
    block_in_place(|| REDIS.get_or_init(|| in_free_directory("redis", |dir| PrivateRedis::start(dir, None))))
}

/// Returns the PostgreSQL that ordinary tests share. Each test has its own database.
pub fn shared_postgres() -> &'static PrivatePostgres {
    static POSTGRES: OnceLock<PrivatePostgres> = OnceLock::new();
    let options = PostgresOptions { remove_on_drop: false, ..PostgresOptions::for_tests() };
    let start = || in_free_directory("postgres", |dir| PrivatePostgres::start_with(dir, None, options));
    block_in_place(|| POSTGRES.get_or_init(start))
}

/// A private server of one test. The server and its directory are removed on drop.
pub struct Own<S> {
    server: Option<S>,
    directory: PathBuf,
}

impl<S> Deref for Own<S> {
    type Target = S;
    fn deref(&self) -> &S {
        self.server.as_ref().expect("the server exists until the drop")
    }
}

impl<S> Drop for Own<S> {
    fn drop(&mut self) {
        drop(self.server.take());
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn own<S>(name: &str, start: impl FnOnce(&Path) -> Result<S, ServerError>) -> Own<S> {
    let directory = scratch().join(format!("own-{name}-{}-{}", std::process::id(), next_number()));
    let server = block_in_place(|| start(&directory)).unwrap_or_else(|error| panic!("{error}"));
    Own { server: Some(server), directory }
}

/// Starts a private Redis.
pub fn own_redis() -> Own<PrivateRedis> {
    own("redis", |dir| PrivateRedis::start(dir, None))
}

/// Starts a private PostgreSQL.
pub fn own_postgres() -> Own<PrivatePostgres> {
    own("postgres", |dir| PrivatePostgres::start_with(dir, None, PostgresOptions::for_tests()))
}

/// Starts a private PostgreSQL that allows standbys.
pub fn own_primary() -> Own<PrivatePostgres> {
    let options = PostgresOptions { replication: true, ..PostgresOptions::for_tests() };
    own("primary", |dir| PrivatePostgres::start_with(dir, None, options))
}

/// Starts a standby of a server that [`own_primary`] returned.
pub fn own_standby(primary: &PrivatePostgres) -> Own<PrivatePostgres> {
    own("standby", |dir| PrivatePostgres::start_standby(primary, "standby", dir))
}

/// Returns the smallest set of settings with which the program can run a command on a database.
pub fn minimal_env(database_url: &str) -> Env {
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    vec![
        pair("DATABASE_URL", database_url),
        pair("REDIS_URL", "redis://127.0.0.1:1"),
        pair("VENDURE_WEBHOOK_SHARED_SECRET", "only-so-that-the-configuration-is-whole"),
        pair("LOG_FORMAT", "json"),
    ]
}

/// Migrates the database and creates an operator's key in it, both by the program.
async fn prepare(database_url: &str) -> Prepared {
    let env = minimal_env(database_url);
    let migrated = node::run(&["migrate"], &env).await;
    assert!(migrated.status.success(), "migrate failed: {}", String::from_utf8_lossy(&migrated.stderr));
    let made = node::run(&["api-key", "create", "--name", "tests", "--scope", "admin"], &env).await;
    assert!(made.status.success(), "api-key failed: {}", String::from_utf8_lossy(&made.stderr));
    let admin_key = String::from_utf8(made.stdout).expect("the key is UTF-8").trim().to_owned();
    assert!(!admin_key.is_empty() && !admin_key.contains(char::is_whitespace), "standard output contains only the key");
    Prepared { admin_key }
}

/// Opens a connection to a database.
pub async fn connect(url: &str) -> PgConnection {
    PgConnection::connect(url).await.unwrap_or_else(|error| panic!("PostgreSQL: {error}"))
}

/// Runs a statement without parameters.
pub async fn execute(conn: &mut PgConnection, statement: String) {
    let done = sqlx::raw_sql(AssertSqlSafe(statement)).execute(conn).await;
    done.unwrap_or_else(|error| panic!("PostgreSQL: {error}"));
}

/// Creates a migrated database on the shared server. Returns its URL and the operator's key in it.
pub async fn fresh_database() -> (String, &'static str) {
    static TEMPLATE_READY: tokio::sync::OnceCell<Prepared> = tokio::sync::OnceCell::const_new();
    let server = shared_postgres();
    let prepared = TEMPLATE_READY
        .get_or_init(|| async {
            let mut conn = connect(&server.url("postgres")).await;
            drop_leftovers(&mut conn).await;
            execute(&mut conn, format!("CREATE DATABASE {TEMPLATE}")).await;
            prepare(&server.url(TEMPLATE)).await
        })
        .await;
    let name = format!("{DATABASE}{}", next_number());
    let mut conn = connect(&server.url("postgres")).await;
    execute(&mut conn, format!("CREATE DATABASE {name} TEMPLATE {TEMPLATE}")).await;
    (server.url(&name), &prepared.admin_key)
}

/// Creates a migrated database on a private server. Returns its URL and the operator's key in it.
pub async fn fresh_database_on(server: &PrivatePostgres) -> (String, String) {
    block_in_place(|| server.create_database("test")).unwrap_or_else(|error| panic!("{error}"));
    let url = server.url("test");
    let prepared = prepare(&url).await;
    (url, prepared.admin_key)
}

/// Creates an empty database without the schema on the shared server. Returns its URL.
pub async fn empty_database() -> String {
    let server = shared_postgres();
    let name = format!("{DATABASE}{}", next_number());
    execute(&mut connect(&server.url("postgres")).await, format!("CREATE DATABASE {name}")).await;
    server.url(&name)
}

/// Drops a database of the shared server. Ignores databases of other servers.
pub async fn drop_database(url: &str) {
    let name = url.rsplit('/').next().unwrap_or_default();
    if name.starts_with(DATABASE) {
        let mut conn = connect(&shared_postgres().url("postgres")).await;
        execute(&mut conn, format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await;
    }
}

/// Drops the databases that earlier runs left.
async fn drop_leftovers(conn: &mut PgConnection) {
    let old: Vec<String> =
        sqlx::query_scalar("SELECT datname FROM pg_database WHERE datname ~ '^(test_[0-9]+|template_driver_tracker)$'")
            .fetch_all(&mut *conn)
            .await
            .expect("the databases are listed");
    for name in old {
        execute(conn, format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await;
    }
}
