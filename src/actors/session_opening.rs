//! How a session begins: in PostgreSQL, then in the node's directory, and only then is the state read.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use super::Node;
use super::connection_watchdog::ConnectionWatchdog;
use super::session_directory::{SessionEntry, ToSession};
use super::session_mailbox::SessionMailbox;
use crate::dispatch::DispatchError;
use crate::dispatch::session::{self, DriverSnapshot};
use crate::domain::ids::SessionId;
use crate::store::credentials::DriverIdentity;

/// Opens the session in PostgreSQL, registers it, and only then reads the state, so that nothing falls between. Bounded by
/// what PostgreSQL and Redis may take, about ten seconds at the worst.
///
/// Openings of one driver wait for each other in no order that is certain. One whose client has left by the time it is its
/// turn changes nothing: it could only end the session of a client that is there.
pub async fn open(
    node: Node,
    identity: DriverIdentity,
    id: SessionId,
    mailbox: SessionMailbox,
    connection: ConnectionWatchdog,
) -> Result<(SessionEntry, DriverSnapshot), DispatchError> {
    let node_id = node.config().node_id.clone();
    let (session_epoch, effects) = node
        .perform_quietly(move |unit| {
            Box::pin(async move {
                // By now the driver's row is held.
                let epoch = session::open(unit, &identity, id, &node_id).await?;
                if connection.has_left() { Err(DispatchError::SessionReplaced) } else { Ok(epoch) }
            })
        })
        .await?;
    let known_epoch = Arc::new(AtomicI64::new(i64::MAX));
    let entry = SessionEntry { session_id: id, identity, session_epoch, known_epoch, mailbox };
    if let Some(older) = node.sessions().register(entry.clone()) {
        older.mailbox.put(ToSession::Replaced);
    }
    node.follow(effects).await;
    let driver = identity.driver_id;
    let snapshot =
        node.database().transact(move |conn| Box::pin(async move { session::snapshot(conn, driver).await })).await?;
    entry.known_epoch.store(snapshot.driver.epoch, Ordering::Relaxed);
    Ok((entry, snapshot))
}
