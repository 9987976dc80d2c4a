//! `CommandCourier`: brings to the sessions on this node what PostgreSQL holds for them: unacknowledged commands, and what
//! they do not know yet of their driver or of a newer session. A hint makes it look at once; a poll needs no hint.
//!
//! Each second it looks at those of whom something was written lately, which costs what happens and not what is connected;
//! every few seconds at all of them, which brings unacknowledged commands again and needs no clock.
//!
//! | message | from | reply | when lost |
//! |---|---|---|---|
//! | `Poll` | its own interval | none | the next interval |
//! | `Deliver`, `Look` | whoever committed, or a hint from another node | none | the next poll |

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;

use super::Node;
use super::revive::Revived;
use super::session_directory::ToSession;
use crate::domain::ids::DriverId;
use crate::presence::Hint;
use crate::store::commands::Command;
use crate::store::{StoreError, commands, sessions};

/// Between polls.
const POLL_EVERY: Duration = Duration::from_millis(1000);
/// A look at every session in so many polls: as often as an unacknowledged command is repeated.
const FULL_EVERY: u32 = 5;
/// What counts as lately, in seconds: longer than a transaction may take, and two polls.
const LATELY_S: f64 = 8.0;
/// Sessions that are looked at in one piece.
const PAGE: usize = 1000;
/// Commands of one driver in one look, the newest: who never acknowledges anything must not miss the next order.
const DRIVER_PAGE: i64 = 32;
/// Wake-ups that may wait.
const MAILBOX: usize = 1024;

/// Look at everything.
#[derive(Message)]
#[rtype(result = "()")]
struct Poll;

/// Bring this driver's commands.
#[derive(Message)]
#[rtype(result = "()")]
struct Deliver(DriverId);

/// See whether this driver's session must be told something.
#[derive(Message)]
#[rtype(result = "()")]
struct Look(DriverId);

/// How the courier is woken.
#[derive(Clone)]
pub struct CourierHandle {
    courier: Arc<Revived<CommandCourier>>,
}

impl CourierHandle {
    /// Starts the courier on `arbiter`.
    pub fn start(node: Node, arbiter: &ArbiterHandle) -> Self {
        let courier = Revived::start("command_courier", arbiter, MAILBOX, move || CommandCourier {
            node: node.clone(),
            polling: false,
            polls: 0,
        });
        Self { courier: Arc::new(courier) }
    }

    /// Brings a driver's commands now, if their session is here.
    pub fn deliver(&self, driver: DriverId) {
        let _ = self.courier.addr().try_send(Deliver(driver));
    }

    /// Tells a driver's session what it does not know, if it is here.
    pub fn look(&self, driver: DriverId) {
        let _ = self.courier.addr().try_send(Look(driver));
    }
}

/// The actor.
pub struct CommandCourier {
    node: Node,
    polling: bool,
    /// Counts polls; every [`FULL_EVERY`]th looks at all sessions.
    polls: u32,
}

impl Actor for CommandCourier {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(POLL_EVERY, |_, ctx| drop(ctx.address().try_send(Poll)));
        let mut hints = self.node.presence().subscribe();
        let courier = ctx.address();
        let listening = async move {
            while let Some(hint) = hints.recv().await {
                match hint {
                    Hint::Commands { driver_id } => drop(courier.try_send(Deliver(driver_id))),
                    Hint::Session { driver_id } => drop(courier.try_send(Look(driver_id))),
                }
            }
        };
        ctx.spawn(listening.into_actor(self));
    }
}

impl Handler<Poll> for CommandCourier {
    type Result = ();

    /// Not atomic: hints are served while a poll is under way, and polls do not pile up.
    fn handle(&mut self, _: Poll, ctx: &mut Self::Context) {
        if std::mem::replace(&mut self.polling, true) {
            return;
        }
        let node = self.node.clone();
        let full = self.polls.is_multiple_of(FULL_EVERY);
        self.polls = self.polls.wrapping_add(1);
        let polling = async move {
            if let Err(error) = poll(&node, full).await {
                tracing::debug!(error = %error, "sessions were not polled");
            }
        };
        ctx.spawn(polling.into_actor(self).map(|_, this, _| this.polling = false));
    }
}

impl Handler<Deliver> for CommandCourier {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, Deliver(driver): Deliver, _: &mut Self::Context) -> Self::Result {
        let node = self.node.clone();
        Box::pin(async move {
            if node.sessions().get(driver).is_none() {
                return;
            }
            if let Err(error) = bring_commands(&node, vec![driver]).await {
                tracing::debug!(error = %error, "commands were not read; the next poll will");
            }
        })
    }
}

impl Handler<Look> for CommandCourier {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, Look(driver): Look, _: &mut Self::Context) -> Self::Result {
        let node = self.node.clone();
        Box::pin(async move {
            if let Some(entry) = node.sessions().get(driver)
                && let Err(error) = tell_news(&node, vec![entry.live()]).await
            {
                tracing::debug!(error = %error, "a session was not looked at");
            }
        })
    }
}

async fn poll(node: &Node, full: bool) -> Result<(), StoreError> {
    let sessions = node.sessions();
    if sessions.is_empty() {
        return Ok(());
    }
    let live: Vec<_> = if full {
        sessions.all().iter().map(|entry| entry.live()).collect()
    } else {
        let recent = node.database().transact(|conn| Box::pin(async move { sessions::recent(conn, LATELY_S).await }));
        recent.await?.into_iter().filter_map(|driver| Some(sessions.get(driver)?.live())).collect()
    };
    for live in live.chunks(PAGE) {
        tell_news(node, live.to_vec()).await?;
        bring_commands(node, live.iter().map(|session| session.driver_id).collect()).await?;
    }
    Ok(())
}

async fn tell_news(node: &Node, live: Vec<sessions::LiveSession>) -> Result<(), StoreError> {
    let news = node.database().transact(move |conn| Box::pin(async move { sessions::news(conn, &live).await })).await?;
    for item in news {
        if let Some(entry) = node.sessions().get(item.driver_id) {
            entry.tell(ToSession::News(item));
        }
    }
    Ok(())
}

/// Commands come ordered by message, so each driver's stay in order.
async fn bring_commands(node: &Node, drivers: Vec<DriverId>) -> Result<(), StoreError> {
    let read = node
        .database()
        .transact(move |conn| Box::pin(async move { commands::unacked(conn, &drivers, DRIVER_PAGE).await }));
    let found = read.await?;
    let mut by_driver: std::collections::HashMap<DriverId, Vec<Command>> = Default::default();
    for command in found {
        by_driver.entry(command.driver_id).or_default().push(command);
    }
    for (driver, commands) in by_driver {
        if let Some(entry) = node.sessions().get(driver) {
            entry.tell(ToSession::Commands(commands));
        }
    }
    Ok(())
}
