//! `CommandCourier`: brings to the sessions on this node what PostgreSQL holds for them: unacknowledged commands, and what
//! they do not know yet of their driver or of a newer session. A hint makes it look at once; a poll needs no hint.
//!
//! Each second it looks at those of whom something was written lately, which costs what happens and not what is connected;
//! every few seconds at all of them, which brings unacknowledged commands again and needs no clock.
//!
//! | message | from | reply | when lost |
//! |---|---|---|---|
//! | `Bring` | whoever committed, or a hint from another node | none | the next poll |
//!
//! Of whom to bring something stands in a set, and one message waits at most: what comes while PostgreSQL stalls does not
//! pile up, and is brought together.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix::prelude::*;

use super::revive::Revived;
use super::session_directory::ToSession;
use super::wake::{Queued, Wake};
use super::{Node, lock};
use crate::domain::ids::DriverId;
use crate::store::commands::Command;
use crate::store::sessions::LiveSession;
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
/// See what must be told to the drivers who were named.
#[derive(Message)]
#[rtype(result = "()")]
struct Bring(Queued);

/// Drivers whose sessions must perhaps be told something.
#[derive(Clone, Default)]
struct Named {
    drivers: Arc<Mutex<HashSet<DriverId>>>,
    wake: Wake,
}

impl Named {
    fn add(&self, driver: DriverId, courier: &Addr<CommandCourier>) {
        lock(&self.drivers).insert(driver);
        self.wake.send(courier, Bring);
    }
}

/// How the courier is woken.
#[derive(Clone)]
pub struct CourierHandle {
    courier: Arc<Revived<CommandCourier>>,
    named: Named,
}

impl CourierHandle {
    /// Starts the courier on `arbiter`.
    pub fn start(node: Node, arbiter: &ArbiterHandle) -> Self {
        let named = Named::default();
        let shared = named.clone();
        let courier = Revived::start("command_courier", arbiter, 1, move || CommandCourier {
            node: node.clone(),
            named: shared.clone(),
            polling: false,
            polls: 0,
        });
        Self { courier: Arc::new(courier), named }
    }

    /// Brings a driver's session now what it does not know, if it is here: commands, and what became of the driver.
    pub fn look(&self, driver: DriverId) {
        self.named.add(driver, &self.courier.addr());
    }
}

/// The actor.
pub struct CommandCourier {
    node: Node,
    named: Named,
    polling: bool,
    /// Counts polls; every [`FULL_EVERY`]th looks at all sessions.
    polls: u32,
}

impl Actor for CommandCourier {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(POLL_EVERY, |this, ctx| this.poll(ctx));
        let mut hints = self.node.presence().subscribe();
        let (named, courier) = (self.named.clone(), ctx.address());
        let listening = async move {
            while let Some(driver) = hints.recv().await {
                named.add(driver, &courier);
            }
        };
        ctx.spawn(listening.into_actor(self));
    }
}

impl CommandCourier {
    /// Beside what is brought meanwhile; polls do not pile up.
    fn poll(&mut self, ctx: &mut Context<Self>) {
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

impl Handler<Bring> for CommandCourier {
    type Result = AtomicResponse<Self, ()>;

    fn handle(&mut self, Bring(queued): Bring, _: &mut Self::Context) -> Self::Result {
        // First: for whoever is named from here on, another message comes.
        drop(queued);
        let named = std::mem::take(&mut *lock(&self.named.drivers));
        let node = self.node.clone();
        let bringing = async move {
            if let Err(error) = bring(&node, &live(&node, named)).await {
                tracing::debug!(error = %error, "nothing was brought; the next poll will");
            }
        };
        AtomicResponse::new(Box::pin(bringing.into_actor(self)))
    }
}

/// The sessions here of these drivers.
fn live(node: &Node, drivers: impl IntoIterator<Item = DriverId>) -> Vec<LiveSession> {
    drivers.into_iter().filter_map(|driver| Some(node.sessions().get(driver)?.live())).collect()
}

async fn poll(node: &Node, full: bool) -> Result<(), StoreError> {
    let sessions = node.sessions();
    if sessions.is_empty() {
        return Ok(());
    }
    if full {
        let all: Vec<LiveSession> = sessions.all().iter().map(|entry| entry.live()).collect();
        return bring(node, &all).await;
    }
    let recent =
        node.database().transact(|conn| Box::pin(async move { sessions::recent(conn, LATELY_S).await })).await?;
    bring(node, &live(node, recent)).await
}

/// Tells sessions what PostgreSQL holds for them.
async fn bring(node: &Node, live: &[LiveSession]) -> Result<(), StoreError> {
    for page in live.chunks(PAGE) {
        let page = page.to_vec();
        let read = node.database().transact(move |conn| {
            Box::pin(async move {
                let news = sessions::news(conn, &page).await?;
                let drivers: Vec<DriverId> = page.iter().map(|session| session.driver_id).collect();
                Ok::<_, StoreError>((news, commands::unacked(conn, &drivers, DRIVER_PAGE).await?))
            })
        });
        let (news, commands) = read.await?;
        for item in news {
            tell(node, item.driver_id, ToSession::News(item));
        }
        // They come ordered by message, so each driver's stay in order.
        let mut by_driver: HashMap<DriverId, Vec<Command>> = HashMap::new();
        for command in commands {
            by_driver.entry(command.driver_id).or_default().push(command);
        }
        for (driver, commands) in by_driver {
            tell(node, driver, ToSession::Commands(commands));
        }
    }
    Ok(())
}

fn tell(node: &Node, driver: DriverId, message: ToSession) {
    if let Some(entry) = node.sessions().get(driver) {
        entry.mailbox.put(message);
    }
}
