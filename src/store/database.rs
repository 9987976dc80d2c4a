//! Runs database work in transactions. This is the only way to use PostgreSQL.
//!
//! - Work runs in its own task, and no caller can cancel it. A cancelled `pool.begin()` poisons the pooled connection
//!   (transact-rs/sqlx#4393).
//! - A caller that gives up only stops waiting. The work still ends: by commit, by rollback, or by discarding its connection.
//! - A caller gets an answer within 5 seconds.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sqlx::{Connection, PgConnection};
use tokio::runtime::Handle;
use tokio::sync::{Mutex, Notify, oneshot};

use super::commits::{Commits, Committed};
use super::connections::Connections;
use super::error::watching_connection;
use super::proof::{self, Note, ProofState, Running};
use super::servers::Servers;
use super::{StoreError, statement};

/// Database work on a borrowed connection.
pub type Work<'c, T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send + 'c>>;

/// The error text for work that did not end in time.
const LATE: &str = "no answer in time";
/// How long work may take before its commit. After this time its connection is discarded.
const WORK_TIMEOUT: Duration = Duration::from_millis(4500);
/// How long a caller waits for the answer. The service promises a 503 within five seconds, so this must be shorter.
const CALLER_TIMEOUT: Duration = Duration::from_millis(4800);
/// The interval of the proofs that PostgreSQL takes writes.
const PROVE_EVERY: Duration = Duration::from_secs(2);
/// The interval of the proofs while PostgreSQL takes no writes, and the shortest delay after a failure.
const PROVE_AGAIN: Duration = Duration::from_millis(500);

/// The settings end with the transaction (SET LOCAL), so that a transaction pooler may stand between.
const BEGIN: &str = "BEGIN; SET LOCAL statement_timeout = '4s'; SET LOCAL idle_in_transaction_session_timeout = '6s'";
/// Only for positions, tracks and leases. A crash of PostgreSQL may lose the last commits; the next heartbeat writes the
/// position again.
const BEGIN_RELAXED: &str = "BEGIN; SET LOCAL statement_timeout = '4s'; SET LOCAL synchronous_commit = off; \
                             SET LOCAL idle_in_transaction_session_timeout = '6s'";

/// How a transaction commits.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Durability {
    /// The commit waits for the disk and for synchronous standbys.
    Full,
    /// The commit waits for nothing.
    Relaxed,
}

/// A handle for PostgreSQL. It is cheap to clone.
#[derive(Clone)]
pub struct Database {
    shared: Arc<Shared>,
    runtime: Handle,
}

struct Shared {
    connections: Connections,
    commits: Commits,
    health: Health,
    /// Locked while a proof runs, so that one proof runs at a time.
    proof: Mutex<ProofState>,
}

/// When PostgreSQL last failed. Drivers must not count as silent because of an outage of PostgreSQL.
struct Health {
    started: Instant,
    /// Milliseconds after `started`. Every call since then succeeded.
    healthy_since_ms: AtomicU64,
    /// Wakes the task that proves writes.
    failed: Notify,
}

/// The outcome of work on a connection.
enum Outcome<T, E> {
    Ended(Result<T, E>),
    /// The outcome is unknown and stays unknown.
    Lost,
}

impl Database {
    /// Creates a pool for `url`. The pool connects when it is first used.
    ///
    /// - `url` may name several servers.
    /// - The connections run on `runtime`, which must outlive every caller.
    /// - With `keep_statements`, a statement is prepared once for each connection. A transaction-pooling proxy may not allow
    ///   this.
    pub fn new(url: &str, max_connections: u32, keep_statements: bool, runtime: Handle) -> Result<Self, StoreError> {
        statement::keep_statements(keep_statements);
        let servers = Servers::parse(url)?;
        let _guard = runtime.enter();
        let shared = Arc::new(Shared {
            connections: Connections::new(servers, max_connections),
            commits: Commits::new(max_connections),
            health: Health { started: Instant::now(), healthy_since_ms: AtomicU64::new(0), failed: Notify::new() },
            proof: Mutex::default(),
        });
        Ok(Self { shared, runtime })
    }

    /// Runs `work` in a transaction and commits it. An error of `work` rolls it back.
    pub async fn transact<T, E, F>(&self, work: F) -> Result<T, E>
    where
        F: for<'c> FnOnce(&'c mut PgConnection) -> Work<'c, T, E> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        self.spawn(Durability::Full, work).await
    }

    /// Like [`Self::transact`], with an asynchronous commit. Only for positions, tracks and leases.
    pub async fn transact_relaxed<T, E, F>(&self, work: F) -> Result<T, E>
    where
        F: for<'c> FnOnce(&'c mut PgConnection) -> Work<'c, T, E> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        self.spawn(Durability::Relaxed, work).await
    }

    async fn spawn<T, E, F>(&self, durability: Durability, work: F) -> Result<T, E>
    where
        F: for<'c> FnOnce(&'c mut PgConnection) -> Work<'c, T, E> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let shared = self.shared.clone();
        let task = self.runtime.spawn(async move { shared.run(durability, work).await });
        match tokio::time::timeout(CALLER_TIMEOUT, task).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(join)) => Err(StoreError::Ended(join).into()),
            Err(_) => Err(self.shared.late().into()),
        }
    }

    /// Proves that PostgreSQL takes writes: it commits one. The answer comes within 1.4 s, unless other proofs are requested at
    /// the same time. Concurrent requests share one proof.
    pub async fn prove_writable(&self) -> Result<(), StoreError> {
        let shared = self.shared.clone();
        // The proof runs in its own task, so that a caller that gives up does not cancel it.
        let proving = self.runtime.spawn(async move { shared.prove().await });
        proving.await.unwrap_or_else(|join| Err(join.into()))
    }

    /// Proves at intervals that PostgreSQL takes writes, until the pool is closed. Sets the metric, and logs one line for each
    /// change.
    pub fn watch(&self) {
        let shared = self.shared.clone();
        self.runtime.spawn(async move {
            let mut takes_writes = true;
            while !shared.connections.is_closed() {
                let proved = shared.clone().prove().await;
                metrics::gauge!("driver_tracker_database_up").set(if proved.is_ok() { 1.0 } else { 0.0 });
                match &proved {
                    Ok(()) if !takes_writes => tracing::info!("PostgreSQL takes writes again"),
                    Err(error) if takes_writes => tracing::error!(why = %error.reason(), "PostgreSQL takes no writes"),
                    _ => {}
                }
                takes_writes = proved.is_ok();
                tokio::time::sleep(PROVE_AGAIN).await;
                if takes_writes {
                    let _ = tokio::time::timeout(PROVE_EVERY - PROVE_AGAIN, shared.health.failed.notified()).await;
                }
            }
        });
    }

    /// For how long PostgreSQL has answered every call of this process.
    pub fn healthy_for(&self) -> Duration {
        let health = &self.shared.health;
        let since = Duration::from_millis(health.healthy_since_ms.load(Ordering::Relaxed));
        health.started.elapsed().saturating_sub(since)
    }

    /// Closes the pool when every connection was returned, or after `limit`.
    pub async fn close(&self, limit: Duration) {
        let _ = tokio::time::timeout(limit, self.shared.connections.close()).await;
    }
}

impl Shared {
    async fn run<T, E, F>(&self, durability: Durability, work: F) -> Result<T, E>
    where
        F: for<'c> FnOnce(&'c mut PgConnection) -> Work<'c, T, E> + Send,
        E: From<StoreError>,
    {
        let mut connection = self.connections.acquire().await.inspect_err(|error| self.note(error))?;
        let (outcome, must_close) = watching_connection(self.attempt(&mut connection, durability, work)).await;
        let is_lost = matches!(outcome, Outcome::Lost);
        if must_close || is_lost {
            self.connections.discard(connection);
        }
        if must_close {
            self.note_failure();
        }
        match outcome {
            Outcome::Ended(result) => result,
            Outcome::Lost => Err(self.late().into()),
        }
    }

    async fn attempt<T, E, F>(&self, conn: &mut PgConnection, durability: Durability, work: F) -> Outcome<T, E>
    where
        F: for<'c> FnOnce(&'c mut PgConnection) -> Work<'c, T, E> + Send,
        E: From<StoreError>,
    {
        let begin = if durability == Durability::Full { BEGIN } else { BEGIN_RELAXED };
        let working = async {
            let begun = conn.begin_with(begin).await;
            let mut transaction = begun.map_err(|error| self.failed(error.into()))?;
            let outcome = async {
                let value = work(&mut transaction).await?;
                // A commit that does not wait for a standby needs no permit.
                let turn = match durability {
                    Durability::Full => {
                        self.commits.turn(&mut transaction).await.map_err(|error| self.failed(error))?
                    }
                    Durability::Relaxed => None,
                };
                Ok((value, turn))
            };
            match outcome.await {
                Ok((value, turn)) => Ok((value, turn, transaction)),
                Err(error) => {
                    // If the rollback fails, the pool finds the connection broken before the next use.
                    let _ = transaction.rollback().await;
                    Err(error)
                }
            }
        };
        match tokio::time::timeout(WORK_TIMEOUT, working).await {
            Err(_) => Outcome::Lost,
            Ok(Err(error)) => Outcome::Ended(Err(error)),
            Ok(Ok((value, _turn, transaction))) => match self.commits.commit(transaction).await {
                Committed::Answered(done) => {
                    Outcome::Ended(done.map(|()| value).map_err(|error| self.failed(error).into()))
                }
                Committed::Lost => Outcome::Lost,
            },
        }
    }

    async fn prove(self: Arc<Self>) -> Result<(), StoreError> {
        let mut state = self.proof.lock().await;
        if let Some(verdict) = state.recent() {
            return verdict;
        }
        let verdict = match state.take_hung() {
            Ok(hung) => state.wait_for(self.clone().start_proof(hung)).await,
            Err(error) => Err(error),
        };
        if let Err(error) = &verdict {
            self.note(error);
        }
        state.note(&verdict);
        verdict
    }

    /// Starts a proof. It first ends the given hanging proof on the server.
    fn start_proof(self: Arc<Self>, hung: Option<Running>) -> Running {
        let (stop, stopped) = oneshot::channel();
        let (note, began) = (Note::default(), Instant::now());
        let (noted, hung) = (note.clone(), hung.and_then(Running::end));
        let task = tokio::spawn(async move {
            let mut connection = self.connections.acquire().await?;
            let writing = async {
                if let Some(backend) = hung {
                    proof::end_hung(&mut connection, backend).await?;
                }
                let mut transaction = connection.begin_with(BEGIN).await?;
                proof::write(&mut transaction, &noted).await?;
                Ok(transaction.commit().await?)
            };
            let (outcome, must_close) = watching_connection(async {
                tokio::select! {
                    outcome = writing => Some(outcome),
                    _ = stopped => None,
                }
            })
            .await;
            if must_close || outcome.is_none() {
                self.connections.discard(connection);
            }
            let outcome = outcome.unwrap_or_else(|| Err(StoreError::Unavailable(LATE.to_owned())));
            if outcome.is_ok() {
                self.commits.note_success(began);
            }
            outcome
        });
        Running { task, note, stop, began }
    }

    fn failed(&self, error: StoreError) -> StoreError {
        self.note(&error);
        error
    }

    fn late(&self) -> StoreError {
        self.note_failure();
        StoreError::Unavailable(LATE.to_owned())
    }

    fn note(&self, error: &StoreError) {
        if error.is_unavailable() {
            self.note_failure();
        }
    }

    fn note_failure(&self) {
        let now_ms = self.health.started.elapsed().as_millis() as u64;
        self.health.healthy_since_ms.fetch_max(now_ms.max(1), Ordering::Relaxed);
        self.health.failed.notify_one();
    }
}
