//! Errors of PostgreSQL, grouped by what the caller can do about them.
//!
//! An error that ends its connection is noticed even if the work drops it: [`watching_connection`] reports it.

use std::cell::Cell;

use sqlx::error::DatabaseError;
use sqlx::postgres::{PgDatabaseError, PgSeverity};

/// An error of the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// PostgreSQL cannot be reached, is shutting down, or did not answer in time. A later attempt may succeed. The work may
    /// have been done.
    #[error("PostgreSQL is not available: {0}")]
    Unavailable(String),
    /// The operator must change something first: a password, a right, a database that does not exist. The text is a whole
    /// sentence that says what to change.
    #[error("{0}")]
    Refused(String),
    /// A named constraint refused the change.
    #[error("the constraint {0} refused the change")]
    Constraint(String),
    /// A row has a value that the program cannot read.
    #[error("a stored value cannot be read: {0}")]
    Corrupt(String),
    /// The task that did the work panicked, or was aborted.
    #[error("the task that worked with PostgreSQL ended early: {0}")]
    Ended(#[from] tokio::task::JoinError),
    /// Anything else: a mistake of ours.
    #[error("a statement failed: {0}")]
    Statement(#[source] sqlx::Error),
}

tokio::task_local! {
    /// Whether a statement of the running work failed with an error after which the connection must not be used again.
    static MUST_CLOSE: Cell<bool>;
}

/// Runs `work`. Also returns whether a statement in it failed with an error that ends the connection. This includes errors
/// that `work` dropped.
pub(super) async fn watching_connection<T>(work: impl Future<Output = T>) -> (T, bool) {
    let watched = async {
        let outcome = work.await;
        (outcome, MUST_CLOSE.with(Cell::get))
    };
    MUST_CLOSE.scope(Cell::new(false), watched).await
}

/// SQLSTATE classes and codes of failures that pass: connection trouble, shutdown, too many connections,
/// timeouts, deadlocks, read-only (a standby that is being promoted).
fn is_passing(code: &str) -> bool {
    code.starts_with("08")
        || code.starts_with("57")
        || code.starts_with("53")
        || matches!(code, "40001" | "40P01" | "55P03" | "25006" | "25P03" | "25P02")
}

/// Whether a SQLSTATE means that the server can no longer serve the connection: connection exceptions, shutdown, crash,
/// start-up, idle sessions that were ended, and a server that takes no writes.
fn code_ends_connection(code: &str) -> bool {
    code.starts_with("08") || matches!(code, "25006" | "25P03" | "57P01" | "57P02" | "57P03" | "57P04" | "57P05")
}

fn ends_connection(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(db) => db.code().is_some_and(|code| code_ends_connection(&code)),
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => true,
        _ => false,
    }
}

/// Whether the server ended the connection with this error: of a missing right it does so only while it opens one.
fn is_fatal(error: &dyn DatabaseError) -> bool {
    let error = error.try_downcast_ref::<PgDatabaseError>();
    error.is_some_and(|error| matches!(error.severity(), PgSeverity::Fatal | PgSeverity::Panic))
}

/// What the operator must do about an error that does not pass by itself; `None` for any other error.
pub(super) fn advice(code: &str, message: &str) -> Option<String> {
    Some(match code {
        "28P01" | "28000" => format!(
            "PostgreSQL refused the user or the password in DATABASE_URL ({message}): correct them, or allow the user in \
             pg_hba.conf"
        ),
        "3D000" => format!(
            "the database in DATABASE_URL does not exist ({message}): create it with CREATE DATABASE, or correct the name"
        ),
        "42501" => format!(
            "the user in DATABASE_URL lacks a right ({message}): let it own the tables, or run as their owner GRANT SELECT, \
             INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO that user, and GRANT USAGE ON ALL SEQUENCES IN SCHEMA \
             public TO that user"
        ),
        "3F000" => format!(
            "the user in DATABASE_URL has no schema to work in ({message}): run GRANT USAGE, CREATE ON SCHEMA public TO that \
             user, and see that its search_path leads to the schema"
        ),
        _ => return None,
    })
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        if ends_connection(&error) {
            // The task-local value exists only while work runs. Outside of work there is no connection to close.
            let _ = MUST_CLOSE.try_with(|must_close| must_close.set(true));
        }
        match &error {
            sqlx::Error::Database(db) => {
                let code = db.code().unwrap_or_default();
                if is_passing(&code) {
                    Self::Unavailable(db.message().to_owned())
                } else if code == "42501" && is_fatal(db.as_ref()) {
                    Self::Refused(format!(
                        "the user in DATABASE_URL lacks the right CONNECT on the database ({}): run GRANT CONNECT ON DATABASE \
                         the database TO the user, as the owner of the database or as a superuser",
                        db.message()
                    ))
                } else if let Some(sentence) = advice(&code, db.message()) {
                    Self::Refused(sentence)
                } else if let Some(constraint) = db.constraint() {
                    Self::Constraint(constraint.to_owned())
                } else {
                    Self::Statement(error)
                }
            }
            sqlx::Error::Configuration(reason) => Self::Refused(format!("DATABASE_URL cannot be used: {reason}")),
            sqlx::Error::PoolTimedOut => Self::Unavailable(
                "no connection in time: no server answers at the address in DATABASE_URL, or all \
                 DATABASE_MAX_CONNECTIONS are in use"
                    .to_owned(),
            ),
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => Self::Unavailable(error.to_string()),
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => Self::Corrupt(error.to_string()),
            _ => Self::Statement(error),
        }
    }
}

impl StoreError {
    /// Whether the same request may succeed later.
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }

    /// Wraps the error of a stored value that cannot be read.
    pub fn corrupt(error: impl std::fmt::Display) -> Self {
        Self::Corrupt(error.to_string())
    }

    /// The text of the error. The text of [`Self::Unavailable`] comes without its introduction.
    pub(super) fn reason(&self) -> String {
        match self {
            Self::Unavailable(reason) => reason.clone(),
            other => other.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_codes_of_a_failover_end_the_connection_and_ordinary_ones_do_not() {
        for code in ["25006", "57P01", "57P02", "57P03", "08000", "08006", "08P01"] {
            assert!(code_ends_connection(code) && is_passing(code), "{code}");
        }
        for code in ["57014", "40001", "40P01", "55P03", "23505", "42501", "53300", "53100"] {
            assert!(!code_ends_connection(code), "{code}");
        }
    }

    #[tokio::test]
    async fn an_error_that_ends_the_connection_is_noticed_though_the_work_drops_it() {
        let broken = || StoreError::from(sqlx::Error::Protocol("broken".to_owned()));
        let (kept, must_close) = watching_connection(async { Err::<(), _>(broken()).is_err() }).await;
        assert!(kept && must_close);
        let (_, must_close) = watching_connection(async { StoreError::from(sqlx::Error::RowNotFound) }).await;
        assert!(!must_close);
        assert!(broken().is_unavailable(), "outside of work");
    }
}
