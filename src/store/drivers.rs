//! Stores drivers and the audit trail of their states.
//!
//! - Every change of a driver's state increases the epoch and writes an audit row.
//! - A claim locks these rows. So they must not contain anything that changes with heartbeats.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;

use super::StoreError;
use super::json::exact;
use super::statement::{query, query_as, query_scalar};
use crate::domain::driver::{DriverState, DriverStatus, HeartbeatTier};
use crate::domain::event::Actor;
use crate::domain::ids::{DeliveryId, DriverId};

statements! {
    INSERT = concat!("INSERT INTO drivers AS d (id, name, phone, capacity, external_id, metadata)
        VALUES ($1, $2, $3, $4, $5, $6) RETURNING ", driver_columns!());
    INSERT_CREATED_EVENT = "INSERT INTO driver_events (driver_id, epoch, status, on_duty, reason, actor_kind, actor_id)
        SELECT id, epoch, status, on_duty, 'created', $2, $3 FROM drivers WHERE id = $1";
    GET = concat!("SELECT ", driver_columns!(), " FROM drivers d WHERE d.id = $1");
    LOCK = concat!("SELECT ", driver_columns!(), " FROM drivers d WHERE d.id = $1 FOR NO KEY UPDATE");
    LIST = concat!("SELECT ", driver_columns!(), " FROM drivers d LEFT JOIN driver_positions p ON p.driver_id = d.id
        WHERE ($1::text IS NULL OR d.status = $1) AND ($2::boolean IS NULL OR d.active = $2)
          AND ($3::text IS NULL OR d.external_id = $3) AND ($4::timestamptz IS NULL OR d.updated_at >= $4)
          AND ($5::boolean IS NULL OR $5 = coalesce(p.last_seen_at >
               clock_timestamp() - make_interval(secs => $6::double precision), false))
          AND ($7::uuid IS NULL OR d.id < $7)
        ORDER BY d.id DESC LIMIT $8");
    APPLY = "WITH changed AS (
            UPDATE drivers SET on_duty = $2, active = $3, capacity = $4, used_slots = $5, epoch = epoch + 1,
                   changed_at = clock_timestamp(), updated_at = clock_timestamp()
            WHERE id = $1 RETURNING id, epoch, status, on_duty, used_slots),
        audited AS (
            INSERT INTO driver_events (driver_id, epoch, status, on_duty, reason, actor_kind, actor_id)
            SELECT id, epoch, status, on_duty, $6, $7, $8 FROM changed)
        SELECT id, epoch, status, on_duty, used_slots FROM changed";
    UPDATE_PROFILE = "UPDATE drivers SET name = coalesce($2, name), phone = coalesce($3, phone),
               external_id = CASE WHEN $4 THEN $5 ELSE external_id END,
               metadata = CASE WHEN $6 THEN $7 ELSE metadata END, updated_at = clock_timestamp()
        WHERE id = $1";
    CHANGED_SINCE = "SELECT id, epoch, status, on_duty, used_slots FROM drivers
        WHERE changed_at > clock_timestamp() - make_interval(secs => $1::double precision) ORDER BY changed_at DESC LIMIT $2";
    STATES = "SELECT id, epoch, status, on_duty, used_slots FROM drivers WHERE id = ANY($1)";
    PAGE_FOR_REBUILD = "SELECT d.id, d.epoch, d.status, d.on_duty, d.used_slots, p.lat, p.lon, p.fix_time, p.session_epoch,
               (extract(epoch FROM clock_timestamp() - p.last_seen_at) * 1000)::bigint AS silent_ms
        FROM drivers d LEFT JOIN driver_positions p ON p.driver_id = d.id
        WHERE d.active AND ($1::uuid IS NULL OR d.id > $1) ORDER BY d.id LIMIT $2";
    PAGE_FOR_COMPARISON = "SELECT id, epoch, status, on_duty, used_slots FROM drivers
        WHERE ($1::uuid IS NULL OR id > $1)
          AND ($2::double precision IS NULL OR changed_at < clock_timestamp() - make_interval(secs => $2))
        ORDER BY id LIMIT $3";
    // Drivers who are on duty or have a delivery that was not picked up. The silence begins at the last heartbeat or the last
    // change of state, whichever is later.
    SILENT = "SELECT d.id, (extract(epoch FROM clock_timestamp()
               - greatest(coalesce(p.last_seen_at, '-infinity'), d.changed_at)) * 1000)::bigint AS silent_ms
        FROM drivers d LEFT JOIN driver_positions p ON p.driver_id = d.id
        WHERE (d.on_duty OR EXISTS (SELECT 1 FROM deliveries x WHERE x.driver_id = d.id AND x.status = 'ASSIGNED'))
          AND greatest(coalesce(p.last_seen_at, '-infinity'), d.changed_at) <
              clock_timestamp() - make_interval(secs => $1::double precision)
        ORDER BY 2 DESC, d.id";
    ON_DUTY = "SELECT count(*) FROM drivers WHERE on_duty";
    ACTIVE_DELIVERIES = "SELECT driver_id, delivery_id FROM assignments
        WHERE driver_id = ANY($1) AND state = 'ACTIVE' ORDER BY driver_id, slot";
}

/// A row of the table `drivers`.
#[derive(Clone, Debug)]
pub struct Driver {
    /// The id of the driver.
    pub id: DriverId,
    /// The name. Shops see it.
    pub name: String,
    /// The telephone number. Shops see it.
    pub phone: String,
    /// An id that the operator chose.
    pub external_id: Option<String>,
    /// JSON that the operator chose.
    pub metadata: Option<Value>,
    /// Everything that the status is derived from.
    pub state: DriverState,
    /// The status that the database derives from `state`.
    pub status: DriverStatus,
    /// The number of the last change of `state`. It grows with every change.
    pub epoch: i64,
    /// When the driver was created.
    pub created_at: DateTime<Utc>,
    /// When the driver last changed.
    pub updated_at: DateTime<Utc>,
}

#[derive(FromRow)]
struct Row {
    id: Uuid,
    name: String,
    phone: String,
    external_id: Option<String>,
    metadata: Option<Value>,
    on_duty: bool,
    active: bool,
    capacity: i32,
    used_slots: i32,
    status: String,
    epoch: i64,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl Driver {
    /// Returns the present state in the form that Redis and sessions receive.
    pub fn as_changed(&self) -> DriverChanged {
        let DriverState { on_duty, used_slots, .. } = self.state;
        DriverChanged { id: self.id, epoch: self.epoch, status: self.status, on_duty, used_slots }
    }
}

impl TryFrom<Row> for Driver {
    type Error = StoreError;
    fn try_from(row: Row) -> Result<Self, StoreError> {
        Ok(Self {
            id: DriverId(row.id),
            name: row.name,
            phone: row.phone,
            external_id: row.external_id,
            metadata: row.metadata,
            state: DriverState {
                on_duty: row.on_duty,
                active: row.active,
                used_slots: row.used_slots,
                capacity: row.capacity,
            },
            status: row.status.parse().map_err(StoreError::corrupt)?,
            epoch: row.epoch,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}

/// A driver's state at an epoch. Redis and sessions receive it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DriverChanged {
    /// The driver.
    pub id: DriverId,
    /// The epoch of the change.
    pub epoch: i64,
    /// The status after the change.
    pub status: DriverStatus,
    /// The requested duty after the change.
    pub on_duty: bool,
    /// The number of deliveries that the driver holds after the change.
    pub used_slots: i32,
}

impl DriverChanged {
    /// The tier of the driver after the change.
    pub fn heartbeat_tier(&self) -> HeartbeatTier {
        HeartbeatTier::of(self.on_duty, self.used_slots)
    }
}

#[derive(FromRow)]
struct ChangedRow {
    id: Uuid,
    epoch: i64,
    status: String,
    on_duty: bool,
    used_slots: i32,
}

impl TryFrom<ChangedRow> for DriverChanged {
    type Error = StoreError;
    fn try_from(row: ChangedRow) -> Result<Self, StoreError> {
        let status = row.status.parse().map_err(StoreError::corrupt)?;
        let ChangedRow { id, epoch, on_duty, used_slots, .. } = row;
        Ok(Self { id: DriverId(id), epoch, status, on_duty, used_slots })
    }
}

/// The values of a new driver.
#[derive(Clone, Debug)]
pub struct NewDriver {
    /// The name.
    pub name: String,
    /// The telephone number.
    pub phone: String,
    /// How many deliveries the driver can hold at once.
    pub capacity: i32,
    /// An id that the operator chose.
    pub external_id: Option<String>,
    /// JSON that the operator chose.
    pub metadata: Option<Value>,
}

/// Creates a driver who is off duty.
pub async fn insert(conn: &mut PgConnection, new: &NewDriver, actor: &Actor) -> Result<Driver, StoreError> {
    let row: Row = query_as(INSERT)
        .bind(DriverId::new().0)
        .bind(&new.name)
        .bind(&new.phone)
        .bind(new.capacity)
        .bind(&new.external_id)
        .bind(new.metadata.as_ref().map(exact))
        .fetch_one(&mut *conn)
        .await?;
    query(INSERT_CREATED_EVENT).bind(row.id).bind(actor.kind()).bind(actor.id()).execute(conn).await?;
    row.try_into()
}

/// Reads a driver.
pub async fn get(conn: &mut PgConnection, id: DriverId) -> Result<Option<Driver>, StoreError> {
    query_as::<Row>(GET).bind(id.0).fetch_optional(conn).await?.map(Driver::try_from).transpose()
}

/// Reads a driver and locks its row. Waits for a transaction that holds the lock.
pub async fn lock(conn: &mut PgConnection, id: DriverId) -> Result<Option<Driver>, StoreError> {
    query_as::<Row>(LOCK).bind(id.0).fetch_optional(conn).await?.map(Driver::try_from).transpose()
}

/// Selects the drivers of a list. A field that is `None` matches every driver.
#[derive(Clone, Debug, Default)]
pub struct DriverFilter {
    /// Only drivers with this status.
    pub status: Option<DriverStatus>,
    /// Only active drivers, or only deactivated ones.
    pub active: Option<bool>,
    /// Only drivers with this external id.
    pub external_id: Option<String>,
    /// Only drivers changed at this time or later.
    pub updated_since: Option<DateTime<Utc>>,
    /// Only drivers with a heartbeat within the last `online_within_s` seconds, or only drivers without one.
    pub online: Option<bool>,
    /// The largest age of the last heartbeat of an online driver, in seconds.
    pub online_within_s: f64,
    /// Only drivers older than this one.
    pub before: Option<DriverId>,
    /// The largest number of drivers to return.
    pub limit: i64,
}

/// Returns the selected drivers, newest first.
pub async fn list(conn: &mut PgConnection, filter: &DriverFilter) -> Result<Vec<Driver>, StoreError> {
    let rows: Vec<Row> = query_as(LIST)
        .bind(filter.status.map(DriverStatus::as_str))
        .bind(filter.active)
        .bind(&filter.external_id)
        .bind(filter.updated_since)
        .bind(filter.online)
        .bind(filter.online_within_s)
        .bind(filter.before.map(|id| id.0))
        .bind(filter.limit)
        .fetch_all(conn)
        .await?;
    rows.into_iter().map(Driver::try_from).collect()
}

/// Writes a state that [`DriverState::transition`] returned, with its audit row. The caller must hold the lock of the row.
pub async fn apply(
    conn: &mut PgConnection,
    id: DriverId,
    state: DriverState,
    reason: &str,
    actor: &Actor,
) -> Result<DriverChanged, StoreError> {
    let row: ChangedRow = query_as(APPLY)
        .bind(id.0)
        .bind(state.on_duty)
        .bind(state.active)
        .bind(state.capacity)
        .bind(state.used_slots)
        .bind(reason)
        .bind(actor.kind())
        .bind(actor.id())
        .fetch_one(conn)
        .await?;
    row.try_into()
}

/// A change of a driver's profile. `None` leaves a field as it is; `Some(None)` clears it.
#[derive(Clone, Debug, Default)]
pub struct ProfileChange {
    /// The name.
    pub name: Option<String>,
    /// The telephone number.
    pub phone: Option<String>,
    /// An id that the operator chose.
    pub external_id: Option<Option<String>>,
    /// JSON that the operator chose.
    pub metadata: Option<Option<Value>>,
}

/// Writes a profile change.
pub async fn update_profile(conn: &mut PgConnection, id: DriverId, change: &ProfileChange) -> Result<(), StoreError> {
    query(UPDATE_PROFILE)
        .bind(id.0)
        .bind(&change.name)
        .bind(&change.phone)
        .bind(change.external_id.is_some())
        .bind(change.external_id.clone().flatten())
        .bind(change.metadata.is_some())
        .bind(change.metadata.as_ref().and_then(Option::as_ref).map(exact))
        .execute(conn)
        .await?;
    Ok(())
}

/// Returns the drivers whose state changed within the last `seconds`, the last change first.
pub async fn changed_within(
    conn: &mut PgConnection,
    seconds: f64,
    limit: i64,
) -> Result<Vec<DriverChanged>, StoreError> {
    let rows: Vec<ChangedRow> = query_as(CHANGED_SINCE).bind(seconds).bind(limit).fetch_all(conn).await?;
    rows.into_iter().map(DriverChanged::try_from).collect()
}

/// Returns the present states of the given drivers.
pub async fn states(conn: &mut PgConnection, ids: &[DriverId]) -> Result<Vec<DriverChanged>, StoreError> {
    let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
    let rows: Vec<ChangedRow> = query_as(STATES).bind(ids).fetch_all(conn).await?;
    rows.into_iter().map(DriverChanged::try_from).collect()
}

/// The values of one driver that a rebuild of Redis needs.
#[derive(Clone, Debug)]
pub struct RebuildRow {
    /// The state and its epoch.
    pub changed: DriverChanged,
    /// The last stored fix: latitude, longitude and the device's time.
    pub fix: Option<(f64, f64, DateTime<Utc>)>,
    /// The age of the driver's last heartbeat, in milliseconds.
    pub silent_ms: Option<i64>,
    /// The epoch of the session that sent the position.
    pub session_epoch: Option<i64>,
}

#[derive(FromRow)]
struct RebuildSql {
    #[sqlx(flatten)]
    changed: ChangedRow,
    lat: Option<f64>,
    lon: Option<f64>,
    fix_time: Option<DateTime<Utc>>,
    silent_ms: Option<i64>,
    session_epoch: Option<i64>,
}

/// Returns a page of active drivers in order of id, after `after`.
pub async fn page_for_rebuild(
    conn: &mut PgConnection,
    after: Option<DriverId>,
    limit: i64,
) -> Result<Vec<RebuildRow>, StoreError> {
    let rows: Vec<RebuildSql> =
        query_as(PAGE_FOR_REBUILD).bind(after.map(|id| id.0)).bind(limit).fetch_all(conn).await?;
    rows.into_iter()
        .map(|row| {
            Ok(RebuildRow {
                changed: row.changed.try_into()?,
                fix: row.lat.zip(row.lon).zip(row.fix_time).map(|((lat, lon), time)| (lat, lon, time)),
                silent_ms: row.silent_ms,
                session_epoch: row.session_epoch,
            })
        })
        .collect()
}

/// Returns a page of drivers in order of id, after `after`, including deactivated ones. With `seconds`, only drivers whose
/// state did not change within that time.
pub async fn page_for_comparison(
    conn: &mut PgConnection,
    after: Option<DriverId>,
    seconds: Option<f64>,
    limit: i64,
) -> Result<Vec<DriverChanged>, StoreError> {
    let rows: Vec<ChangedRow> =
        query_as(PAGE_FOR_COMPARISON).bind(after.map(|id| id.0)).bind(seconds).bind(limit).fetch_all(conn).await?;
    rows.into_iter().map(DriverChanged::try_from).collect()
}

/// A driver without a heartbeat for a long time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SilentDriver {
    /// The driver.
    pub id: DriverId,
    /// How long the driver has been silent, in milliseconds.
    pub silent_ms: i64,
}

/// Returns every driver who is silent for `seconds` and is on duty or holds a delivery that was not picked up, the longest
/// silence first. Also returns the number of all drivers on duty.
///
/// The list has no limit. The share of drivers who became silent together shows whether the drivers or the service failed.
pub async fn silent(conn: &mut PgConnection, seconds: f64) -> Result<(Vec<SilentDriver>, i64), StoreError> {
    let rows: Vec<(Uuid, i64)> = query_as(SILENT).bind(seconds).fetch_all(&mut *conn).await?;
    let on_duty: i64 = query_scalar(ON_DUTY).fetch_one(conn).await?;
    Ok((rows.into_iter().map(|(id, silent_ms)| SilentDriver { id: DriverId(id), silent_ms }).collect(), on_duty))
}

/// Returns the active deliveries of the given drivers, as pairs.
pub async fn active_deliveries(
    conn: &mut PgConnection,
    ids: &[DriverId],
) -> Result<Vec<(DriverId, DeliveryId)>, StoreError> {
    let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
    let rows: Vec<(Uuid, Uuid)> = query_as(ACTIVE_DELIVERIES).bind(ids).fetch_all(conn).await?;
    Ok(rows.into_iter().map(|(driver, delivery)| (DriverId(driver), DeliveryId(delivery))).collect())
}
