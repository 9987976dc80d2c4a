//! Opens a session: first in PostgreSQL, then in the node's directory; then the state is read.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use super::SessionServices;
use super::connection_watchdog::ConnectionWatchdog;
use super::directory::SessionEntry;
use super::mailbox::{SessionMailbox, ToSession};
use crate::dispatch::DispatchError;
use crate::dispatch::session::{self, DriverSnapshot};
use crate::domain::ids::SessionId;
use crate::store::credentials::DriverIdentity;

/// Opens the session in PostgreSQL, registers it, and only then reads the state, so that no change is lost in between.
/// The time is bounded by the timeouts of PostgreSQL and Redis: about ten seconds at the worst.
///
/// Openings of one driver wait for each other in no certain order. An opening whose client has left when it gets the
/// row changes nothing: it could only end the session of a connected client.
pub async fn open(
    services: Arc<SessionServices>,
    identity: DriverIdentity,
    id: SessionId,
    mailbox: SessionMailbox,
    connection: ConnectionWatchdog,
) -> Result<(SessionEntry, DriverSnapshot), DispatchError> {
    let node_id = services.node_id.clone();
    let (session_epoch, effects) = services
        .frames
        .use_cases()
        .transact(move |unit| {
            Box::pin(async move {
                // The driver's row is locked here.
                let epoch = session::open(unit, &identity, id, &node_id).await?;
                if connection.has_left() { Err(DispatchError::SessionReplaced) } else { Ok(epoch) }
            })
        })
        .await?;
    let known_epoch = Arc::new(AtomicI64::new(i64::MAX));
    let entry = SessionEntry { session_id: id, identity, session_epoch, known_epoch, mailbox };
    if let Some(older) = services.directory.register(entry.clone()) {
        older.mailbox.put(ToSession::Replaced);
    }
    services.frames.use_cases().apply(effects).await;
    let driver = identity.driver_id;
    let snapshot = services
        .frames
        .use_cases()
        .database()
        .transact(move |conn| Box::pin(async move { session::snapshot(conn, driver).await }))
        .await?;
    entry.known_epoch.store(snapshot.driver.epoch, Ordering::Relaxed);
    Ok((entry, snapshot))
}
