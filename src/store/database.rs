//! The pool, and the one way to use it: work runs in a task of its own that nobody can cut short.
//!
//! A `pool.begin()` that is cancelled poisons the pooled connection (transact-rs/sqlx#4393), so a caller that gives up
//! only stops waiting; the work itself ends by commit, rollback, or by throwing its connection away.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{Connection, PgConnection};
use tokio::runtime::Handle;

use super::{StoreError, statement};

/// Database work on a borrowed connection.
pub type Work<'c, T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send + 'c>>;

/// How long a free connection is waited for.
const ACQUIRE_TIMEOUT: Duration = Duration::from_millis(2500);
/// What is said of work that did not end in time.
const LATE: &str = "no answer in time";
/// How long one piece of work may take before its connection is thrown away.
const WORK_TIMEOUT: Duration = Duration::from_millis(4500);
/// How long a caller waits for the answer: within the five seconds after which a 503 is promised.
const CALLER_TIMEOUT: Duration = Duration::from_millis(4800);

/// Session settings live only as long as the transaction, so that a transaction pooler may stand between.
const BEGIN: &str = "BEGIN; SET LOCAL statement_timeout = '4s'; SET LOCAL idle_in_transaction_session_timeout = '6s'";
/// For positions and leases alone: what a crash of PostgreSQL takes of the last moments is mended by the next heartbeat.
const BEGIN_RELAXED: &str = "BEGIN; SET LOCAL statement_timeout = '4s'; SET LOCAL synchronous_commit = off; \
                             SET LOCAL idle_in_transaction_session_timeout = '6s'";

/// A handle on PostgreSQL; cheap to clone.
#[derive(Clone)]
pub struct Database {
    pool: PgPool,
    runtime: Handle,
    health: Arc<Health>,
}

/// When PostgreSQL last failed us, so that nobody judges drivers by an outage of ours.
struct Health {
    started: Instant,
    /// Milliseconds after `started` from which on every call succeeded.
    healthy_since_ms: AtomicU64,
    /// Whether the last call failed.
    out: AtomicBool,
}

impl Database {
    /// A pool on `url` that connects when first used. Its connections live on `runtime`, which must outlive every caller.
    /// With `keep_statements` they are prepared once a connection, which a transaction-pooling proxy may not bear.
    pub fn new(url: &str, max_connections: u32, keep_statements: bool, runtime: Handle) -> Result<Self, StoreError> {
        statement::keep_statements(keep_statements);
        // No start-up parameter but those that every pooler knows.
        let options = url.parse::<PgConnectOptions>()?.application_name("driver-tracker").extra_float_digits(None);
        let _guard = runtime.enter();
        let pool = PgPoolOptions::new()
            .max_connections(max_connections)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .connect_lazy_with(options);
        let health = Arc::new(Health {
            started: Instant::now(),
            healthy_since_ms: AtomicU64::new(0),
            out: AtomicBool::new(false),
        });
        Ok(Self { pool, runtime, health })
    }

    /// Runs `work` in a transaction and commits it; an error rolls it back.
    pub async fn transact<T, E, F>(&self, work: F) -> Result<T, E>
    where
        F: for<'c> FnOnce(&'c mut PgConnection) -> Work<'c, T, E> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        self.spawn(BEGIN, work).await
    }

    /// As [`Self::transact`], with an asynchronous commit: for positions, tracks and leases alone.
    pub async fn transact_relaxed<T, E, F>(&self, work: F) -> Result<T, E>
    where
        F: for<'c> FnOnce(&'c mut PgConnection) -> Work<'c, T, E> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        self.spawn(BEGIN_RELAXED, work).await
    }

    async fn spawn<T, E, F>(&self, begin: &'static str, work: F) -> Result<T, E>
    where
        F: for<'c> FnOnce(&'c mut PgConnection) -> Work<'c, T, E> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let this = self.clone();
        let task = self.runtime.spawn(async move { this.run(begin, work).await });
        match tokio::time::timeout(CALLER_TIMEOUT, task).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(join)) => Err(StoreError::Corrupt(format!("database work ended early: {join}")).into()),
            Err(_) => {
                self.note_failure(LATE);
                Err(StoreError::Unavailable(LATE.to_owned()).into())
            }
        }
    }

    async fn run<T, E, F>(self, begin: &'static str, work: F) -> Result<T, E>
    where
        F: for<'c> FnOnce(&'c mut PgConnection) -> Work<'c, T, E> + Send,
        E: From<StoreError>,
    {
        let mut connection = self.pool.acquire().await.map_err(|error| self.failed(error))?;
        let outcome = tokio::time::timeout(WORK_TIMEOUT, async {
            let mut transaction = connection.begin_with(begin).await.map_err(|error| self.failed(error))?;
            match work(&mut transaction).await {
                Ok(value) => {
                    transaction.commit().await.map_err(|error| self.failed(error))?;
                    self.note_success();
                    Ok(value)
                }
                Err(error) => {
                    // A rollback that fails leaves a connection that the pool finds broken before it is used again.
                    let _ = transaction.rollback().await;
                    Err(error)
                }
            }
        })
        .await;
        outcome.unwrap_or_else(|_| {
            drop(connection.detach());
            self.note_failure(LATE);
            Err(StoreError::Unavailable(LATE.to_owned()).into())
        })
    }

    fn failed(&self, error: sqlx::Error) -> StoreError {
        let error = StoreError::from(error);
        if error.is_unavailable() {
            self.note_failure(&error.to_string());
        }
        error
    }

    fn note_success(&self) {
        if self.health.out.load(Ordering::Relaxed) && self.health.out.swap(false, Ordering::Relaxed) {
            tracing::info!("PostgreSQL answers again");
        }
    }

    fn note_failure(&self, why: &str) {
        if !self.health.out.swap(true, Ordering::Relaxed) {
            tracing::error!(why, "PostgreSQL does not answer as it should");
        }
        let now_ms = self.health.started.elapsed().as_millis() as u64;
        self.health.healthy_since_ms.fetch_max(now_ms.max(1), Ordering::Relaxed);
    }

    /// How long PostgreSQL has answered every call of this process.
    pub fn healthy_for(&self) -> Duration {
        let since = Duration::from_millis(self.health.healthy_since_ms.load(Ordering::Relaxed));
        self.health.started.elapsed().saturating_sub(since)
    }

    /// Closes the pool once every connection is back, within `limit`.
    pub async fn close(&self, limit: Duration) {
        let _ = tokio::time::timeout(limit, self.pool.close()).await;
    }
}
