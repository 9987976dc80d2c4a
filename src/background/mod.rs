//! Periodic tasks, all run by one driver.
//!
//! Adding a task is one file that implements `driver::Task`, and one line in [`start`].

mod driver;
mod epoch_repair;
mod full_resync;
mod gauges;
mod lease;
mod offline_detection;
mod pruning;
mod rebuild;
mod reconcile_error;
mod reconciliation;
mod shop_refresh;
mod supervision;
mod track_flush;
mod track_partitions;
mod waiting_sweep;

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

pub use driver::BackgroundTasks;

use crate::config::Config;
use crate::effects::{AssignmentQueue, StaleEpochs, UseCases};
use crate::ingest::TrackWriter;
use crate::presence::Presence;
use crate::process::RestartIfDead;
use crate::shops::ShopDirectory;
use driver::Schedule;
use epoch_repair::EpochRepair;
use full_resync::FullResync;
use gauges::Gauges;
use lease::Lease;
use offline_detection::OfflineDetection;
use pruning::Pruning;
use reconciliation::Reconciliation;
use shop_refresh::ShopRefresh;
use supervision::Supervision;
use track_flush::TrackFlush;
use track_partitions::TrackPartitions;
use waiting_sweep::WaitingSweep;

/// Between two counts for the metrics.
const GAUGES_EVERY: Duration = Duration::from_secs(5);
/// Between two reads of the shops' version.
const SHOPS_EVERY: Duration = Duration::from_secs(1);
/// When nothing wakes the repair of epochs.
const EPOCH_REPAIR_EVERY: Duration = Duration::from_secs(60);
/// Between two checks whether actors died.
const SUPERVISION_EVERY: Duration = Duration::from_secs(2);
/// Between two looks at the partitions of tracks, and at rows that are too old.
const HOUSEKEEPING_EVERY: Duration = Duration::from_secs(600);

/// What the tasks work with.
pub struct TaskServices {
    /// Use cases, and PostgreSQL.
    pub use_cases: UseCases,
    /// Redis.
    pub presence: Presence,
    /// The coordinators' work.
    pub assignment: AssignmentQueue,
    /// Drivers whose epoch in Redis is newer than in PostgreSQL.
    pub stale_epochs: StaleEpochs,
    /// The shop directory of this node.
    pub shops: Arc<ShopDirectory>,
    /// Fixes of deliveries that wait.
    pub tracks: TrackWriter,
    /// The long-lived actors of this node.
    pub actors: Vec<Arc<dyn RestartIfDead>>,
}

/// Starts all tasks on `runtime`.
pub fn start(services: TaskServices, config: &Config, runtime: Handle) -> BackgroundTasks {
    let TaskServices { use_cases, presence, assignment, stale_epochs, shops, tracks, actors } = services;
    let database = use_cases.database().clone();
    let lease = |name| Lease::new(database.clone(), config.node_id.clone(), name);
    let heartbeat = config.heartbeat;

    let supervision = Supervision { actors };
    let shop_refresh = ShopRefresh { database: database.clone(), shops };
    let waiting_sweep = WaitingSweep { database: database.clone(), assignment };
    let track_partitions = TrackPartitions {
        database: database.clone(),
        lease: lease("tracks"),
        retention_days: heartbeat.track_retention_days,
    };
    let (gauges, pruning) = (Gauges { database: database.clone() }, Pruning { database: database.clone() });
    let track_flush = TrackFlush { writer: tracks };
    let flush = Schedule::after(heartbeat.position_flush).woken_by(track_flush.writer.queue.notify());
    let (reconcile_lease, compare_every) = (lease("reconcile"), config.redis.compare_every);
    let repair = Schedule::after(EPOCH_REPAIR_EVERY).woken_by(stale_epochs.notify());
    let (stores, stale) = ((database.clone(), presence.clone()), stale_epochs.clone());
    let epoch_repair = move || EpochRepair {
        stale_epochs: stale.clone(),
        resync: FullResync::new(stores.0.clone(), stores.1.clone(), compare_every),
    };
    let redis = presence.clone();
    let reconciliation = move || {
        Reconciliation::new(
            database.clone(),
            redis.clone(),
            reconcile_lease.clone(),
            stale_epochs.clone(),
            compare_every,
        )
    };
    let offline_detection = move || OfflineDetection::new(use_cases.clone(), presence.clone(), heartbeat);

    let mut tasks = BackgroundTasks::new(runtime);
    tasks.start("supervision", Schedule::after(SUPERVISION_EVERY), move || supervision.clone());
    tasks.start("reconciliation", Schedule::every(reconciliation::EVERY), reconciliation);
    tasks.start("epoch_repair", repair, epoch_repair);
    tasks.start("shop_refresh", Schedule::after(SHOPS_EVERY), move || shop_refresh.clone());
    tasks.start("gauges", Schedule::every(GAUGES_EVERY), move || gauges.clone());
    tasks.start("track_partitions", Schedule::every(HOUSEKEEPING_EVERY), move || track_partitions.clone());
    tasks.start("pruning", Schedule::after(HOUSEKEEPING_EVERY), move || pruning.clone());
    tasks.start("track_flush", flush, move || track_flush.clone());
    tasks.start("waiting_sweep", Schedule::after(config.assignment.pending_sweep), move || waiting_sweep.clone());
    tasks.start("offline_detection", Schedule::after(offline_detection::every(&heartbeat)), offline_detection);
    tasks
}
