//! How every statement is sent: prepared for one use, or kept by name on its connection.
//!
//! A named statement is state of a session, which a transaction-pooling proxy may not keep: by default none is made. Where
//! the service speaks to PostgreSQL itself, `DATABASE_PREPARED_STATEMENTS=true` saves a round trip a statement.

use std::sync::atomic::{AtomicBool, Ordering};

use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::{Query, QueryAs, QueryScalar};
use sqlx::{FromRow, Postgres};

/// One for the process, as the configuration is.
static KEPT: AtomicBool = AtomicBool::new(false);

/// Whether statements are kept by name from now on.
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
