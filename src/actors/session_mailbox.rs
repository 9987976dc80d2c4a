//! `SessionMailbox`: what waits for a session. One slot of each kind, the latest wins; so a session that is frozen by its
//! client costs what one of each kind costs, however long and however often it is told.
//!
//! An actor's own mailbox would not do: its capacity holds for each sender, and every clone of an address is another one.
//!
//! | message | from | reply | when lost |
//! |---|---|---|---|
//! | `Wake` | whoever put something into a slot | none | the next one wakes, and takes all |

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use actix::{Message, Recipient};

use super::session_directory::ToSession;
use crate::store::commands::Command;
use crate::store::sessions::SessionNews;

/// There is something in the mailbox.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Wake;

/// What waits, at most one of each kind.
#[derive(Default)]
struct Slots {
    acked: Option<i64>,
    /// Of one look at PostgreSQL, whole: a newer look knows of all that an older one knew.
    commands: Option<Vec<Command>>,
    news: Option<SessionNews>,
    reconnect: Option<ToSession>,
    replaced: bool,
}

impl Slots {
    fn put(&mut self, message: ToSession) {
        match message {
            ToSession::Acked(seq) => self.acked = self.acked.max(Some(seq)),
            ToSession::Commands(commands) => self.commands = Some(commands),
            ToSession::News(news) => {
                // What ends a session is not superseded, and an older state never supersedes a newer one.
                let keeps = self.news.as_ref().is_some_and(|old| {
                    old.session_epoch == news.session_epoch
                        && (old.replaced || old.revoked || old.changed.epoch > news.changed.epoch)
                });
                if !keeps {
                    self.news = Some(news);
                }
            }
            ToSession::Reconnect { .. } => self.reconnect = Some(message),
            ToSession::Replaced => self.replaced = true,
        }
    }

    fn into_messages(self) -> impl Iterator<Item = ToSession> {
        let ends = self.replaced.then_some(ToSession::Replaced);
        let acked = self.acked.map(ToSession::Acked);
        let news = self.news.map(ToSession::News);
        let commands = self.commands.map(ToSession::Commands);
        [ends, acked, news, commands, self.reconnect].into_iter().flatten()
    }
}

/// What waits for a session; cheap to clone.
#[derive(Clone)]
pub struct SessionMailbox {
    shared: Arc<Shared>,
}

struct Shared {
    slots: Mutex<Slots>,
    /// A `Wake` is on its way.
    is_waking: AtomicBool,
    session: Recipient<Wake>,
}

impl SessionMailbox {
    /// The mailbox of a session.
    pub fn new(session: Recipient<Wake>) -> Self {
        Self { shared: Arc::new(Shared { slots: Mutex::default(), is_waking: AtomicBool::new(false), session }) }
    }

    /// Puts a message into its slot. `false` when the session is gone.
    pub fn put(&self, message: ToSession) -> bool {
        self.slots().put(message);
        if self.shared.is_waking.swap(true, Ordering::AcqRel) {
            return self.shared.session.connected();
        }
        let sent = self.shared.session.try_send(Wake).is_ok();
        if !sent {
            self.shared.is_waking.store(false, Ordering::Release);
        }
        sent
    }

    /// Takes all that waits: what ends the session first, then in no order that matters.
    pub fn take(&self) -> impl Iterator<Item = ToSession> + use<> {
        // First: whoever puts something in from here on wakes again.
        self.shared.is_waking.store(false, Ordering::Release);
        std::mem::take(&mut *self.slots()).into_messages()
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.shared.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
