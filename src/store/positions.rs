//! Stores the last position and the last heartbeat of each driver.
//!
//! - The search for candidates uses these rows while Redis is down or not trusted.
//! - The detection of silent drivers uses these rows.
//! - An older session never overwrites a newer one. Within a session, an older fix never overwrites a newer one.

use chrono::{DateTime, Utc};
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;

use super::StoreError;
use super::statement::{query, query_as};
use crate::domain::heartbeat::Heartbeat;
use crate::domain::ids::DriverId;
use crate::domain::position::{BoundingBox, Fix, Position};

statements! {
    UPSERT = "INSERT INTO driver_positions AS p (driver_id, lat, lon, fix_time, last_seen_at, session_epoch)
        SELECT u.driver_id, u.lat, u.lon, u.fix_time,
               clock_timestamp() - make_interval(secs => u.age_ms / 1000.0), u.session_epoch
        FROM unnest($1::uuid[], $2::double precision[], $3::double precision[], $4::timestamptz[], $5::bigint[],
                    $6::bigint[]) AS u (driver_id, lat, lon, fix_time, age_ms, session_epoch)
        WHERE EXISTS (SELECT FROM drivers d WHERE d.id = u.driver_id)
        ORDER BY u.driver_id
        ON CONFLICT (driver_id) DO UPDATE SET
            (lat, lon, fix_time) = (
                SELECT n.lat, n.lon, n.fix_time FROM (VALUES
                    (EXCLUDED.lat, EXCLUDED.lon, EXCLUDED.fix_time, true), (p.lat, p.lon, p.fix_time, false)
                ) AS n (lat, lon, fix_time, fresh)
                WHERE n.fresh = (EXCLUDED.lat IS NOT NULL AND (p.lat IS NULL OR
                      (EXCLUDED.session_epoch, EXCLUDED.fix_time) >= (p.session_epoch, p.fix_time)))),
            last_seen_at = greatest(p.last_seen_at, EXCLUDED.last_seen_at),
            session_epoch = EXCLUDED.session_epoch
        WHERE EXCLUDED.session_epoch >= p.session_epoch";
    GET = "SELECT p.driver_id, p.lat, p.lon, p.fix_time, p.last_seen_at, p.session_epoch,
               (extract(epoch FROM clock_timestamp() - p.last_seen_at) * 1000)::bigint AS silent_ms
        FROM driver_positions p WHERE p.driver_id = ANY($1)";
    IN_BOX = "SELECT p.driver_id, p.lat, p.lon, p.fix_time
        FROM driver_positions p JOIN drivers d ON d.id = p.driver_id
        WHERE point(p.lon, p.lat) <@ box(point($1, $2), point($3, $4))
          AND d.status = 'AVAILABLE'
          AND p.last_seen_at > clock_timestamp() - make_interval(secs => $5::double precision)
          AND p.fix_time > clock_timestamp() - make_interval(secs => $6::double precision)
          AND NOT (p.driver_id = ANY($7))
        ORDER BY sin(radians(p.lat - $8) / 2) ^ 2
               + cos(radians(p.lat)) * cos(radians($8)) * sin(radians(p.lon - $9) / 2) ^ 2, p.driver_id
        LIMIT $10";
}

/// Stores many at once; an older session never overwrites a newer one, nor an older fix a newer one. One entry a driver. One
/// who is no longer known is left out: the others must not fail with them.
#[tracing::instrument(level = "trace", skip_all)]
pub async fn upsert(conn: &mut PgConnection, heartbeats: &[Heartbeat]) -> Result<(), StoreError> {
    let mut ids = Vec::with_capacity(heartbeats.len());
    let (mut lats, mut lons, mut times) = (Vec::new(), Vec::new(), Vec::new());
    let (mut ages, mut epochs) = (Vec::new(), Vec::new());
    for heartbeat in heartbeats {
        ids.push(heartbeat.driver_id.0);
        lats.push(heartbeat.fix.map(|f| f.position.lat()));
        lons.push(heartbeat.fix.map(|f| f.position.lon()));
        times.push(heartbeat.fix.map(|f| f.time));
        ages.push(heartbeat.received.elapsed().as_millis() as i64);
        epochs.push(heartbeat.session_epoch);
    }
    query(UPSERT).bind(ids).bind(lats).bind(lons).bind(times).bind(ages).bind(epochs).execute(conn).await?;
    Ok(())
}

/// The stored position of a driver.
#[derive(Clone, Copy, Debug)]
pub struct StoredPosition {
    /// The driver.
    pub driver_id: DriverId,
    /// The last fix, if there is one.
    pub fix: Option<Fix>,
    /// When the last heartbeat was received, by the database's clock.
    pub last_seen_at: DateTime<Utc>,
    /// The age of the last heartbeat, in milliseconds.
    pub silent_ms: i64,
    /// The epoch of the session that sent the last heartbeat.
    pub session_epoch: i64,
}

#[derive(FromRow)]
struct Row {
    driver_id: Uuid,
    lat: Option<f64>,
    lon: Option<f64>,
    fix_time: Option<DateTime<Utc>>,
    last_seen_at: DateTime<Utc>,
    session_epoch: i64,
    silent_ms: i64,
}

fn fix_of(lat: f64, lon: f64, time: DateTime<Utc>) -> Result<Fix, StoreError> {
    Ok(Fix { position: Position::new(lat, lon).map_err(StoreError::corrupt)?, time })
}

/// The stored positions of some drivers; drivers without a heartbeat are left out.
pub async fn get(conn: &mut PgConnection, ids: &[DriverId]) -> Result<Vec<StoredPosition>, StoreError> {
    let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
    let rows: Vec<Row> = query_as(GET).bind(ids).fetch_all(conn).await?;
    rows.into_iter()
        .map(|row| {
            let fix = match (row.lat, row.lon, row.fix_time) {
                (Some(lat), Some(lon), Some(time)) => Some(fix_of(lat, lon, time)?),
                _ => None,
            };
            Ok(StoredPosition {
                driver_id: DriverId(row.driver_id),
                fix,
                last_seen_at: row.last_seen_at,
                silent_ms: row.silent_ms,
                session_epoch: row.session_epoch,
            })
        })
        .collect()
}

/// A search inside one box.
#[derive(Clone, Debug)]
pub struct BoxSearch<'a> {
    /// The point from which distances are measured.
    pub centre: Position,
    /// The box.
    pub area: BoundingBox,
    /// The largest age of a driver's last heartbeat, in seconds.
    pub seen_within_s: f64,
    /// The largest age of a driver's fix, in seconds.
    pub fix_within_s: f64,
    /// Drivers who are left out.
    pub excluded: &'a [DriverId],
    /// The largest number of drivers to return.
    pub limit: i64,
}

/// Returns the AVAILABLE drivers in a box with a recent heartbeat and a recent fix, nearest first.
///
/// The filters apply before the limit.
pub async fn available_in_box(
    conn: &mut PgConnection,
    search: &BoxSearch<'_>,
) -> Result<Vec<(DriverId, Fix)>, StoreError> {
    let excluded: Vec<Uuid> = search.excluded.iter().map(|id| id.0).collect();
    let rows: Vec<(Uuid, f64, f64, DateTime<Utc>)> = query_as(IN_BOX)
        .bind(search.area.min_lon)
        .bind(search.area.min_lat)
        .bind(search.area.max_lon)
        .bind(search.area.max_lat)
        .bind(search.seen_within_s)
        .bind(search.fix_within_s)
        .bind(excluded)
        .bind(search.centre.lat())
        .bind(search.centre.lon())
        .bind(search.limit)
        .fetch_all(conn)
        .await?;
    rows.into_iter().map(|(id, lat, lon, time)| Ok((DriverId(id), fix_of(lat, lon, time)?))).collect()
}
