//! Migrations, embedded in the program, and whether a database fits it.

use std::time::Duration;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::{AssertSqlSafe, PgConnection};

use super::StoreError;
use super::statement::query_scalar;

/// Held by whoever migrates: any number that nobody else uses.
const MIGRATION_LOCK: i64 = 0x6472_6976_6572_7472;
const LOCK_PAUSE: Duration = Duration::from_millis(200);

static MIGRATOR: Migrator = sqlx::migrate!();

statements! {
    APPLIED = "SELECT max(version) FROM _sqlx_migrations WHERE success";
    MIN_PROGRAM = "SELECT min_program_schema FROM database_identity";
    TABLE_EXISTS = "SELECT to_regclass('public._sqlx_migrations') IS NOT NULL";
    TRY_LOCK = "SELECT pg_try_advisory_lock($1)";
    // What an interrupted CREATE INDEX CONCURRENTLY or REINDEX leaves: written to, and never used.
    INVALID_INDEXES = "SELECT quote_ident(c.relname) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
        WHERE NOT i.indisvalid AND c.relkind = 'i' AND c.relnamespace = current_schema()::regnamespace ORDER BY 1";
    IDENTITY = "SELECT i.id::text || '.' || s.system_identifier::text || '.' || c.timeline_id::text || '.' || d.oid::text
        FROM database_identity i, pg_control_system() s, pg_control_checkpoint() c, pg_database d
        WHERE d.datname = current_database()";
}

/// Why a database could not be migrated.
#[derive(Debug, thiserror::Error)]
#[error("the database could not be migrated: {0}")]
pub struct MigrationError(#[from] MigrateError);

/// Whether the program and the database's schema fit each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SchemaState {
    /// They fit.
    Fits,
    /// Migrations are missing.
    Behind,
    /// The schema is newer, and needs a newer program than this one.
    TooNew,
}

/// The newest migration that this program knows.
pub fn newest_known() -> i64 {
    MIGRATOR.iter().map(|m| m.version).max().unwrap_or(0)
}

/// Compares the database's schema with this program.
pub async fn state(conn: &mut PgConnection) -> Result<SchemaState, StoreError> {
    let exists: bool = query_scalar(TABLE_EXISTS).fetch_one(&mut *conn).await?;
    if !exists {
        return Ok(SchemaState::Behind);
    }
    let applied: Option<i64> = query_scalar(APPLIED).fetch_one(&mut *conn).await?;
    if applied.unwrap_or(0) < newest_known() {
        return Ok(SchemaState::Behind);
    }
    let min_program: i64 = query_scalar(MIN_PROGRAM).fetch_one(&mut *conn).await?;
    Ok(if min_program > newest_known() { SchemaState::TooNew } else { SchemaState::Fits })
}

/// Applies what is missing, one process at a time, on a connection of its own that is not behind a pooler, and makes indexes
/// anew that an interrupted run has left unusable.
pub async fn migrate(url: &str) -> Result<(), MigrationError> {
    use sqlx::Connection;
    let mut conn = PgConnection::connect(url).await.map_err(MigrateError::Execute)?;
    // Asked for again and again: one that waits in PostgreSQL holds a snapshot, for which an index that is built waits in turn.
    while !query_scalar::<bool>(TRY_LOCK)
        .bind(MIGRATION_LOCK)
        .fetch_one(&mut conn)
        .await
        .map_err(MigrateError::Execute)?
    {
        tokio::time::sleep(LOCK_PAUSE).await;
    }
    let mut migrator = Migrator { migrations: MIGRATOR.migrations.clone(), ..Migrator::DEFAULT };
    // A database that a newer version has already grown is fine for this one.
    migrator.set_ignore_missing(true);
    migrator.set_locking(false);
    migrator.run(&mut conn).await?;
    mend_indexes(&mut conn).await.map_err(MigrateError::Execute)?;
    Ok(conn.close().await.map_err(MigrateError::Execute)?)
}

async fn mend_indexes(conn: &mut PgConnection) -> Result<(), sqlx::Error> {
    let names: Vec<String> = query_scalar(INVALID_INDEXES).fetch_all(&mut *conn).await?;
    for name in names {
        tracing::warn!(index = %name, "an index that was not finished is made anew");
        let is_leftover = name.contains("_ccnew") || name.contains("_ccold");
        let verb = if is_leftover { "DROP" } else { "REINDEX" };
        sqlx::raw_sql(AssertSqlSafe(format!("{verb} INDEX CONCURRENTLY {name}"))).execute(&mut *conn).await?;
    }
    Ok(())
}

/// What tells this database, at this point of its life, from every other: it changes at a restore or a promotion.
pub async fn identity(conn: &mut PgConnection) -> Result<String, StoreError> {
    Ok(query_scalar(IDENTITY).fetch_one(conn).await?)
}
