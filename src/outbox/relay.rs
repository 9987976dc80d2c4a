//! `OutboxRelay`: posts events to the shops, at least once, in order per delivery, retried on the configured schedule.
//!
//! | message | from | reply | when lost |
//! |---|---|---|---|
//! | `Look` | commits that announce something, posts that ended, its own interval | none | the next interval |
//!
//! What may be posted is leased in one short transaction; the post itself holds no lock. Each shop has so many posts under
//! way and no more, so that one that does not answer delays no other. A lease is short and renewed while its post lasts
//! (`HeldLeases`): what a node held that died is posted by another within `LEASE_S`. A node that only stood still may
//! then post the same event too, which a shop bears: the id is the same, and the lower sequence is ignored; and only the
//! newer lease settles.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use bytes::Bytes;
use chrono::Utc;
use tokio::sync::Semaphore;

use super::held_leases::{HeldLeases, LEASE_S};
use crate::domain::event::OutboundState;
use crate::effects::OutboxWakeUp;
use crate::process::{Lifecycle, Supervised, forward_wake_ups};
use crate::shops::{Endpoint, Shop, ShopDirectory};
use crate::store::outbox::{self, Leased};
use crate::store::{Database, StoreError, shops};
use crate::webhooks::client::{EventsClient, OutgoingHeaders, PostOutcome};
use crate::webhooks::retry::RetrySchedule;
use crate::webhooks::signature::sign;

/// Messages that may wait.
const MAILBOX: usize = 1;
/// Between looks at what is due.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Posts to one shop under way at once.
const POSTS_TO_A_SHOP: usize = 32;

/// How events are posted.
pub struct Poster {
    /// The client that connects to permitted addresses alone.
    pub client: EventsClient,
    /// When a failed post is tried again.
    pub schedule: RetrySchedule,
}

/// There may be something to post.
#[derive(Message)]
#[rtype(result = "()")]
struct Look;

/// What the relay works with.
#[derive(Clone)]
pub struct RelayServices {
    /// PostgreSQL.
    pub database: Database,
    /// The shops' addresses and secrets.
    pub shops: Arc<ShopDirectory>,
    /// Wakes the relay.
    pub wake_up: OutboxWakeUp,
    /// No post starts while the process stops.
    pub lifecycle: Lifecycle,
    /// The owner of its leases: `NODE_ID`.
    pub owner: String,
    /// The delay of an event's first try, in seconds.
    pub first_delay_s: f64,
}

/// The actor.
pub struct OutboxRelay {
    services: RelayServices,
    poster: Arc<Poster>,
    /// By shop, how many posts may be under way.
    posts: HashMap<String, Arc<Semaphore>>,
    held: Arc<HeldLeases>,
}

impl OutboxRelay {
    /// Starts the relay on `arbiter`.
    pub fn start(services: RelayServices, poster: Poster, arbiter: &ArbiterHandle) -> Arc<Supervised<Self>> {
        let poster = Arc::new(poster);
        let make = move || Self {
            services: services.clone(),
            poster: poster.clone(),
            posts: HashMap::new(),
            held: Arc::default(),
        };
        Arc::new(Supervised::start("outbox_relay", arbiter, MAILBOX, make))
    }
}

impl Actor for OutboxRelay {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        HeldLeases::keep(&self.held, self.services.database.clone(), self.services.owner.clone());
        forward_wake_ups(self.services.wake_up.notify(), ctx, || Look);
        ctx.run_interval(LOOK_EVERY, |this, _| this.services.wake_up.wake());
    }
}

/// A shop that may be posted to now.
struct Open {
    shop: Arc<Shop>,
    posts: Arc<Semaphore>,
}

impl OutboxRelay {
    /// The shops that may be posted to, by name.
    fn open(&mut self) -> HashMap<String, Open> {
        let shops = self.services.shops.with_endpoints();
        self.posts.retain(|name, _| shops.iter().any(|(shop, _)| shop == name));
        let all = shops.into_iter().map(|(name, shop)| {
            let posts = self.posts.entry(name.clone()).or_insert_with(|| Arc::new(Semaphore::new(POSTS_TO_A_SHOP)));
            (name, Open { shop, posts: posts.clone() })
        });
        all.filter(|(_, open)| open.posts.available_permits() > 0).collect()
    }
}

impl Handler<Look> for OutboxRelay {
    type Result = AtomicResponse<Self, ()>;

    fn handle(&mut self, _: Look, _: &mut Self::Context) -> Self::Result {
        let (services, poster, open, held) =
            (self.services.clone(), self.poster.clone(), self.open(), self.held.clone());
        let look = async move {
            if open.is_empty() || services.lifecycle.is_stopping() {
                return;
            }
            let leased = match lease(&services, &open).await {
                Ok(leased) => leased,
                Err(error) => return tracing::debug!(error = %error, "the outbox was not read"),
            };
            for event in leased {
                let Some(Open { shop, posts }) = open.get(&event.shop) else { continue };
                let Ok(permit) = posts.clone().try_acquire_owned() else { continue };
                let (services, poster, shop) = (services.clone(), poster.clone(), shop.clone());
                let lease = held.hold(event.event_id, event.tries);
                actix::spawn(async move {
                    if let Some(endpoint) = &shop.endpoint {
                        post(&services, &poster, endpoint, event).await;
                    }
                    drop((lease, permit));
                    services.wake_up.wake();
                });
            }
        };
        AtomicResponse::new(Box::pin(look.into_actor(self)))
    }
}

async fn lease(services: &RelayServices, open: &HashMap<String, Open>) -> Result<Vec<Leased>, StoreError> {
    let owner = services.owner.clone();
    let free = open.iter().map(|(shop, open)| (shop.clone(), open.posts.available_permits() as i64)).collect();
    services
        .database
        .transact(move |conn| Box::pin(async move { outbox::lease(conn, free, &owner, LEASE_S).await }))
        .await
}

#[tracing::instrument(level = "trace", skip_all)]
async fn post(services: &RelayServices, poster: &Poster, endpoint: &Endpoint, event: Leased) {
    let id = event.event_id.to_string();
    let timestamp = Utc::now().timestamp();
    let signatures = sign(&endpoint.secrets, &id, timestamp, &event.body);
    let headers = OutgoingHeaders {
        webhook_id: &id,
        timestamp,
        signatures: &signatures,
        shared_secret: endpoint.shared.as_ref(),
    };
    let outcome = poster.client.post(&endpoint.url, headers, Bytes::from(event.body.clone())).await;
    let verdict = Verdict::of(&outcome, event.tries, &poster.schedule);
    metrics::counter!("driver_tracker_events_posted_total", "outcome" => verdict.label).increment(1);
    if verdict.label != "delivered" {
        tracing::warn!(
            event.id = %id, shop = %event.shop, attempt = event.tries, outcome = verdict.label,
            status = verdict.status, error = verdict.error.as_deref(), "an event was not taken by the shop"
        );
    }
    let done = record_result(services, endpoint, event, verdict).await;
    if let Err(error) = done {
        tracing::warn!(event.id = %id, error = %error, "a post was not recorded; its lease runs out and it is posted again");
    }
}

/// What a post means for its event.
struct Verdict {
    state: OutboundState,
    next_try_s: f64,
    disable: bool,
    status: Option<u16>,
    error: Option<String>,
    label: &'static str,
}

impl Verdict {
    fn of(outcome: &PostOutcome, tries: i32, schedule: &RetrySchedule) -> Self {
        let base = Self {
            state: OutboundState::Pending,
            next_try_s: 0.0,
            disable: false,
            status: None,
            error: None,
            label: "delivered",
        };
        match outcome {
            PostOutcome::Delivered { status } => {
                Self { state: OutboundState::Delivered, status: Some(*status), ..base }
            }
            PostOutcome::Rejected { status } => Self {
                state: OutboundState::Dead,
                status: Some(*status),
                error: Some("the shop refused the event".to_owned()),
                label: "rejected",
                ..base
            },
            PostOutcome::Gone => Self {
                disable: true,
                status: Some(410),
                error: Some("the endpoint is gone".to_owned()),
                label: "gone",
                ..base
            },
            PostOutcome::Retry { status, error, retry_after } => {
                let next = u32::try_from(tries).unwrap_or(u32::MAX).saturating_add(1);
                let delay = schedule.next_delay(next, *retry_after, rand::random());
                Self {
                    state: if delay.is_some() { OutboundState::Pending } else { OutboundState::Dead },
                    next_try_s: delay.unwrap_or_default().as_secs_f64(),
                    status: *status,
                    error: Some(error.clone()),
                    label: if delay.is_some() { "retried" } else { "dead" },
                    ..base
                }
            }
        }
    }
}

async fn record_result(
    services: &RelayServices,
    endpoint: &Endpoint,
    event: Leased,
    verdict: Verdict,
) -> Result<(), StoreError> {
    let (owner, first_delay_s) = (services.owner.clone(), services.first_delay_s);
    let posted_to = endpoint.stored_url.clone();
    services
        .database
        .transact(move |conn| {
            Box::pin(async move {
                let error = verdict.error.as_deref();
                let next_try_s = if verdict.state == OutboundState::Pending { verdict.next_try_s } else { first_delay_s };
                if !outbox::record_result(conn, &event, &owner, verdict.state, next_try_s).await? {
                    return Ok(());
                }
                outbox::record_attempt(conn, event.event_id, verdict.status, error).await?;
                let shop = &event.shop;
                if verdict.disable && shops::disable_endpoint(conn, shop, posted_to.as_deref(), "answered 410").await? {
                    tracing::error!(shop = %event.shop, "the shop's endpoint is gone (410); its events wait until it is enabled");
                }
                Ok(())
            })
        })
        .await
}
