//! Stores the tracks of deliveries: the fixes of drivers during their assignments.
//!
//! - The key of a fix is the driver and the time. Deliveries of one driver share their fixes. The table `assignments` decides
//!   which fix belongs to which delivery.
//! - Only fixes within an assignment are stored.
//! - A repeated fix is stored once.

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;

use super::StoreError;
use super::statement::{query, query_as, query_scalar};
use crate::domain::ids::{AssignmentId, DeliveryId, DriverId};
use crate::domain::position::Fix;

statements! {
    // Only fixes within an assignment are stored: an active one, or one of the last days for fixes that arrive late.
    // A fix counts as stored if the same position exists within a millisecond, because a sender may round its time or cut it
    // to milliseconds.
    // Another position of the same millisecond is stored a microsecond later. So the key stays unique and the order of arrival
    // is kept.
    RECORD = "WITH new AS (
            SELECT u.driver_id, u.fix_time, u.lat, u.lon, u.arrival
            FROM unnest($1::uuid[], $2::timestamptz[], $3::double precision[], $4::double precision[])
                 WITH ORDINALITY AS u (driver_id, fix_time, lat, lon, arrival)
            WHERE (EXISTS (SELECT 1 FROM assignments a WHERE a.driver_id = u.driver_id AND a.state = 'ACTIVE'
                           AND a.created_at <= u.fix_time)
                OR EXISTS (SELECT 1 FROM assignments a WHERE a.driver_id = u.driver_id AND a.ended_at >= u.fix_time
                           AND a.created_at <= u.fix_time AND a.created_at > u.fix_time - interval '2 days'))
              AND NOT EXISTS (SELECT 1 FROM delivery_track t WHERE t.driver_id = u.driver_id AND t.lat = u.lat AND t.lon = u.lon
                              AND t.fix_time >= u.fix_time - interval '1 ms' AND t.fix_time < u.fix_time + interval '2 ms')),
        placed AS (
            SELECT n.driver_id, n.lat, n.lon, n.fix_time,
                   row_number() OVER (PARTITION BY n.driver_id, n.fix_time ORDER BY n.arrival) + coalesce((
                       SELECT max((extract(microseconds FROM t.fix_time))::bigint % 1000) FROM delivery_track t
                       WHERE t.driver_id = n.driver_id AND t.fix_time >= n.fix_time
                         AND t.fix_time < n.fix_time + interval '1 ms'), -1) AS micros
            FROM new n)
        INSERT INTO delivery_track (driver_id, fix_time, lat, lon)
        SELECT p.driver_id, p.fix_time + p.micros * interval '1 microsecond', p.lat, p.lon FROM placed p
        WHERE p.micros < 1000
        ORDER BY 1, 2
        ON CONFLICT (driver_id, fix_time) DO NOTHING";
    OF_DELIVERY = "SELECT a.id, a.driver_id, a.attempt, t.fix_time, t.lat, t.lon
        FROM assignments a JOIN delivery_track t ON t.driver_id = a.driver_id AND t.fix_time >= a.created_at
             AND t.fix_time <= coalesce(a.ended_at, 'infinity')
        WHERE a.delivery_id = $1 ORDER BY a.attempt, a.created_at, a.id, t.fix_time LIMIT $2";
    MAKE_DAY = "SELECT make_delivery_track_day((clock_timestamp() AT TIME ZONE 'UTC')::date + $1::integer)";
    DROP_DAYS = "SELECT gone, kept FROM drop_delivery_track_days_before(
        (clock_timestamp() AT TIME ZONE 'UTC' - make_interval(days => $1::integer))::date)";
    // now() is the same for every row, so that PostgreSQL uses the index.
    FORGET_OTHERS = "DELETE FROM delivery_track_other WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM delivery_track_other
        WHERE fix_time < date_trunc('day', now() AT TIME ZONE 'UTC' - make_interval(days => $1::integer)) AT TIME ZONE 'UTC'
        LIMIT $2))";
}

/// Returns the fixes to store, with times in whole milliseconds. A fix that arrived several times, or with several spellings of
/// its time, has one entry.
fn distinct(fixes: &[(DriverId, Fix)]) -> Vec<(DriverId, Fix)> {
    let cut = |fix: &Fix| Fix { time: fix.time.trunc_subsecs(3), ..*fix };
    let mut sorted: Vec<_> = fixes.iter().map(|(driver, fix)| (*driver, cut(fix))).collect();
    // The sort is stable. Fixes of one millisecond stay in the order of arrival.
    sorted.sort_by_key(|(driver, fix)| (driver.0, fix.time));
    let mut kept: Vec<(DriverId, Fix)> = Vec::with_capacity(sorted.len());
    for (driver, fix) in sorted {
        let mut near = kept
            .iter()
            .rev()
            .take_while(|(other, before)| *other == driver && fix.time - before.time <= TimeDelta::milliseconds(1));
        if !near.any(|(_, before)| before.position == fix.position) {
            kept.push((driver, fix));
        }
    }
    kept
}

/// Stores the fixes that lie within an assignment of their driver, and no others. Returns the number of stored fixes. A repeat
/// changes nothing.
pub async fn record(conn: &mut PgConnection, fixes: &[(DriverId, Fix)]) -> Result<u64, StoreError> {
    let fixes = distinct(fixes);
    let drivers: Vec<Uuid> = fixes.iter().map(|(driver, _)| driver.0).collect();
    let times: Vec<DateTime<Utc>> = fixes.iter().map(|(_, fix)| fix.time).collect();
    let lats: Vec<f64> = fixes.iter().map(|(_, fix)| fix.position.lat()).collect();
    let lons: Vec<f64> = fixes.iter().map(|(_, fix)| fix.position.lon()).collect();
    Ok(query(RECORD).bind(drivers).bind(times).bind(lats).bind(lons).execute(conn).await?.rows_affected())
}

/// One fix of a delivery's track.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TrackPoint {
    /// The assignment of the delivery to the driver.
    pub assignment_id: AssignmentId,
    /// The driver.
    pub driver_id: DriverId,
    /// The number of the delivery's attempt.
    pub attempt: i32,
    /// Latitude in degrees.
    pub lat: f64,
    /// Longitude in degrees.
    pub lon: f64,
    /// When the device measured the position.
    pub time: DateTime<Utc>,
}

#[derive(FromRow)]
struct Row {
    id: Uuid,
    driver_id: Uuid,
    attempt: i32,
    fix_time: DateTime<Utc>,
    lat: f64,
    lon: f64,
}

/// Returns the first `limit` fixes of a delivery, sorted by assignment and time.
pub async fn of_delivery(
    conn: &mut PgConnection,
    delivery: DeliveryId,
    limit: i64,
) -> Result<Vec<TrackPoint>, StoreError> {
    let rows: Vec<Row> = query_as(OF_DELIVERY).bind(delivery.0).bind(limit).fetch_all(conn).await?;
    let point = |row: Row| TrackPoint {
        assignment_id: AssignmentId(row.id),
        driver_id: DriverId(row.driver_id),
        attempt: row.attempt,
        lat: row.lat,
        lon: row.lon,
        time: row.fix_time,
    };
    Ok(rows.into_iter().map(point).collect())
}

/// Creates the partition of the day that is `days_ahead` days after today (UTC), if it does not exist. Returns `false` if the
/// role may not create it. Fixes of that day then go into the default partition.
pub async fn make_day(conn: &mut PgConnection, days_ahead: i32) -> Result<bool, StoreError> {
    Ok(query_scalar(MAKE_DAY).bind(days_ahead).fetch_one(conn).await?)
}

/// Drops the partitions of days that ended more than `days` days ago. Returns the number of dropped partitions, and the number
/// of kept ones. A partition is kept if it belongs to another role or is being read.
pub async fn drop_days(conn: &mut PgConnection, days: i32) -> Result<(i32, i32), StoreError> {
    Ok(query_as(DROP_DAYS).bind(days).fetch_one(conn).await?)
}

/// Deletes at most `most` fixes of those days from the default partition. Returns the number of deleted fixes.
pub async fn prune_others(conn: &mut PgConnection, days: i32, most: i64) -> Result<u64, StoreError> {
    Ok(query(FORGET_OTHERS).bind(days).bind(most).execute(conn).await?.rows_affected())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::position::Position;

    #[test]
    fn one_fix_in_several_spellings_is_one_and_two_positions_of_one_second_are_two() {
        let (driver, other) = (DriverId::new(), DriverId::new());
        let fix = |micros: i64, lon: f64| Fix {
            position: Position::new(1.0, lon).unwrap(),
            time: DateTime::UNIX_EPOCH + TimeDelta::microseconds(micros),
        };
        let given = [
            (driver, fix(5_123_600, 1.0)),
            (driver, fix(5_123_000, 1.0)),
            (driver, fix(5_124_000, 1.0)),
            (driver, fix(7_000_000, 2.0)),
            (driver, fix(7_000_000, 1.0)),
            (driver, fix(7_000_000, 2.0)),
            (other, fix(7_000_000, 2.0)),
        ];
        let mut kept = distinct(&given);
        kept.retain(|(of, _)| *of == driver);
        let fixes: Vec<Fix> = kept.into_iter().map(|(_, fix)| fix).collect();
        assert_eq!(fixes, [fix(5_123_000, 1.0), fix(7_000_000, 2.0), fix(7_000_000, 1.0)]);
        assert_eq!(distinct(&given).len(), 4);
    }
}
