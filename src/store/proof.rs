//! Proves that PostgreSQL takes writes. A proof is a row lock that is committed synchronously.
//!
//! - A row lock writes to the write-ahead log and waits for a synchronous standby, as any change does. A standby or a read-only
//!   database refuses it.
//! - A row lock creates no new version of the row, so no table grows.
//! - A transaction id alone, as `pg_current_xact_id()` assigns it, proves less: its commit waits for no standby.
//! - The `FOR KEY SHARE` locks of several nodes do not wait for each other.
//! - At most one proof hangs. A proof whose commit hangs keeps its server process busy, so the next proof waits for it. After
//!   [`HUNG_TIMEOUT`] the next proof ends it on the server. This is safe only because a proof changes nothing. No other commit
//!   may be ended like this.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sqlx::PgConnection;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::StoreError;
use super::statement::{query, query_as};

/// How long a proof may take. After this time PostgreSQL counts as taking no writes.
pub(super) const PROOF_TIMEOUT: Duration = Duration::from_millis(1200);
/// How long a result is reused for later callers.
const VERDICT_HOLDS: Duration = Duration::from_millis(200);
/// How long a proof may hang before the next proof ends it on the server.
const HUNG_TIMEOUT: Duration = Duration::from_secs(5);

statements! {
    PROVE = "SELECT pg_backend_pid(), (extract(epoch FROM transaction_timestamp()) * 1000000)::bigint
        FROM database_identity FOR KEY SHARE";
    END_HUNG = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE pid = $1 AND (extract(epoch FROM xact_start) * 1000000)::bigint = $2";
}

/// A transaction on the server: the process id, and the start time in microseconds. The pair is never reused.
pub(super) type Backend = (i32, i64);

/// The place where a running proof stores its transaction.
pub(super) type Note = Arc<Mutex<Option<Backend>>>;

/// The last result, and the hanging proof, if there is one.
#[derive(Default)]
pub(super) struct ProofState {
    verdict: Option<(Instant, Result<(), String>)>,
    hung: Option<Running>,
}

/// A running proof.
pub(super) struct Running {
    pub(super) task: JoinHandle<Result<(), StoreError>>,
    pub(super) note: Note,
    /// When this is dropped, the task discards its connection.
    pub(super) stop: tokio::sync::oneshot::Sender<()>,
    pub(super) began: Instant,
}

impl ProofState {
    /// Returns a result that is younger than [`VERDICT_HOLDS`]. Another caller may have got it while this one waited for the
    /// lock.
    pub(super) fn recent(&self) -> Option<Result<(), StoreError>> {
        let (at, verdict) = self.verdict.as_ref()?;
        (at.elapsed() < VERDICT_HOLDS).then(|| verdict.clone().map_err(StoreError::Unavailable))
    }

    /// Records a result.
    pub(super) fn note(&mut self, verdict: &Result<(), StoreError>) {
        self.verdict = Some((Instant::now(), verdict.as_ref().map(drop).map_err(|error| error.reason())));
    }

    /// Returns an earlier proof that has hung for [`HUNG_TIMEOUT`] and must be ended. Returns an error while a proof hangs for
    /// a shorter time.
    pub(super) fn take_hung(&mut self) -> Result<Option<Running>, StoreError> {
        match self.hung.take() {
            Some(hung) if hung.task.is_finished() => Ok(None),
            Some(hung) if hung.began.elapsed() < HUNG_TIMEOUT => {
                self.hung = Some(hung);
                Err(hangs())
            }
            hung => Ok(hung),
        }
    }

    /// Waits for a proof. A proof that exceeds [`PROOF_TIMEOUT`] counts as hanging.
    pub(super) async fn wait_for(&mut self, mut running: Running) -> Result<(), StoreError> {
        match timeout(PROOF_TIMEOUT, &mut running.task).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(join)) => Err(join.into()),
            Err(_) => {
                self.hung = Some(running);
                Err(hangs())
            }
        }
    }
}

fn hangs() -> StoreError {
    StoreError::Unavailable("a write does not end".to_owned())
}

impl Running {
    /// Makes the task discard its connection. Returns the transaction on the server, if it is known.
    pub(super) fn end(self) -> Option<Backend> {
        drop(self.stop);
        *self.note.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Locks the row, and stores the transaction in `note`.
pub(super) async fn write(conn: &mut PgConnection, note: &Note) -> Result<(), StoreError> {
    let backend: Option<Backend> = query_as(PROVE).fetch_optional(conn).await?;
    let missing = || StoreError::corrupt("the table database_identity is empty");
    *note.lock().unwrap_or_else(PoisonError::into_inner) = Some(backend.ok_or_else(missing)?);
    Ok(())
}

/// Terminates the server process of a hanging proof, unless its transaction has ended.
pub(super) async fn end_hung(conn: &mut PgConnection, (pid, began_us): Backend) -> Result<(), StoreError> {
    query(END_HUNG).bind(pid).bind(began_us).execute(conn).await?;
    Ok(())
}
