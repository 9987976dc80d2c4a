//! The directory of the sessions on this node, by driver. It is a hint: PostgreSQL's `driver_sessions` decides which
//! session is the newest.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use dashmap::{DashMap, Entry};

use super::mailbox::SessionMailbox;
use crate::domain::ids::{DriverId, SessionId};
use crate::store::credentials::DriverIdentity;
use crate::store::sessions::LiveSession;

/// How to reach a session.
#[derive(Clone)]
pub struct SessionEntry {
    /// The session's id.
    pub session_id: SessionId,
    /// The driver and the token.
    pub identity: DriverIdentity,
    /// The session's epoch among the driver's sessions.
    pub session_epoch: i64,
    /// The newest epoch of the driver's state that the session knows.
    pub known_epoch: Arc<AtomicI64>,
    /// Its mailbox.
    pub mailbox: SessionMailbox,
}

/// The sessions on this node.
#[derive(Default)]
pub struct SessionDirectory {
    by_driver: DashMap<DriverId, SessionEntry>,
    held: Arc<AtomicUsize>,
}

/// Makes a drain wait, as a session does, until dropped.
pub struct Hold(Arc<AtomicUsize>);

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl SessionDirectory {
    /// Adds a session and returns the one that must end: an older session of the driver, or this one when a newer
    /// session is here.
    pub fn register(&self, entry: SessionEntry) -> Option<SessionEntry> {
        match self.by_driver.entry(entry.identity.driver_id) {
            Entry::Vacant(vacant) => {
                vacant.insert(entry);
                None
            }
            Entry::Occupied(held) if held.get().session_epoch > entry.session_epoch => Some(entry),
            Entry::Occupied(mut held) => Some(held.insert(entry)),
        }
    }

    /// Removes a session, unless a newer one replaced it.
    pub fn unregister(&self, driver: DriverId, session: SessionId) {
        self.by_driver.remove_if(&driver, |_, entry| entry.session_id == session);
    }

    /// The driver's session on this node.
    pub fn get(&self, driver: DriverId) -> Option<SessionEntry> {
        self.by_driver.get(&driver).map(|entry| entry.clone())
    }

    /// All sessions.
    pub fn all(&self) -> Vec<SessionEntry> {
        self.by_driver.iter().map(|entry| entry.clone()).collect()
    }

    /// The number of sessions.
    pub fn len(&self) -> usize {
        self.by_driver.len()
    }

    /// Makes a drain wait until the guard is dropped: for a session that may open, or for the remaining work of a
    /// session that ended. A caller must take the guard before it checks for a drain: then it either sees the drain, or
    /// the drain waits for it.
    pub fn hold(&self) -> Hold {
        self.held.fetch_add(1, Ordering::SeqCst);
        Hold(self.held.clone())
    }

    /// Whether there is no session, no opening session, and no remaining work.
    pub fn is_empty(&self) -> bool {
        // The holds are read first: a session is registered before its hold is dropped.
        self.held.load(Ordering::SeqCst) == 0 && self.by_driver.is_empty()
    }
}

impl SessionEntry {
    /// The session as PostgreSQL is queried about it.
    pub fn live(&self) -> LiveSession {
        LiveSession {
            driver_id: self.identity.driver_id,
            session_id: self.session_id,
            session_epoch: self.session_epoch,
            token_id: self.identity.token_id,
            epoch: self.known_epoch.load(Ordering::Relaxed),
        }
    }

    /// Records that the session knows the driver's state at `epoch`. `false` when it knew a newer or equal epoch.
    pub fn learn(&self, epoch: i64) -> bool {
        self.known_epoch.fetch_max(epoch, Ordering::Relaxed) < epoch
    }
}
