//! What can go wrong with PostgreSQL, sorted by what the caller can do about it.

/// An error of the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Cannot be reached, is shutting down, or did not answer in time. Trying again later may succeed; the work may have
    /// been done.
    #[error("PostgreSQL is not available: {0}")]
    Unavailable(String),
    /// A named constraint refused the change.
    #[error("the constraint {0} refused the change")]
    Constraint(String),
    /// A row holds what the program cannot read.
    #[error("a stored value cannot be read: {0}")]
    Corrupt(String),
    /// Anything else: a mistake of ours.
    #[error("a statement failed: {0}")]
    Statement(#[source] sqlx::Error),
}

/// SQLSTATE classes and codes that another moment may mend: connection trouble, shutdown, too many connections,
/// timeouts, deadlocks, read-only (a standby that is being promoted).
fn is_passing(code: &str) -> bool {
    code.starts_with("08")
        || code.starts_with("57")
        || code.starts_with("53")
        || matches!(code, "40001" | "40P01" | "55P03" | "25006" | "25P03" | "25P02")
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Database(db) => {
                if db.code().is_some_and(|code| is_passing(&code)) {
                    Self::Unavailable(db.message().to_owned())
                } else if let Some(constraint) = db.constraint() {
                    Self::Constraint(constraint.to_owned())
                } else {
                    Self::Statement(error)
                }
            }
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => Self::Unavailable(error.to_string()),
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => Self::Corrupt(error.to_string()),
            _ => Self::Statement(error),
        }
    }
}

impl StoreError {
    /// Whether the same request may succeed at another moment.
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }

    /// Wraps a value that a row should not hold.
    pub fn corrupt(error: impl std::fmt::Display) -> Self {
        Self::Corrupt(error.to_string())
    }
}
