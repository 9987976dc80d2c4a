//! The command `doctor`: compares Redis with PostgreSQL and reports the differences.
//!
//! Must not: change either store.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::runtime::Handle;

use super::diagnosis::{Differences, Known, compare, confirmed};
use crate::cli::DoctorArgs;
use crate::config::DoctorConfig;
use crate::domain::ids::DriverId;
use crate::presence::{Contents, Overview, Presence, PresenceError, PresenceSettings};
use crate::store::drivers::{self, DriverChanged};
use crate::store::schema::{self, SchemaState};
use crate::store::{Database, StoreError};

/// The pause before differences are checked again. It is longer than a commit takes to reach Redis, and longer than the
/// reconciliation takes to repair drift.
const PAUSE: Duration = Duration::from_millis(3500);
/// Drivers in one page.
const PAGE: i64 = 5000;
/// The timeout of one call to Redis. It is long because no request waits for the call.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// Why the stores could not be compared.
#[derive(Debug, thiserror::Error)]
pub enum DoctorError {
    /// PostgreSQL failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Redis failed.
    #[error(transparent)]
    Presence(#[from] PresenceError),
    /// Migrations are missing.
    #[error("the database's schema is behind this program: run `driver-tracker migrate`")]
    SchemaBehind,
    /// The schema needs a newer program.
    #[error("the database's schema needs a newer driver-tracker than this one")]
    SchemaTooNew,
}

/// The result of a comparison.
#[derive(Debug)]
pub struct Diagnosis {
    drivers: usize,
    redis: Overview,
    contents: Contents,
    differences: Differences,
    /// How many ids of each kind are shown.
    shown: usize,
}

/// Compares the stores.
pub async fn examine(args: &DoctorArgs, config: &DoctorConfig) -> Result<Diagnosis, DoctorError> {
    let database = Database::new(config.database.url.expose(), 1, false, Handle::current())?;
    match database.transact(|conn| Box::pin(async move { schema::state(conn).await })).await? {
        SchemaState::Fits => {}
        SchemaState::Behind => return Err(DoctorError::SchemaBehind),
        SchemaState::TooNew => return Err(DoctorError::SchemaTooNew),
    }
    let presence = Presence::new(PresenceSettings {
        key_prefix: config.redis.key_prefix.clone(),
        call_timeout: CALL_TIMEOUT,
        ..PresenceSettings::new(config.redis.url.expose().clone(), Handle::current())
    })?;
    let identity = database.transact(|conn| Box::pin(async move { schema::identity(conn).await })).await?;
    presence.set_database_identity(identity);
    let redis = presence.overview().await?;
    let mut contents = presence.contents().await?;
    let known = read_all(&database).await?;
    let ids: Vec<DriverId> = known.keys().copied().collect();
    presence.read_online_into(&mut contents, &ids).await?;
    let first = compare(&known, &contents);
    let differences = look_again(&database, &presence, first, &known).await?;
    Ok(Diagnosis { drivers: known.len(), redis, contents, differences, shown: args.shown })
}

/// Compares the drivers that differ again after [`PAUSE`]. A change that had not reached Redis yet is no difference.
async fn look_again(
    database: &Database,
    presence: &Presence,
    first: Differences,
    before: &BTreeMap<DriverId, Known>,
) -> Result<Differences, DoctorError> {
    if first.is_empty() {
        return Ok(first);
    }
    tokio::time::sleep(PAUSE).await;
    let mut ids: Vec<DriverId> = first.values().flatten().copied().collect();
    ids.sort_unstable();
    ids.dedup();
    let contents = presence.contents_of(&ids).await?;
    let mut after = BTreeMap::new();
    for chunk in ids.chunks(PAGE as usize) {
        let some = chunk.to_vec();
        let rows = database.transact(move |conn| Box::pin(async move { drivers::states(conn, &some).await })).await?;
        after.extend(rows.iter().map(known_of));
    }
    Ok(confirmed(&first, &compare(&after, &contents), before, &after))
}

async fn read_all(database: &Database) -> Result<BTreeMap<DriverId, Known>, StoreError> {
    let mut known = BTreeMap::new();
    let mut after = None;
    loop {
        let rows = database
            .transact(move |conn| Box::pin(async move { drivers::page_for_comparison(conn, after, None, PAGE).await }))
            .await?;
        known.extend(rows.iter().map(known_of));
        after = rows.last().map(|driver| driver.id);
        if rows.len() < PAGE as usize {
            return Ok(known);
        }
    }
}

fn known_of(driver: &DriverChanged) -> (DriverId, Known) {
    (driver.id, Known { status: driver.status, epoch: driver.epoch })
}

impl Diagnosis {
    /// Whether Redis is warm and nothing differs.
    pub fn is_same(&self) -> bool {
        self.differences.is_empty() && self.contents.unknown_members.is_empty() && self.problems().is_empty()
    }

    /// `warm`, or why the data in Redis is not trusted.
    fn generation(&self) -> &'static str {
        match &self.redis.generation {
            Some(_) if self.redis.generation == self.redis.expected_generation => "warm",
            Some(_) => "foreign",
            None if self.redis.is_rebuilding => "rebuilding",
            None => "cold",
        }
    }

    fn may_evict(&self) -> bool {
        self.redis.eviction_policy.as_deref().is_some_and(|policy| policy != "noeviction")
    }

    /// The problems of Redis as a whole, each as a name and a sentence.
    fn problems(&self) -> Vec<(&'static str, &'static str)> {
        let mut problems = Vec::new();
        match self.generation() {
            "warm" => {}
            "foreign" => problems.push((
                "foreign",
                "Redis holds data of another database, or of before its restart: no node has rebuilt it yet",
            )),
            _ => problems.push(("cold", "Redis is not believed: no node has rebuilt it, or none keeps it warm")),
        }
        if self.may_evict() {
            problems.push(("may_evict", "Redis may evict drivers silently: set maxmemory-policy noeviction"));
        }
        problems
    }

    /// The result as JSON, for programs.
    pub fn to_json(&self) -> Value {
        let redis = &self.redis;
        let differences = self.differences.iter().map(|(difference, drivers)| {
            let first: Vec<&DriverId> = drivers.iter().take(self.shown).collect();
            json!({"kind": difference.name(), "count": drivers.len(), "drivers": first})
        });
        let unknown_members: Vec<&String> = self.contents.unknown_members.iter().take(self.shown).collect();
        json!({
            "same": self.is_same(),
            "database": {"schema": "fits", "version": schema::newest_known(), "drivers": self.drivers},
            "redis": {
                "version": redis.version, "evictionPolicy": redis.eviction_policy, "usedMemoryBytes": redis.used_memory,
                "maxMemoryBytes": redis.max_memory, "generation": self.generation(),
                "statuses": self.contents.statuses.len(), "findable": self.contents.members.len(),
                "online": self.contents.online.len(),
            },
            "problems": self.problems().iter().map(|(name, _)| name).collect::<Vec<_>>(),
            "differences": differences.collect::<Vec<_>>(),
            "strangers": {"count": self.contents.unknown_members.len(), "first": unknown_members},
        })
    }

    /// The result as text, for people.
    pub fn to_text(&self) -> String {
        let (redis, contents) = (&self.redis, &self.contents);
        let limit = match redis.max_memory {
            Some(0) | None => "no limit".to_owned(),
            Some(bytes) => in_mb(bytes),
        };
        let mut lines = vec![
            format!("PostgreSQL  schema {} fits; {} drivers", schema::newest_known(), self.drivers),
            format!(
                "Redis       {}, {} in use of {limit}, {}, {}; {} statuses, {} can be found, {} online",
                redis.version.as_deref().unwrap_or("of an unknown version"),
                redis.used_memory.map_or("unknown".to_owned(), in_mb),
                redis.eviction_policy.as_deref().unwrap_or("eviction unknown"),
                self.generation(),
                contents.statuses.len(),
                contents.members.len(),
                contents.online.len()
            ),
        ];
        lines.extend(self.problems().iter().map(|(_, sentence)| (*sentence).to_owned()));
        for (difference, drivers) in &self.differences {
            let shown = self.shown_of(drivers.iter(), drivers.len());
            lines.push(format!("{} drivers {} ({}){shown}", drivers.len(), difference.words(), difference.name()));
        }
        if !contents.unknown_members.is_empty() {
            let shown = self.shown_of(contents.unknown_members.iter(), contents.unknown_members.len());
            lines.push(format!("{} entries in Redis are no drivers{shown}", contents.unknown_members.len()));
        }
        if self.is_same() {
            lines.push("the same".to_owned());
        }
        lines.join("\n")
    }

    fn shown_of(&self, all: impl Iterator<Item = impl std::fmt::Display>, count: usize) -> String {
        let mut text: String = all.take(self.shown).map(|one| format!("\n  {one}")).collect();
        if count > self.shown && self.shown > 0 {
            text.push_str(&format!("\n  and {} more", count - self.shown));
        }
        text
    }
}

fn in_mb(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1_000_000.0)
}
