//! The sessions on this node, by driver. A hint at who is where; PostgreSQL's `driver_sessions` says who is newest.

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
    /// Which.
    pub session_id: SessionId,
    /// Whose, by which token.
    pub identity: DriverIdentity,
    /// Its number among the driver's sessions.
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

/// Something that a drain waits for beside the sessions; until dropped.
pub struct Hold(Arc<AtomicUsize>);

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl SessionDirectory {
    /// Adds a session and gives the one that must end: an older one of the same driver, or this one when a newer is here.
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

    /// Removes a session, unless a newer one has taken its place.
    pub fn unregister(&self, driver: DriverId, session: SessionId) {
        self.by_driver.remove_if(&driver, |_, entry| entry.session_id == session);
    }

    /// The driver's session on this node.
    pub fn get(&self, driver: DriverId) -> Option<SessionEntry> {
        self.by_driver.get(&driver).map(|entry| entry.clone())
    }

    /// Every session.
    pub fn all(&self) -> Vec<SessionEntry> {
        self.by_driver.iter().map(|entry| entry.clone()).collect()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_driver.len()
    }

    /// Counts a session that may be about to be here, or what one that is over has left to do, for as long as what is given
    /// lives. A caller that takes it first and then checks whether the node drains is either refused or waited for.
    pub fn hold(&self) -> Hold {
        self.held.fetch_add(1, Ordering::SeqCst);
        Hold(self.held.clone())
    }

    /// Whether there is none, none about to be, and none has left anything to do.
    pub fn is_empty(&self) -> bool {
        // In this order: a session is here before it is no longer about to be.
        self.held.load(Ordering::SeqCst) == 0 && self.by_driver.is_empty()
    }
}

impl SessionEntry {
    /// As PostgreSQL is asked about it.
    pub fn live(&self) -> LiveSession {
        LiveSession {
            driver_id: self.identity.driver_id,
            session_id: self.session_id,
            session_epoch: self.session_epoch,
            token_id: self.identity.token_id,
            epoch: self.known_epoch.load(Ordering::Relaxed),
        }
    }

    /// Notes that the session knows the driver's state at `epoch`. `false` when it knew a newer or equal one.
    pub fn learn(&self, epoch: i64) -> bool {
        self.known_epoch.fetch_max(epoch, Ordering::Relaxed) < epoch
    }
}
