//! Sends every statement either prepared for one use, or prepared once by name on its connection.
//!
//! - The default is one use. A named statement is state of a session, and a transaction-pooling proxy may lose it.
//! - With a direct connection to PostgreSQL, `DATABASE_PREPARED_STATEMENTS=true` saves one round trip for each statement.

use std::sync::atomic::{AtomicBool, Ordering};

use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::{Query, QueryAs, QueryScalar};
use sqlx::{FromRow, Postgres};

/// Whether statements are prepared by name. One value for the process, because the process has one configuration.
static KEPT: AtomicBool = AtomicBool::new(false);

/// Sets whether statements are prepared by name from now on.
pub(super) fn keep_statements(kept: bool) {
    KEPT.store(kept, Ordering::Relaxed);
}

fn kept() -> bool {
    KEPT.load(Ordering::Relaxed)
}

/// A statement that returns no rows.
pub(super) fn query(sql: &'static str) -> Query<'static, Postgres, PgArguments> {
    sqlx::query(sql).persistent(kept())
}

/// A statement whose rows become `O`.
pub(super) fn query_as<O>(sql: &'static str) -> QueryAs<'static, Postgres, O, PgArguments>
where
    O: for<'r> FromRow<'r, PgRow>,
{
    sqlx::query_as(sql).persistent(kept())
}

/// A statement of one column.
pub(super) fn query_scalar<O>(sql: &'static str) -> QueryScalar<'static, Postgres, O, PgArguments>
where
    (O,): for<'r> FromRow<'r, PgRow>,
{
    sqlx::query_scalar(sql).persistent(kept())
}
