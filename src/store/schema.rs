//! Applies the embedded migrations, and checks that a database fits the program.
//!
//! - One process migrates at a time: an advisory lock of PostgreSQL ensures it.
//! - A newer schema is accepted, unless it requires a newer program.
//! - `migrate` needs a connection that is not behind a transaction-pooling proxy, because the lock belongs to a session.

use std::time::Duration;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::{AssertSqlSafe, PgConnection};

use super::StoreError;
use super::error::advice;
use super::servers::Servers;
use super::statement::{query_as, query_scalar};

/// Held during a migration: a number that is used for nothing else.
const MIGRATION_LOCK: i64 = 0x6472_6976_6572_7472;
const LOCK_PAUSE: Duration = Duration::from_millis(200);

static MIGRATOR: Migrator = sqlx::migrate!();

statements! {
    APPLIED = "SELECT max(version) FROM _sqlx_migrations WHERE success";
    MIN_PROGRAM = "SELECT min_program_schema FROM database_identity";
    TABLE_EXISTS = "SELECT to_regclass('_sqlx_migrations') IS NOT NULL";
    // The schema that new tables go into: the first of the search path in which the user may look at all.
    RIGHTS = "SELECT current_user::text, current_schema()::text,
        coalesce(has_schema_privilege(current_schema(), 'CREATE'), false)";
    // A table of the service that the user may not read. All tables of the service have the same owner.
    UNREADABLE = "SELECT current_user::text, quote_ident(n.nspname), c.relname::text FROM pg_class c
        JOIN pg_namespace n ON n.oid = c.relnamespace
        JOIN pg_class m ON m.relname = '_sqlx_migrations' AND m.relnamespace = n.oid AND m.relowner = c.relowner
        WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p') AND NOT c.relispartition
          AND NOT (has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')) ORDER BY 3 LIMIT 1";
    TRY_LOCK = "SELECT pg_try_advisory_lock($1)";
    // The invalid indexes that an interrupted CREATE INDEX CONCURRENTLY or REINDEX leaves. They are written to and never used.
    INVALID_INDEXES = "SELECT quote_ident(c.relname) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
        WHERE NOT i.indisvalid AND c.relkind = 'i' AND c.relnamespace = current_schema()::regnamespace ORDER BY 1";
    // The timeline comes from the WAL. The control file has the old timeline until the first checkpoint after a promotion,
    // which may be minutes later.
    IDENTITY = "SELECT i.id::text || '.' || s.system_identifier::text || '.' || CASE WHEN pg_is_in_recovery() THEN c.timeline_id
            ELSE ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int END::text || '.' || d.oid::text
        FROM database_identity i, pg_control_system() s, pg_control_checkpoint() c, pg_database d
        WHERE d.datname = current_database()";
}

/// Why a database could not be migrated.
#[derive(Debug, thiserror::Error)]
pub enum MigrationError {
    /// No server of the URL takes writes, or the server refused the user.
    #[error("the database could not be migrated: {0}")]
    Store(#[from] StoreError),
    /// A migration failed.
    #[error("the database could not be migrated: {}", in_words(.0))]
    Migrate(#[from] MigrateError),
    /// The user may not create tables.
    #[error(
        "the database could not be migrated: the user {user} lacks the right CREATE on the schema {schema}: run GRANT CREATE ON \
         SCHEMA {schema} TO {user} as the owner of the schema or as a superuser, or migrate as a user who has it"
    )]
    NoCreate {
        /// The user, as SQL writes it.
        user: String,
        /// The schema, as SQL writes it.
        schema: String,
    },
    /// The user has USAGE on no schema of the search path.
    #[error(
        "the database could not be migrated: the user {user} has no schema to make tables in: run GRANT USAGE, CREATE ON SCHEMA \
         public TO {user} as the owner of the schema or as a superuser, and see that the user's search_path names public"
    )]
    NoSchema {
        /// The user, as SQL writes it.
        user: String,
    },
}

/// A migration that fails because a right is missing is reported as that: it changes tables that another user owns.
fn in_words(error: &MigrateError) -> String {
    let (MigrateError::Execute(sqlx::Error::Database(db))
    | MigrateError::ExecuteMigration(sqlx::Error::Database(db), _)) = error
    else {
        return error.to_string();
    };
    let code = db.code().unwrap_or_default();
    if code == "42501" {
        return format!(
            "the user in DATABASE_URL lacks a right ({}): migrate as the owner of the tables",
            db.message()
        );
    }
    advice(&code, db.message()).unwrap_or_else(|| error.to_string())
}

/// Whether the schema of the database fits the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SchemaState {
    /// The schema fits the program.
    Fits,
    /// The database lacks migrations.
    Behind,
    /// The schema is newer and requires a newer program.
    TooNew,
}

/// The version of the newest migration of this program.
pub fn newest_known() -> i64 {
    MIGRATOR.iter().map(|m| m.version).max().unwrap_or(0)
}

/// Compares the database's schema with this program.
pub async fn state(conn: &mut PgConnection) -> Result<SchemaState, StoreError> {
    if let Some((user, schema, table)) =
        query_as::<(String, String, String)>(UNREADABLE).fetch_optional(&mut *conn).await?
    {
        return Err(unreadable(&user, &schema, &table));
    }
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

fn unreadable(user: &str, schema: &str, table: &str) -> StoreError {
    let user = quoted(user);
    StoreError::Refused(format!(
        "the user {user} in DATABASE_URL may not read the table {table} in the schema {schema}: use the user who owns the tables, \
         or run as their owner GRANT USAGE ON SCHEMA {schema} TO {user}; GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN \
         SCHEMA {schema} TO {user}; GRANT USAGE ON ALL SEQUENCES IN SCHEMA {schema} TO {user}"
    ))
}

/// An identifier as SQL writes it.
fn quoted(name: &str) -> String {
    let is_plain = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
        && !name.starts_with(|first: char| first.is_ascii_digit());
    if is_plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

/// Refuses a user who may not create tables. The message of PostgreSQL names neither the user nor the remedy; this error does.
async fn require_rights(conn: &mut PgConnection) -> Result<(), MigrationError> {
    let rights = query_as::<(String, Option<String>, bool)>(RIGHTS).fetch_one(conn).await.map_err(StoreError::from)?;
    match rights {
        (_, Some(_), true) => Ok(()),
        (user, Some(schema), false) => Err(MigrationError::NoCreate { user: quoted(&user), schema: quoted(&schema) }),
        (user, None, _) => Err(MigrationError::NoSchema { user: quoted(&user) }),
    }
}

/// Applies the missing migrations, one process at a time, and rebuilds the indexes that an interrupted run left unusable.
///
/// Uses its own connection, which must not be behind a pooler.
pub async fn migrate(url: &str) -> Result<(), MigrationError> {
    use sqlx::Connection;
    let (_, mut conn) = Servers::parse(url)?.connect_writable().await?;
    require_rights(&mut conn).await?;
    // The lock is polled. A statement that waits in PostgreSQL holds a snapshot, and a concurrent index build of the other
    // process waits for that snapshot.
    while !query_scalar::<bool>(TRY_LOCK)
        .bind(MIGRATION_LOCK)
        .fetch_one(&mut conn)
        .await
        .map_err(MigrateError::Execute)?
    {
        tokio::time::sleep(LOCK_PAUSE).await;
    }
    let mut migrator = Migrator { migrations: MIGRATOR.migrations.clone(), ..Migrator::DEFAULT };
    // A newer version of the program may have applied migrations that this one does not know.
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

/// Distinguishes this database, at this point of its history, from every other: it changes at a restore or a promotion.
pub async fn identity(conn: &mut PgConnection) -> Result<String, StoreError> {
    Ok(query_scalar(IDENTITY).fetch_one(conn).await?)
}
