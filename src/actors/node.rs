//! What every part of one node shares, and what follows a commit.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};

use dashmap::DashMap;
use tokio::sync::{oneshot, watch};

use super::assignment_coordinator::Coordinators;
use super::command_courier::CourierHandle;
use super::comparison::Comparison;
use super::finder::Finder;
use super::outbox_relay::RelayHandle;
use super::presence_writer::PresenceWriterHandle;
use super::reconciler::stale_of;
use super::refused_fixes::RefusedFixes;
use super::session_directory::SessionDirectory;
use super::shop_directory::ShopDirectory;
use super::track_writer::TrackWriterHandle;
use crate::config::Config;
use crate::dispatch::{DispatchError, Effects, Policy, Unit};
use crate::domain::driver::{Attention, DriverStatus};
use crate::domain::ids::{DeliveryId, DriverId};
use crate::domain::position::Fix;
use crate::presence::{Presence, StatusChange};
use crate::protocol::outbound::Pace;
use crate::store::drivers::DriverChanged;
use crate::store::{Database, StoreError, Work, positions, waiting};
use crate::vendure::signature::SecretError;

/// Waiting orders that a driver who became available is compared with, before a coordinator is woken.
const PICKUPS: i64 = 500;

/// One node of the service; cheap to clone.
#[derive(Clone)]
pub struct Node {
    inner: Arc<Inner>,
}

struct Inner {
    config: Config,
    database: Database,
    presence: Presence,
    policy: Policy,
    addresses: (SocketAddr, SocketAddr),
    sessions: SessionDirectory,
    finder: Finder,
    shops: Arc<ShopDirectory>,
    refused_fixes: RefusedFixes,
    waiters: DashMap<DeliveryId, oneshot::Sender<()>>,
    phase: AtomicU8,
    stopping: watch::Sender<bool>,
    actors: OnceLock<Handles>,
}

/// Where a node is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Phase {
    /// Not ready yet.
    Starting,
    /// Ready.
    Serving,
    /// Not ready any more, still taking what comes: balancers lag.
    Leaving,
    /// Taking nothing new.
    Draining,
}

/// The actors that others wake; started once, when the node starts.
pub struct Handles {
    /// One coordinator a region.
    pub coordinators: Coordinators,
    /// Heartbeats on their way to storage.
    pub writer: PresenceWriterHandle,
    /// Tracks of deliveries on their way to PostgreSQL.
    pub tracks: TrackWriterHandle,
    /// Events on their way to shops.
    pub relay: RelayHandle,
    /// Commands on their way to sessions.
    pub courier: CourierHandle,
}

/// What Redis is told of a driver. Here, since neither store knows the other.
impl From<&DriverChanged> for StatusChange {
    fn from(driver: &DriverChanged) -> Self {
        Self { driver_id: driver.id, status: driver.status, epoch: driver.epoch }
    }
}

impl Node {
    /// A node whose actors are not started yet.
    pub fn new(
        config: Config,
        database: Database,
        presence: Presence,
        addresses: (SocketAddr, SocketAddr),
    ) -> Result<Self, SecretError> {
        let policy = policy(&config);
        let shops = Arc::new(ShopDirectory::new(&config)?);
        let finder = Finder::new(&config, database.clone(), presence.clone());
        let inner = Inner {
            config,
            database,
            presence,
            policy,
            addresses,
            sessions: SessionDirectory::default(),
            finder,
            shops,
            refused_fixes: RefusedFixes::default(),
            waiters: DashMap::new(),
            phase: AtomicU8::new(Phase::Starting as u8),
            stopping: watch::Sender::new(false),
            actors: OnceLock::new(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Gives the node its actors; the first call counts.
    pub fn set_actors(&self, handles: Handles) {
        let _ = self.inner.actors.set(handles);
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.inner.config
    }

    /// PostgreSQL.
    pub fn database(&self) -> &Database {
        &self.inner.database
    }

    /// Redis.
    pub fn presence(&self) -> &Presence {
        &self.inner.presence
    }

    /// What the configuration says about dispatching.
    pub fn policy(&self) -> &Policy {
        &self.inner.policy
    }

    /// All shops.
    pub fn shops(&self) -> &Arc<ShopDirectory> {
        &self.inner.shops
    }

    /// The sessions on this node.
    pub fn sessions(&self) -> &SessionDirectory {
        &self.inner.sessions
    }

    /// Who is near.
    pub fn finder(&self) -> &Finder {
        &self.inner.finder
    }

    /// Fixes that were refused between posts of drivers without a socket.
    pub(super) fn refused_fixes(&self) -> &RefusedFixes {
        &self.inner.refused_fixes
    }

    /// The actors; `None` before they are started.
    pub fn actors(&self) -> Option<&Handles> {
        self.inner.actors.get()
    }

    /// Where the API listens.
    pub fn http_addr(&self) -> SocketAddr {
        self.inner.addresses.0
    }

    /// Where the metrics are.
    pub fn metrics_addr(&self) -> SocketAddr {
        self.inner.addresses.1
    }

    /// How often the app of a driver speaks up who is followed so closely, and how long their silence is borne: one time
    /// for all, which every interval fits into three times.
    pub fn pace(&self, attention: Attention) -> Pace {
        let heartbeat = &self.inner.config.heartbeat;
        let heartbeat_interval_ms = heartbeat.interval_of(attention).as_millis() as u64;
        Pace { heartbeat_interval_ms, ttl_ms: heartbeat.ttl.as_millis() as u64 }
    }

    /// Moves on to the next phase; never back.
    pub fn enter(&self, phase: Phase) {
        self.inner.phase.fetch_max(phase as u8, Ordering::SeqCst);
    }

    /// Whether load balancers should send work here.
    pub fn is_ready(&self) -> bool {
        self.inner.phase.load(Ordering::Relaxed) == Phase::Serving as u8
    }

    /// Whether new work is refused because the node is going away.
    pub fn is_draining(&self) -> bool {
        self.inner.phase.load(Ordering::SeqCst) >= Phase::Draining as u8
    }

    /// Turns true when background work must end.
    pub fn stopping(&self) -> watch::Receiver<bool> {
        self.inner.stopping.subscribe()
    }

    /// Ends background work.
    pub fn stop(&self) {
        self.inner.stopping.send_replace(true);
    }

    /// Runs a use case in a transaction, commits it, and sees to what must follow. An error rolls it back.
    pub async fn perform<T, F>(&self, work: F) -> Result<T, DispatchError>
    where
        F: for<'u, 'c> FnOnce(&'u mut Unit<'c>) -> Work<'u, T, DispatchError> + Send + 'static,
        T: Send + 'static,
    {
        let (value, effects) = self.perform_quietly(work).await?;
        self.follow(effects).await;
        Ok(value)
    }

    /// As [`Self::perform`], leaving what must follow to the caller.
    pub async fn perform_quietly<T, F>(&self, work: F) -> Result<(T, Effects), DispatchError>
    where
        F: for<'u, 'c> FnOnce(&'u mut Unit<'c>) -> Work<'u, T, DispatchError> + Send + 'static,
        T: Send + 'static,
    {
        let policy = self.inner.policy.clone();
        self.inner
            .database
            .transact(move |conn| {
                Box::pin(async move {
                    let mut unit = Unit::begin(conn, &policy).await?;
                    let value = work(&mut unit).await?;
                    Ok((value, unit.effects))
                })
            })
            .await
    }

    /// What follows a commit: Redis, sessions here and elsewhere, coordinators, the relay. All of it may fail; sweeps mend it.
    pub async fn follow(&self, effects: Effects) {
        for delivery in &effects.settled {
            self.settle(*delivery);
        }
        self.publish_drivers(&effects.drivers).await;
        let Some(actors) = self.actors() else { return };
        for region in &effects.waiting {
            actors.coordinators.search_due(*region);
        }
        if effects.outbox {
            actors.relay.wake();
        }
        let changed = effects.drivers.iter().map(|changed| changed.id);
        let concerned: HashSet<DriverId> =
            effects.sessions.iter().chain(&effects.commands).copied().chain(changed).collect();
        for driver in concerned {
            actors.courier.look(driver);
            // A newest session that is here needs no hint; one elsewhere does that was replaced by it.
            if effects.sessions.contains(&driver) || self.inner.sessions.get(driver).is_none() {
                self.hint_elsewhere(driver);
            }
        }
    }

    /// Tells Redis the states of drivers, and wakes the orders that wait for those who became available. `false` when Redis
    /// was not told; the reconciler tells it of whatever changed lately.
    pub async fn publish_drivers(&self, drivers: &[DriverChanged]) -> bool {
        if drivers.is_empty() {
            return true;
        }
        let changes: Vec<StatusChange> = drivers.iter().map(StatusChange::from).collect();
        let told = self.inner.presence.transition(&changes).await;
        match &told {
            Ok(outcomes) => self.examine(stale_of(&changes, outcomes)),
            Err(error) => tracing::debug!(error = %error, "Redis was not told of drivers' states; the reconciler will"),
        }
        let available = drivers.iter().filter(|c| c.status == DriverStatus::Available).map(|c| c.id);
        self.announce_available(available.collect());
        told.is_ok()
    }

    /// Compares drivers with PostgreSQL of whom Redis knows a newer epoch than one that was just committed.
    fn examine(&self, drivers: Vec<DriverId>) {
        if drivers.is_empty() {
            return;
        }
        let node = self.clone();
        tokio::spawn(async move {
            if let Err(error) = Comparison::examine(&node, drivers).await {
                tracing::debug!(error = %error, "drivers were not compared; the reconciler will");
            }
        });
    }

    /// Wakes every order in reach of drivers who may now be given one. Whoever comes back with thousands of others costs
    /// nothing where nobody waits: an order that arrives later finds them by itself.
    pub fn announce_available(&self, drivers: Vec<DriverId>) {
        if drivers.is_empty() {
            return;
        }
        let node = self.clone();
        tokio::spawn(async move {
            let radius_m = node.finder().max_radius_m();
            let found = node.database().transact(move |conn| {
                Box::pin(async move {
                    let waiting = waiting::pickups(conn, PICKUPS).await?;
                    let places = if waiting.is_empty() { Vec::new() } else { positions::get(conn, &drivers).await? };
                    Ok::<_, StoreError>((waiting, places))
                })
            });
            let (Ok((waiting, places)), Some(actors)) = (found.await, node.actors()) else { return };
            let more_wait = waiting.len() as i64 == PICKUPS;
            for place in places {
                let Some(Fix { position, .. }) = place.fix else { continue };
                if more_wait || waiting.iter().any(|pickup| pickup.distance_m(&position) <= radius_m) {
                    actors.coordinators.driver_available(place.driver_id, position);
                }
            }
        });
    }

    fn hint_elsewhere(&self, driver: DriverId) {
        let presence = self.inner.presence.clone();
        tokio::spawn(async move {
            if let Err(error) = presence.publish(driver).await {
                tracing::debug!(error = %error, "a hint was not published; polling finds it");
            }
        });
    }

    /// Resolves when the delivery is given to somebody, ends, or is found to have to wait; register before waking anybody.
    pub fn await_settled(&self, delivery: DeliveryId) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        self.inner.waiters.insert(delivery, sender);
        receiver
    }

    /// Lets whoever waits on the delivery look again.
    pub fn settle(&self, delivery: DeliveryId) {
        if let Some((_, sender)) = self.inner.waiters.remove(&delivery) {
            let _ = sender.send(());
        }
    }
}

/// What the configuration says about dispatching.
fn policy(config: &Config) -> Policy {
    let heartbeat = &config.heartbeat;
    Policy {
        announces_configured_shop: config.events.url.is_some(),
        first_delay_s: config.events.retry_schedule.first().copied().unwrap_or_default().as_secs_f64(),
        resolution: config.assignment.region_resolution,
        // What Redis knows at once may take a flush to reach PostgreSQL, where a claim looks again.
        seen_within_s: (heartbeat.ttl + heartbeat.position_flush).as_secs_f64(),
    }
}
