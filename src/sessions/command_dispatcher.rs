//! `CommandDispatcher`: delivers to the sessions on this node what PostgreSQL holds for them: unacknowledged commands,
//! the driver's state, and the end of a session. A notification or a hint triggers a read at once. A poll works without
//! both.
//!
//! Each second it reads the sessions whose drivers changed recently, so the cost depends on changes and not on the
//! number of connections. Every fifth second it reads all sessions: this repeats unacknowledged commands and depends on
//! no clock.
//!
//! | message | from | reply | when lost |
//! |---|---|---|---|
//! | `Deliver` | the `Notify` of [`SessionNotifications`] | none | the next poll |
//!
//! The notified drivers are kept in a set, and at most one message waits. What arrives while PostgreSQL stalls does not
//! pile up and is delivered together.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;

use super::directory::SessionDirectory;
use super::mailbox::ToSession;
use crate::domain::ids::DriverId;
use crate::effects::SessionNotifications;
use crate::presence::Presence;
use crate::process::{Supervised, forward_wake_ups};
use crate::store::commands::Command;
use crate::store::sessions::LiveSession;
use crate::store::{Database, StoreError, commands, sessions};

/// Messages that may wait.
const MAILBOX: usize = 1;
/// Between polls.
const POLL_EVERY: Duration = Duration::from_millis(1000);
/// Every n-th poll reads all sessions: this is how often an unacknowledged command is repeated.
const FULL_EVERY: u32 = 5;
/// What counts as a recent change, in seconds: longer than a transaction may take, plus two polls.
const RECENTLY_S: f64 = 8.0;
/// Sessions in one read.
const PAGE: usize = 1000;
/// The newest commands of one driver in one read. The limit keeps the newest, because a driver who never acknowledges
/// must still get the next order.
const DRIVER_PAGE: i64 = 32;

/// Deliver what the sessions of the notified drivers do not have yet.
#[derive(Message)]
#[rtype(result = "()")]
struct Deliver;

/// The services that the dispatcher uses.
#[derive(Clone)]
struct Services {
    database: Database,
    presence: Presence,
    directory: Arc<SessionDirectory>,
    notifications: SessionNotifications,
}

/// The actor.
pub struct CommandDispatcher {
    services: Services,
    is_polling: bool,
    /// Counts polls. Every [`FULL_EVERY`]th poll reads all sessions.
    polls: u32,
}

impl CommandDispatcher {
    /// Starts the dispatcher on `arbiter`, for the sessions of `directory`.
    pub fn start(
        database: Database,
        presence: Presence,
        directory: Arc<SessionDirectory>,
        notifications: SessionNotifications,
        arbiter: &ArbiterHandle,
    ) -> Arc<Supervised<Self>> {
        let services = Services { database, presence, directory, notifications };
        let make = move || Self { services: services.clone(), is_polling: false, polls: 0 };
        Arc::new(Supervised::start("command_dispatcher", arbiter, MAILBOX, make))
    }

    /// Runs concurrently with deliveries. Polls do not pile up.
    fn poll(&mut self, ctx: &mut Context<Self>) {
        if std::mem::replace(&mut self.is_polling, true) {
            return;
        }
        let services = self.services.clone();
        let full = self.polls.is_multiple_of(FULL_EVERY);
        self.polls = self.polls.wrapping_add(1);
        let polling = async move {
            if let Err(error) = services.poll(full).await {
                tracing::debug!(error = %error, "sessions were not polled");
            }
        };
        ctx.spawn(polling.into_actor(self).map(|(), this, _| this.is_polling = false));
    }
}

impl Actor for CommandDispatcher {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        forward_wake_ups(self.services.notifications.here_notify(), ctx, || Deliver);
        ctx.run_interval(POLL_EVERY, |this, ctx| this.poll(ctx));
        let services = self.services.clone();
        ctx.spawn(async move { services.receive_hints().await }.into_actor(self));
        let services = self.services.clone();
        ctx.spawn(async move { services.publish_hints().await }.into_actor(self));
    }
}

impl Handler<Deliver> for CommandDispatcher {
    type Result = AtomicResponse<Self, ()>;

    fn handle(&mut self, _: Deliver, _: &mut Self::Context) -> Self::Result {
        let services = self.services.clone();
        let delivering = async move {
            let named = services.notifications.take_here();
            if let Err(error) = services.deliver(&services.live(named)).await {
                tracing::debug!(error = %error, "commands were not delivered; the next poll delivers them");
            }
        };
        AtomicResponse::new(Box::pin(delivering.into_actor(self)))
    }
}

impl Services {
    /// Receives hints from other nodes.
    async fn receive_hints(&self) {
        let mut hints = self.presence.subscribe();
        while let Some(driver) = hints.recv().await {
            self.notifications.notify_here(driver);
        }
    }

    /// Publishes hints to other nodes: for drivers without a session here, and for drivers whose session was replaced.
    async fn publish_hints(&self) {
        loop {
            for (driver, is_replaced) in self.notifications.next_elsewhere().await {
                if is_replaced || self.directory.get(driver).is_none() {
                    self.publish_hint(driver);
                }
            }
        }
    }

    fn publish_hint(&self, driver: DriverId) {
        let presence = self.presence.clone();
        tokio::spawn(async move {
            if let Err(error) = presence.publish(driver).await {
                tracing::debug!(error = %error, "a hint was not published; the other node's poll finds the command");
            }
        });
    }

    /// The sessions on this node of these drivers.
    fn live(&self, drivers: impl IntoIterator<Item = DriverId>) -> Vec<LiveSession> {
        drivers.into_iter().filter_map(|driver| Some(self.directory.get(driver)?.live())).collect()
    }

    async fn poll(&self, full: bool) -> Result<(), StoreError> {
        if self.directory.is_empty() {
            return Ok(());
        }
        if full {
            let all: Vec<LiveSession> = self.directory.all().iter().map(|entry| entry.live()).collect();
            return self.deliver(&all).await;
        }
        let recent =
            self.database.transact(|conn| Box::pin(async move { sessions::recent(conn, RECENTLY_S).await })).await?;
        self.deliver(&self.live(recent)).await
    }

    /// Sends sessions what PostgreSQL holds for them.
    #[tracing::instrument(level = "trace", skip_all)]
    async fn deliver(&self, live: &[LiveSession]) -> Result<(), StoreError> {
        for page in live.chunks(PAGE) {
            let page = page.to_vec();
            let read = self.database.transact(move |conn| {
                Box::pin(async move {
                    let states = sessions::states(conn, &page).await?;
                    let drivers: Vec<DriverId> = page.iter().map(|session| session.driver_id).collect();
                    Ok::<_, StoreError>((states, commands::unacked(conn, &drivers, DRIVER_PAGE).await?))
                })
            });
            let (states, commands) = read.await?;
            for state in states {
                self.send(state.driver_id, ToSession::State(state));
            }
            // The rows are ordered by message, so each driver's commands stay in order.
            let mut by_driver: HashMap<DriverId, Vec<Command>> = HashMap::new();
            for command in commands {
                by_driver.entry(command.driver_id).or_default().push(command);
            }
            for (driver, commands) in by_driver {
                self.send(driver, ToSession::Commands(commands));
            }
        }
        Ok(())
    }

    fn send(&self, driver: DriverId, message: ToSession) {
        if let Some(entry) = self.directory.get(driver) {
            entry.mailbox.put(message);
        }
    }
}
