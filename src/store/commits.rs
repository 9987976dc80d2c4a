//! Limits what hanging commits can block. If a synchronous standby dies, every commit on its primary waits without a limit.
//!
//! The caller gets an answer in time in any case. This module limits the connections that wait:
//!
//! - A connection whose commit waits stays open. If it were closed, the server process would still wait. The service would not
//!   count that process, and the server would run out of connections. If the commit were cancelled on the server, the change
//!   would become visible although no standby has it. The next 2xx for the change could then be wrong.
//! - At most three quarters of the pool commit changes at the same time. While commits hang, further changes are rolled back at
//!   once. Reads wait for no standby, so they always find a connection.
//! - A commit that still waits after a later commit succeeded waits for a server that is gone. Its connection is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use sqlx::{PgConnection, Postgres, Transaction};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{sleep, timeout};

use super::StoreError;
use super::statement::query_scalar;

/// A commit that takes longer than this counts as hanging.
const HANGS_AFTER: Duration = Duration::from_secs(1);
/// How long a change waits for a permit before it is rolled back. While commits hang, it does not wait.
const TURN_TIMEOUT: Duration = Duration::from_secs(1);
/// How long an earlier commit may continue after a later one succeeded. Its answer may still arrive.
const LATER_GRACE: Duration = Duration::from_secs(1);

statements! {
    HAS_CHANGED = "SELECT pg_current_xact_id_if_assigned() IS NOT NULL";
}

/// The outcome of a commit.
pub(super) enum Committed {
    /// The server answered.
    Answered(Result<(), StoreError>),
    /// The wait ended without an answer. The connection must be discarded.
    Lost,
}

/// The commits of one pool.
pub(super) struct Commits {
    turns: Arc<Semaphore>,
    hanging: AtomicUsize,
    /// The start time of the newest proof that succeeded.
    proved: watch::Sender<Option<Instant>>,
}

impl Commits {
    /// Creates the limits for a pool of `max_connections`.
    pub(super) fn new(max_connections: u32) -> Self {
        let turns = (max_connections as usize * 3 / 4).max(1);
        Self { turns: Arc::new(Semaphore::new(turns)), hanging: AtomicUsize::new(0), proved: watch::Sender::new(None) }
    }

    /// Waits for a permit to commit. Returns `None` for a transaction that changed nothing, which needs no permit.
    ///
    /// After an error the caller must roll the transaction back.
    pub(super) async fn turn(&self, conn: &mut PgConnection) -> Result<Option<OwnedSemaphorePermit>, StoreError> {
        if let Ok(turn) = self.turns.clone().try_acquire_owned() {
            return Ok(Some(turn));
        }
        let has_changed: bool = query_scalar(HAS_CHANGED).fetch_one(conn).await?;
        if !has_changed {
            return Ok(None);
        }
        let patience = if self.hanging.load(Ordering::Relaxed) > 0 { Duration::ZERO } else { TURN_TIMEOUT };
        match timeout(patience, self.turns.clone().acquire_owned()).await {
            Ok(Ok(turn)) => Ok(Some(turn)),
            _ => {
                Err(StoreError::Unavailable("commits do not end, perhaps for want of a synchronous standby".to_owned()))
            }
        }
    }

    /// Commits a transaction and waits without a limit. The caller may have stopped waiting.
    pub(super) async fn commit(&self, transaction: Transaction<'_, Postgres>) -> Committed {
        let began = Instant::now();
        let mut committing = std::pin::pin!(transaction.commit());
        if let Ok(done) = timeout(HANGS_AFTER, &mut committing).await {
            return Committed::Answered(done.map_err(StoreError::from));
        }
        let _hanging = Hanging::new(&self.hanging);
        tokio::select! {
            done = &mut committing => Committed::Answered(done.map_err(StoreError::from)),
            () = self.is_passed(began) => Committed::Lost,
        }
    }

    /// Records that a commit that began at `began` succeeded.
    pub(super) fn note_success(&self, began: Instant) {
        self.proved.send_modify(|proved| *proved = (*proved).max(Some(began)));
    }

    /// Waits until a commit that began after `began` succeeded, plus [`LATER_GRACE`].
    async fn is_passed(&self, began: Instant) {
        let mut proved = self.proved.subscribe();
        if proved.wait_for(|at| at.is_some_and(|at| at > began)).await.is_err() {
            std::future::pending::<()>().await;
        }
        sleep(LATER_GRACE).await;
    }
}

/// Counts one hanging commit while it exists.
struct Hanging<'a>(&'a AtomicUsize);

impl<'a> Hanging<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Hanging<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
