//! `OutboxRelay`: posts events to the shop, at least once, in order per delivery, retried on the configured schedule.
//!
//! | message | from | reply | when lost |
//! |---|---|---|---|
//! | `Look` | commits that announce something, posts that ended, its own interval | none | the next interval |
//!
//! One `Look` waits at most, however many commits there were.
//!
//! What may be posted is leased in one short transaction; the post itself holds no lock. A lease outlives the longest post,
//! so that two relays never post one event at once; a relay that died loses its leases to the others.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use bytes::Bytes;
use chrono::Utc;
use tokio::sync::Semaphore;
use url::Url;

use super::Node;
use super::revive::Revived;
use super::wake::{Queued, Wake};
use crate::domain::event::OutboundState;
use crate::store::outbox::{self, Leased};
use crate::store::{StoreError, shops};
use crate::vendure::client::{EventsClient, OutgoingHeaders, PostOutcome};
use crate::vendure::retry::RetrySchedule;
use crate::vendure::signature::{SharedSecret, SigningSecret, sign};

/// Between looks at what is due.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Posts under way at once.
const MAX_POSTS: usize = 32;
/// How long a lease holds: longer than the longest post.
const LEASE_S: f64 = 45.0;

/// Where events go, and how they are signed.
pub struct Destination {
    /// The shop's address.
    pub url: Url,
    /// One signature each.
    pub secrets: Vec<SigningSecret>,
    /// Sent as it is, where configured.
    pub shared: Option<SharedSecret>,
    /// When a failed post is tried again.
    pub schedule: RetrySchedule,
    /// The client that connects to permitted addresses alone.
    pub client: EventsClient,
}

/// There may be something to post.
#[derive(Message)]
#[rtype(result = "()")]
struct Look(Queued);

/// How the relay is woken.
#[derive(Clone)]
pub struct RelayHandle {
    relay: Option<Arc<Revived<OutboxRelay>>>,
    wake: Wake,
}

impl RelayHandle {
    /// Starts the relay on `arbiter`; without a destination nothing is ever posted.
    pub fn start(node: Node, destination: Option<Destination>, arbiter: &ArbiterHandle) -> Self {
        let wake = Wake::default();
        let relay = destination.map(|destination| {
            let wake = wake.clone();
            let destination = Arc::new(destination);
            let posts = Arc::new(Semaphore::new(MAX_POSTS));
            Arc::new(Revived::start("outbox_relay", arbiter, 1, move || OutboxRelay {
                node: node.clone(),
                destination: destination.clone(),
                posts: posts.clone(),
                wake: wake.clone(),
            }))
        });
        Self { relay, wake }
    }

    /// Looks at once for something to post.
    pub fn wake(&self) {
        if let Some(relay) = &self.relay {
            self.wake.send(&relay.addr(), Look);
        }
    }
}

/// The actor.
pub struct OutboxRelay {
    node: Node,
    destination: Arc<Destination>,
    posts: Arc<Semaphore>,
    wake: Wake,
}

impl Actor for OutboxRelay {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(LOOK_EVERY, |this, ctx| this.wake.send(&ctx.address(), Look));
    }
}

impl Handler<Look> for OutboxRelay {
    type Result = AtomicResponse<Self, ()>;

    fn handle(&mut self, Look(queued): Look, ctx: &mut Self::Context) -> Self::Result {
        // First: for whatever is committed from here on, another look follows.
        drop(queued);
        let (node, destination, posts) = (self.node.clone(), self.destination.clone(), self.posts.clone());
        let (relay, wake) = (ctx.address(), self.wake.clone());
        let look = async move {
            let free = posts.available_permits();
            if free == 0 || *node.stopping().borrow() {
                return;
            }
            match lease(&node, free).await {
                Ok(leased) => {
                    for event in leased {
                        let Ok(permit) = posts.clone().try_acquire_owned() else { return };
                        let (node, destination) = (node.clone(), destination.clone());
                        let (relay, wake) = (relay.clone(), wake.clone());
                        actix::spawn(async move {
                            post(&node, &destination, event).await;
                            drop(permit);
                            wake.send(&relay, Look);
                        });
                    }
                }
                Err(error) => tracing::debug!(error = %error, "the outbox was not read"),
            }
        };
        AtomicResponse::new(Box::pin(look.into_actor(self)))
    }
}

async fn lease(node: &Node, free: usize) -> Result<Vec<Leased>, StoreError> {
    let owner = node.config().node_id.clone();
    let limit = free.min(MAX_POSTS) as i64;
    node.database()
        .transact(move |conn| Box::pin(async move { outbox::lease(conn, &owner, limit, LEASE_S).await }))
        .await
}

async fn post(node: &Node, destination: &Destination, event: Leased) {
    let id = event.event_id.to_string();
    let timestamp = Utc::now().timestamp();
    let signatures = sign(&destination.secrets, &id, timestamp, &event.body);
    let headers = OutgoingHeaders {
        webhook_id: &id,
        timestamp,
        signatures: &signatures,
        shared_secret: destination.shared.as_ref(),
    };
    let outcome = destination.client.post(&destination.url, headers, Bytes::from(event.body.clone())).await;
    let verdict = Verdict::of(&outcome, event.tries, &destination.schedule);
    metrics::counter!("driver_tracker_events_posted_total", "outcome" => verdict.label).increment(1);
    if verdict.label != "delivered" {
        tracing::warn!(
            event.id = %id, shop = %event.shop, attempt = event.tries, outcome = verdict.label,
            status = verdict.status, error = verdict.error.as_deref(), "an event was not taken by the shop"
        );
    }
    let done = settle(node, event, verdict).await;
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

async fn settle(node: &Node, event: Leased, verdict: Verdict) -> Result<(), StoreError> {
    let owner = node.config().node_id.clone();
    node.database()
        .transact(move |conn| {
            Box::pin(async move {
                let error = verdict.error.as_deref();
                if !outbox::settle(conn, &event, &owner, verdict.state, verdict.next_try_s).await? {
                    return Ok(());
                }
                outbox::record_attempt(conn, event.event_id, verdict.status, error).await?;
                if verdict.disable && shops::disable_endpoint(conn, &event.shop, "answered 410").await? {
                    tracing::error!(shop = %event.shop, "the shop's endpoint is gone (410); its events wait until it is enabled");
                }
                Ok(())
            })
        })
        .await
}
