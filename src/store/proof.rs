//! The proof that PostgreSQL takes writes: a row lock, committed synchronously.
//!
//! A lock of a row writes to the log and waits for a synchronous standby as any change does, and a standby or a read-only
//! database refuses it. It makes no new version of the row, so that no table grows by it. (A transaction id alone, as
//! `pg_current_xact_id()` assigns one, proves less: its commit waits for no standby.) `FOR KEY SHARE` locks of several nodes
//! do not wait for each other.
//!
//! A proof whose commit hangs keeps its server process busy. There is one at most: the next proof waits for it, and after a
//! while ends it on the server, which no other change could bear; a proof changes nothing.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sqlx::PgConnection;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::StoreError;
use super::statement::{query, query_as};

/// How long a proof may take before the verdict is that PostgreSQL takes no writes.
pub(super) const PROOF_TIMEOUT: Duration = Duration::from_millis(1200);
/// How long an outcome is reused for later calls.
const VERDICT_HOLDS: Duration = Duration::from_millis(200);
/// How long a proof whose commit hangs is left alone.
const HUNG_TIMEOUT: Duration = Duration::from_secs(5);

statements! {
    PROVE = "SELECT pg_backend_pid(), (extract(epoch FROM transaction_timestamp()) * 1000000)::bigint
        FROM database_identity FOR KEY SHARE";
    END_HUNG = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE pid = $1 AND (extract(epoch FROM xact_start) * 1000000)::bigint = $2";
}

/// A transaction as the server knows it: the process, and when it began in microseconds. Both together are never reused.
pub(super) type Backend = (i32, i64);

/// Where a running proof notes its transaction.
pub(super) type Note = Arc<Mutex<Option<Backend>>>;

/// The last verdict, and the proof that hangs, if one does.
#[derive(Default)]
pub(super) struct ProofState {
    verdict: Option<(Instant, Result<(), String>)>,
    hung: Option<Running>,
}

/// A proof that runs.
pub(super) struct Running {
    pub(super) task: JoinHandle<Result<(), StoreError>>,
    pub(super) note: Note,
    /// When dropped, the task discards its connection.
    pub(super) stop: tokio::sync::oneshot::Sender<()>,
    pub(super) began: Instant,
}

impl ProofState {
    /// A verdict that was reached just now, while the caller waited for its turn.
    pub(super) fn recent(&self) -> Option<Result<(), StoreError>> {
        let (at, verdict) = self.verdict.as_ref()?;
        (at.elapsed() < VERDICT_HOLDS).then(|| verdict.clone().map_err(StoreError::Unavailable))
    }

    /// Notes a verdict.
    pub(super) fn note(&mut self, verdict: &Result<(), StoreError>) {
        self.verdict = Some((Instant::now(), verdict.as_ref().map(drop).map_err(|error| error.reason())));
    }

    /// An earlier proof that hangs for so long that it must be ended; an error while one hangs for less.
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

    /// Waits for a proof; one that is late hangs from now on.
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
    /// The transaction on the server, once it is known. The task lets go of its connection.
    pub(super) fn end(self) -> Option<Backend> {
        drop(self.stop);
        *self.note.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes, and notes by which transaction.
pub(super) async fn write(conn: &mut PgConnection, note: &Note) -> Result<(), StoreError> {
    let backend: Option<Backend> = query_as(PROVE).fetch_optional(conn).await?;
    let missing = || StoreError::corrupt("the table database_identity is empty");
    *note.lock().unwrap_or_else(PoisonError::into_inner) = Some(backend.ok_or_else(missing)?);
    Ok(())
}

/// Ends the transaction of a proof on the server, unless it has ended.
pub(super) async fn end_hung(conn: &mut PgConnection, (pid, began_us): Backend) -> Result<(), StoreError> {
    query(END_HUNG).bind(pid).bind(began_us).execute(conn).await?;
    Ok(())
}
