//! Commits that do not end: a synchronous standby that died lets every commit on its primary wait, for as long as it takes.
//!
//! The caller is answered in time in any case. What is bounded here is what waits behind it:
//!
//! - A connection whose commit waits stays with its commit. Cut off, the server would keep a process for it that waits just
//!   the same, outside of our count, until the server has no room for anybody. Cancelled on the server, the change would
//!   become visible though no standby has it, and the next 2xx for it could be a lie.
//! - At most three quarters of the pool commit changes at once. When commits hang, further changes are rolled back at once,
//!   so that reads, which wait for no standby, always find a connection.
//! - A commit that still waits when a later one succeeded waits for a server that is gone. Its connection is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use sqlx::{PgConnection, Postgres, Transaction};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{sleep, timeout};

use super::StoreError;
use super::statement::query_scalar;

/// A commit that takes longer than this hangs.
const HANGS_AFTER: Duration = Duration::from_secs(1);
/// How long a change waits for others to commit before it is rolled back, unless those hang.
const TURN_TIMEOUT: Duration = Duration::from_secs(1);
/// How much longer than a later commit an earlier one may take: its answer may be on its way.
const LATER_GRACE: Duration = Duration::from_secs(1);

statements! {
    HAS_CHANGED = "SELECT pg_current_xact_id_if_assigned() IS NOT NULL";
}

/// What became of a commit.
pub(super) enum Committed {
    /// It is answered.
    Answered(Result<(), StoreError>),
    /// It was given up without an answer; its connection is of no more use.
    Lost,
}

/// The commits of one pool.
pub(super) struct Commits {
    turns: Arc<Semaphore>,
    hanging: AtomicUsize,
    /// When the newest proof that succeeded began.
    proved: watch::Sender<Option<Instant>>,
}

impl Commits {
    /// For a pool of `max_connections`.
    pub(super) fn new(max_connections: u32) -> Self {
        let turns = (max_connections as usize * 3 / 4).max(1);
        Self { turns: Arc::new(Semaphore::new(turns)), hanging: AtomicUsize::new(0), proved: watch::Sender::new(None) }
    }

    /// Waits for room to commit. None is needed for what changed nothing; an error says that it was rolled back.
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

    /// Commits, however long it takes; the caller may have stopped waiting.
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

    /// Notes that a commit that began at `began` succeeded.
    pub(super) fn note_success(&self, began: Instant) {
        self.proved.send_modify(|proved| *proved = (*proved).max(Some(began)));
    }

    /// Waits until a commit that began after `began` succeeded, and a little longer.
    async fn is_passed(&self, began: Instant) {
        let mut proved = self.proved.subscribe();
        if proved.wait_for(|at| at.is_some_and(|at| at > began)).await.is_err() {
            std::future::pending::<()>().await;
        }
        sleep(LATER_GRACE).await;
    }
}

/// Counts one commit that hangs.
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
