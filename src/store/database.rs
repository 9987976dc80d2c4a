//! The one way to use PostgreSQL: work runs in a task of its own that no caller can cancel.
//!
//! A `pool.begin()` that is cancelled poisons the pooled connection (transact-rs/sqlx#4393), so a caller that gives up
//! only stops waiting; the work itself ends by commit, rollback, or by throwing its connection away.

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

/// What is said of work that did not end in time.
const LATE: &str = "no answer in time";
/// How long work may take up to its commit before its connection is thrown away.
const WORK_TIMEOUT: Duration = Duration::from_millis(4500);
/// How long a caller waits for the answer: within the five seconds after which a 503 is promised.
const CALLER_TIMEOUT: Duration = Duration::from_millis(4800);
/// How often it is proved that PostgreSQL takes writes.
const PROVE_EVERY: Duration = Duration::from_secs(2);
/// How often while it does not, and how soon after a failure.
const PROVE_AGAIN: Duration = Duration::from_millis(500);

/// Session settings live only as long as the transaction, so that a transaction pooler may stand between.
const BEGIN: &str = "BEGIN; SET LOCAL statement_timeout = '4s'; SET LOCAL idle_in_transaction_session_timeout = '6s'";
/// For positions and leases alone: the next heartbeat or renewal replaces what a crash of PostgreSQL loses.
const BEGIN_RELAXED: &str = "BEGIN; SET LOCAL statement_timeout = '4s'; SET LOCAL synchronous_commit = off; \
                             SET LOCAL idle_in_transaction_session_timeout = '6s'";

/// How a transaction commits.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Durability {
    /// The commit waits for disk and synchronous standbys.
    Full,
    /// It waits for nothing.
    Relaxed,
}

/// A handle on PostgreSQL; cheap to clone.
#[derive(Clone)]
pub struct Database {
    shared: Arc<Shared>,
    runtime: Handle,
}

struct Shared {
    connections: Connections,
    commits: Commits,
    health: Health,
    /// Held while a proof runs, so that there is one at a time.
    proof: Mutex<ProofState>,
}

/// When PostgreSQL last failed, so that drivers are not marked offline because of our outage.
struct Health {
    started: Instant,
    /// Milliseconds after `started` from which on every call succeeded.
    healthy_since_ms: AtomicU64,
    /// Wakes the task that proves writes.
    failed: Notify,
}

/// What became of work on a connection.
enum Outcome<T, E> {
    Ended(Result<T, E>),
    /// Nothing is known of it, and nothing more will be.
    Lost,
}

impl Database {
    /// A pool on `url` that connects when first used. Its connections live on `runtime`, which must outlive every caller.
    /// `url` may name several servers. With `keep_statements` statements are prepared once a connection, which a
    /// transaction-pooling proxy may not allow.
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

    /// Runs `work` in a transaction and commits it; an error rolls it back.
    pub async fn transact<T, E, F>(&self, work: F) -> Result<T, E>
    where
        F: for<'c> FnOnce(&'c mut PgConnection) -> Work<'c, T, E> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        self.spawn(Durability::Full, work).await
    }

    /// As [`Self::transact`], with an asynchronous commit: for positions, tracks and leases alone.
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

    /// Proves that PostgreSQL takes writes, by one that is committed. The answer comes within 1.4 s unless other proofs are
    /// asked for at once; those share one.
    pub async fn prove_writable(&self) -> Result<(), StoreError> {
        let shared = self.shared.clone();
        // In a task of its own: a caller that gives up must not cut it short.
        let proving = self.runtime.spawn(async move { shared.prove().await });
        proving.await.unwrap_or_else(|join| Err(join.into()))
    }

    /// Proves at intervals that PostgreSQL takes writes, until the pool is closed: for the metric, and for one line of the log
    /// for each change.
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

    /// How long PostgreSQL has answered every call of this process.
    pub fn healthy_for(&self) -> Duration {
        let health = &self.shared.health;
        let since = Duration::from_millis(health.healthy_since_ms.load(Ordering::Relaxed));
        health.started.elapsed().saturating_sub(since)
    }

    /// Closes the pool once every connection is back, within `limit`.
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
                // What does not wait for a standby needs no turn.
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
                    // A rollback that fails leaves a connection that is found broken before it is used again.
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

    /// Starts a proof; before it, one that hangs is ended.
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
