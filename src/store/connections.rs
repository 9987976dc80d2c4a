//! The connection pool. It gives out only connections to a server that takes writes, also after a failover.
//!
//! - A new connection is used only after its server has confirmed that it takes writes.
//! - If the URL names several servers, the pool connects to the first one that takes writes. It chooses again when connections
//!   fail.
//! - A connection that failed with an error of a failover is closed. Every connection that was opened before that error leads
//!   to the same server, so it is closed before its next use.
//! - Connections live for about ten minutes. Each process has its own lifetime, and it replaces one connection at a time. So
//!   neither a node nor all nodes together replace all connections at once.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgPool, PgPoolOptions};
use sqlx::{Connection, PgConnection, Postgres};
use tokio::time::timeout;

use super::StoreError;
use super::servers::{Servers, read_only, takes_writes};

/// How long a caller waits for a free connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_millis(2500);
/// How long an idle connection may take to answer the ping before its use.
const PING_TIMEOUT: Duration = Duration::from_millis(800);
/// How long the server of a new connection may take to answer whether it takes writes.
const QUESTION_TIMEOUT: Duration = Duration::from_millis(1500);
/// How long an orderly close of a connection may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a refusal is reused: after no server took writes, no server is asked again during this time.
const REFUSAL_HOLDS: Duration = Duration::from_millis(200);
/// How many new connections one caller tries while other callers find a server that takes writes.
const MAX_TRIES: u32 = 3;
/// The range of the lifetime of connections, in milliseconds. Each process draws one lifetime from it.
const LIFETIME_MS: std::ops::Range<u64> = 480_000..720_000;
/// The shortest time between two replacements because of age.
const RETIRE_EVERY: Duration = Duration::from_secs(2);
/// A connection of this age is closed, even if it is idle.
const MAX_LIFETIME: Duration = Duration::from_secs(1200);

tokio::task_local! {
    /// Whether the connection that is being acquired is a new one.
    static IS_NEW: Cell<bool>;
}

/// The connection pool.
pub(super) struct Connections {
    pool: PgPool,
    servers: Servers,
    ages: Arc<Ages>,
    /// Whether the chosen server took writes when it was last asked, and no connection failed since.
    settled: AtomicBool,
    /// The index of the server that the pool connects to.
    chosen: AtomicUsize,
    /// Locked while a server is chosen, so that one task asks the servers for all.
    choosing: tokio::sync::Mutex<()>,
    answers: Mutex<Answers>,
}

/// The last answers of servers to the question whether they take writes.
#[derive(Default)]
struct Answers {
    /// When a server last refused, and its reason. `None` after a server confirmed.
    refusal: Option<(Instant, String)>,
    /// When a server last confirmed that it takes writes.
    taken: Option<Instant>,
}

impl Connections {
    /// Creates a pool that connects when it is first used. The caller must be inside a runtime.
    pub(super) fn new(servers: Servers, max_connections: u32) -> Self {
        let ages = Arc::new(Ages::new());
        let judge = ages.clone();
        let pool = PgPoolOptions::new()
            .max_connections(max_connections)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .max_lifetime(MAX_LIFETIME)
            // `is_usable` tests the connection, with its own timeout.
            .test_before_acquire(false)
            .before_acquire(move |conn, meta| {
                let ages = judge.clone();
                Box::pin(async move { Ok(is_usable(conn, meta.age, &ages).await) })
            })
            .after_connect(|_, _| {
                let _ = IS_NEW.try_with(|is_new| is_new.set(true));
                Box::pin(async { Ok(()) })
            })
            .connect_lazy_with(servers.options(0).clone());
        Self {
            pool,
            settled: AtomicBool::new(!servers.are_several()),
            servers,
            ages,
            chosen: AtomicUsize::new(0),
            choosing: tokio::sync::Mutex::new(()),
            answers: Mutex::default(),
        }
    }

    /// Returns a connection to a server that takes writes. The calling task must not be cancelled.
    pub(super) async fn acquire(&self) -> Result<PoolConnection<Postgres>, StoreError> {
        if !self.settled.load(Ordering::Acquire) {
            self.choose().await?;
        }
        let mut tries = 1..=MAX_TRIES;
        loop {
            let is_last = tries.next().is_none_or(|number| number == MAX_TRIES);
            if self.pool.num_idle() == 0 {
                self.refused_lately()?;
            }
            let began = Instant::now();
            let acquiring = async { (self.pool.acquire().await, IS_NEW.with(Cell::get)) };
            let (acquired, is_new) = IS_NEW.scope(Cell::new(false), acquiring).await;
            let mut connection = acquired.map_err(|error| {
                self.unsettle();
                StoreError::from(error)
            })?;
            if !is_new {
                return Ok(connection);
            }
            let answer = timeout(QUESTION_TIMEOUT, takes_writes(&mut connection)).await;
            let answer = answer.unwrap_or_else(|_| Err(StoreError::Unavailable("no answer in time".to_owned())));
            let refusal = match answer {
                Ok(true) => {
                    self.note_taken();
                    return Ok(connection);
                }
                Ok(false) => read_only(),
                Err(error) => error,
            };
            close(connection);
            // If another connection got a confirmation since this one began, that answer is newer than this refusal.
            if is_last || !self.was_taken_since(began) {
                self.unsettle();
                self.note_refusal(&refusal);
                return Err(refusal);
            }
        }
    }

    /// Closes a connection that failed with an error of a failover. Connections that were opened before now are not used again.
    pub(super) fn discard(&self, connection: PoolConnection<Postgres>) {
        self.ages.suspect_all();
        self.unsettle();
        close(connection);
    }

    /// Chooses the first server that takes writes for the pool. One task asks the servers; the others wait for its result.
    async fn choose(&self) -> Result<(), StoreError> {
        let _turn = self.choosing.lock().await;
        if self.settled.load(Ordering::Acquire) {
            return Ok(());
        }
        self.refused_lately()?;
        let (index, conn) = self.servers.connect_writable().await.inspect_err(|error| self.note_refusal(error))?;
        tokio::spawn(timeout(CLOSE_TIMEOUT, conn.close()));
        self.pool.set_connect_options(self.servers.options(index).clone());
        self.note_taken();
        if self.chosen.swap(index, Ordering::AcqRel) != index {
            self.ages.suspect_all();
            tracing::info!(
                server = self.servers.name(index),
                "another PostgreSQL server of DATABASE_URL takes the writes"
            );
        }
        self.settled.store(true, Ordering::Release);
        Ok(())
    }

    fn unsettle(&self) {
        // A single server needs no choice. Each new connection asks it.
        if self.servers.are_several() {
            self.settled.store(false, Ordering::Release);
        }
    }

    fn answers(&self) -> MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refused_lately(&self) -> Result<(), StoreError> {
        match &self.answers().refusal {
            Some((at, why)) if at.elapsed() < REFUSAL_HOLDS => Err(StoreError::Unavailable(why.clone())),
            _ => Ok(()),
        }
    }

    fn note_refusal(&self, error: &StoreError) {
        if error.is_unavailable() {
            self.answers().refusal = Some((Instant::now(), error.reason()));
        }
    }

    fn note_taken(&self) {
        *self.answers() = Answers { refusal: None, taken: Some(Instant::now()) };
    }

    fn was_taken_since(&self, began: Instant) -> bool {
        self.answers().taken.is_some_and(|taken| taken > began)
    }

    /// Whether [`Self::close`] was called.
    pub(super) fn is_closed(&self) -> bool {
        self.pool.is_closed()
    }

    /// Closes the pool when every connection was returned.
    pub(super) async fn close(&self) {
        self.pool.close().await;
    }
}

/// Removes a connection from the pool at once, and closes it in the background.
fn close(connection: PoolConnection<Postgres>) {
    tokio::spawn(timeout(CLOSE_TIMEOUT, connection.detach().close()));
}

/// Whether an idle connection may be used.
async fn is_usable(conn: &mut PgConnection, age: Duration, ages: &Ages) -> bool {
    if ages.is_suspect(age) || ages.retires(age) {
        return false;
    }
    let answers = matches!(timeout(PING_TIMEOUT, conn.ping()).await, Ok(Ok(())));
    if !answers {
        ages.suspect_all();
    }
    answers
}

/// Decides which connections are too old to be used.
struct Ages {
    started: Instant,
    lifetime: Duration,
    /// Milliseconds after `started`. Connections that were opened up to then are not used again. 0 means none.
    suspect_until_ms: AtomicU64,
    /// Milliseconds after `started` at which the last connection was replaced because of its age.
    retired_ms: AtomicU64,
}

impl Ages {
    fn new() -> Self {
        Self {
            started: Instant::now(),
            lifetime: Duration::from_millis(rand::random_range(LIFETIME_MS)),
            suspect_until_ms: AtomicU64::new(0),
            retired_ms: AtomicU64::new(0),
        }
    }

    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    fn suspect_all(&self) {
        self.suspect_until_ms.fetch_max(self.now_ms().max(1), Ordering::Relaxed);
    }

    fn is_suspect(&self, age: Duration) -> bool {
        let suspect_until_ms = self.suspect_until_ms.load(Ordering::Relaxed);
        suspect_until_ms > 0 && self.now_ms().saturating_sub(age.as_millis() as u64) <= suspect_until_ms
    }

    /// Whether a connection of this age is to be replaced now. At most one connection is replaced in each `RETIRE_EVERY`.
    fn retires(&self, age: Duration) -> bool {
        if age < self.lifetime {
            return false;
        }
        let (now_ms, last_ms) = (self.now_ms(), self.retired_ms.load(Ordering::Relaxed));
        now_ms.saturating_sub(last_ms) >= RETIRE_EVERY.as_millis() as u64
            && self.retired_ms.compare_exchange(last_ms, now_ms, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ages(running_for: Duration) -> Ages {
        Ages { started: Instant::now().checked_sub(running_for).expect("a moment ago"), ..Ages::new() }
    }

    #[test]
    fn connections_opened_before_a_failure_are_suspect_and_later_ones_are_not() {
        let ages = ages(Duration::from_secs(60));
        assert!(!ages.is_suspect(Duration::from_secs(50)));
        ages.suspect_until_ms.store(30_000, Ordering::Relaxed);
        assert!(ages.is_suspect(Duration::from_secs(40)));
        assert!(!ages.is_suspect(Duration::from_secs(20)));
        ages.suspect_all();
        assert!(ages.is_suspect(Duration::from_secs(20)));
    }

    #[test]
    fn old_connections_are_replaced_one_at_a_time() {
        let ages = ages(Duration::from_secs(900));
        assert!(!ages.retires(Duration::from_millis(LIFETIME_MS.start - 1)));
        let old = Duration::from_millis(LIFETIME_MS.end);
        assert_eq!([ages.retires(old), ages.retires(old)], [true, false]);
        ages.retired_ms.store(ages.now_ms() - 2_500, Ordering::Relaxed);
        assert!(ages.retires(old));
    }
}
