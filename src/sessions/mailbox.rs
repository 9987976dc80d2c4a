//! `SessionMailbox`: the messages that wait for a session. It has one slot for each kind, and the latest message wins.
//! So a session that its client freezes costs at most one message of each kind, however many are sent to it.
//!
//! An actor's own mailbox is not bounded: its capacity applies to each sender, and every clone of an address is a
//! separate sender.
//!
//! | message | from | reply | when lost |
//! |---|---|---|---|
//! | `Wake` | the sender of a message | none | the next message wakes the session, which takes all |

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use actix::{Message, Recipient};

use crate::ingest::AckReceiver;
use crate::process::lock;
use crate::store::commands::Command;
use crate::store::sessions::SessionState;

/// A message to a session, through its `SessionMailbox`. Of each kind, only the latest counts.
///
/// | message | from | when lost |
/// |---|---|---|
/// | `Acked` | PresenceWriter | the next batch acknowledges a higher `seq` |
/// | `Commands` | CommandDispatcher | the next poll delivers them again |
/// | `State` | CommandDispatcher | the next poll delivers it again |
/// | `Reconnect` | the drain | the socket closes without `reconnect` |
/// | `Replaced` | a newer session here | the session's own check detects it |
#[derive(Debug, Clone)]
pub enum ToSession {
    /// Every heartbeat up to this `seq` is processed.
    Acked(i64),
    /// The unacknowledged commands of the driver.
    Commands(Vec<Command>),
    /// The driver's state, or the end of the session.
    State(SessionState),
    /// The node shuts down. The driver reconnects `after_ms` after the close, and the session closes after
    /// `close_in_ms`.
    Reconnect {
        /// The driver's delay, in milliseconds.
        after_ms: u64,
        /// The session's delay, in milliseconds.
        close_in_ms: u64,
    },
    /// A newer session of the driver is on this node: this one ends at once.
    Replaced,
}

/// The mailbox has messages.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Wake;

/// The waiting messages, at most one of each kind.
#[derive(Default)]
struct Slots {
    acked: Option<i64>,
    /// The commands of one read of PostgreSQL. A newer read contains everything that an older one did.
    commands: Option<Vec<Command>>,
    news: Option<SessionState>,
    reconnect: Option<ToSession>,
    replaced: bool,
}

impl Slots {
    fn put(&mut self, message: ToSession) {
        match message {
            ToSession::Acked(seq) => self.acked = self.acked.max(Some(seq)),
            ToSession::Commands(commands) => self.commands = Some(commands),
            ToSession::State(news) => {
                // A state that ends the session is never replaced, and an older state never replaces a newer one.
                let keeps = self.news.as_ref().is_some_and(|old| {
                    old.session_epoch == news.session_epoch
                        && (old.replaced || old.lost || old.revoked || old.changed.epoch > news.changed.epoch)
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
        let news = self.news.map(ToSession::State);
        let commands = self.commands.map(ToSession::Commands);
        [ends, acked, news, commands, self.reconnect].into_iter().flatten()
    }
}

/// The mailbox of a session; cheap to clone.
#[derive(Clone)]
pub struct SessionMailbox {
    shared: Arc<Shared>,
}

struct Shared {
    slots: Mutex<Slots>,
    /// A `Wake` is in flight.
    is_waking: AtomicBool,
    session: Recipient<Wake>,
}

impl Shared {
    fn put(&self, message: ToSession) {
        lock(&self.slots).put(message);
        let is_waking = self.is_waking.swap(true, Ordering::AcqRel);
        if !is_waking && self.session.try_send(Wake).is_err() {
            self.is_waking.store(false, Ordering::Release);
        }
    }
}

impl AckReceiver for Shared {
    fn acknowledge(&self, seq: i64) {
        self.put(ToSession::Acked(seq));
    }
}

impl SessionMailbox {
    /// Creates the mailbox of a session.
    pub fn new(session: Recipient<Wake>) -> Self {
        Self { shared: Arc::new(Shared { slots: Mutex::default(), is_waking: AtomicBool::new(false), session }) }
    }

    /// Puts a message into its slot. A message to an ended session is lost.
    pub fn put(&self, message: ToSession) {
        self.shared.put(message);
    }

    /// The receiver of acknowledgements of this session's heartbeats.
    pub fn ack_receiver(&self) -> Arc<dyn AckReceiver> {
        self.shared.clone()
    }

    /// Takes all messages: first the one that ends the session, then the others in no significant order.
    pub fn take(&self) -> impl Iterator<Item = ToSession> + use<> {
        // The flag is reset first: a message that arrives from here on wakes the session again.
        self.shared.is_waking.store(false, Ordering::Release);
        std::mem::take(&mut *lock(&self.shared.slots)).into_messages()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix::prelude::*;
    use std::sync::atomic::AtomicUsize;

    use crate::domain::driver::DriverStatus;
    use crate::domain::ids::DriverId;
    use crate::store::drivers::DriverChanged;

    /// Counts how often it is woken.
    struct Sleeper(Arc<AtomicUsize>);

    impl Actor for Sleeper {
        type Context = Context<Self>;
    }

    impl Handler<Wake> for Sleeper {
        type Result = ();

        fn handle(&mut self, _: Wake, _: &mut Self::Context) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn news(epoch: i64, replaced: bool) -> ToSession {
        let driver_id = DriverId::new();
        let changed =
            DriverChanged { id: driver_id, epoch, status: DriverStatus::Available, on_duty: true, used_slots: 0 };
        ToSession::State(SessionState {
            driver_id,
            session_epoch: 1,
            replaced,
            lost: false,
            revoked: false,
            changed,
            reason: String::new(),
            by_driver: false,
        })
    }

    #[actix_web::test]
    async fn a_session_that_does_not_run_costs_one_message_of_each_kind_however_often_it_is_told() {
        let woken = Arc::new(AtomicUsize::new(0));
        let mailbox = SessionMailbox::new(Sleeper(woken.clone()).start().recipient());
        // The actor does not run before the first await.
        for n in 0..10_000 {
            let teller = mailbox.clone();
            teller.put(ToSession::Acked(n));
            teller.put(ToSession::Commands(Vec::new()));
            teller.put(news(n, false));
            teller.put(ToSession::Reconnect { after_ms: n as u64, close_in_ms: 0 });
        }
        actix_web::rt::time::sleep(std::time::Duration::from_millis(50)).await;
        assert_eq!(woken.load(Ordering::Relaxed), 1);
        let waiting: Vec<_> = mailbox.take().collect();
        assert_eq!(waiting.len(), 4, "{waiting:?}");
        assert!(matches!(waiting[0], ToSession::Acked(9999)), "{waiting:?}");
        mailbox.put(ToSession::Replaced);
        actix_web::rt::time::sleep(std::time::Duration::from_millis(50)).await;
        assert_eq!(woken.load(Ordering::Relaxed), 2, "it is woken again");
    }

    #[test]
    fn an_older_look_supersedes_no_newer_one_and_nothing_supersedes_an_end() {
        let mut slots = Slots::default();
        [news(3, false), news(2, false)].into_iter().for_each(|message| slots.put(message));
        assert_eq!(slots.news.as_ref().map(|news| news.changed.epoch), Some(3));
        [news(4, true), news(5, false)].into_iter().for_each(|message| slots.put(message));
        assert!(slots.news.is_some_and(|news| news.replaced));
        let mut slots = Slots::default();
        [ToSession::Acked(7), ToSession::Acked(5)].into_iter().for_each(|message| slots.put(message));
        assert_eq!(slots.acked, Some(7));
    }
}
