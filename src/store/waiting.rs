//! Reads the orders that wait for a driver, oldest first, and postpones their next search.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use super::StoreError;
use super::statement::{query, query_as, query_scalar};
use crate::domain::ids::DeliveryId;
use crate::domain::position::Position;
use crate::domain::region::Region;

statements! {
    WAITING_REGIONS = "SELECT region FROM deliveries WHERE status = 'PENDING' AND next_attempt_at <= clock_timestamp()
        GROUP BY region ORDER BY min(created_at)";
    WAITING = "SELECT d.id, d.pickup_lat, d.pickup_lon, d.search_rounds, d.attempt, d.created_at FROM deliveries d
        WHERE d.status = 'PENDING' AND d.region = $1 AND d.next_attempt_at <= clock_timestamp()
          AND ($2::timestamptz IS NULL OR (d.created_at, d.id) > ($2, $3))
        ORDER BY d.created_at, d.id LIMIT $4";
    WAITING_NEAR = "SELECT d.id, d.pickup_lat, d.pickup_lon, d.search_rounds, d.attempt, d.created_at FROM deliveries d
        WHERE d.status = 'PENDING' AND d.pickup_lat BETWEEN $1 AND $2
          AND (d.pickup_lon BETWEEN $3 AND $4 OR d.pickup_lon BETWEEN $5 AND $6)
          AND ($7::timestamptz IS NULL OR (d.created_at, d.id) > ($7, $8))
        ORDER BY d.created_at, d.id LIMIT $9";
    PICKUPS = "SELECT pickup_lat, pickup_lon FROM deliveries WHERE status = 'PENDING' LIMIT $1";
    POSTPONE = "UPDATE deliveries SET search_rounds = search_rounds + 1,
               next_attempt_at = clock_timestamp() + make_interval(secs => $2::double precision)
        WHERE id IN (SELECT id FROM deliveries WHERE id = ANY($1) AND status = 'PENDING'
                     ORDER BY id FOR NO KEY UPDATE SKIP LOCKED)";
}

/// Returns every region with an order that is due for a search. The region of the oldest order is first.
pub async fn regions(conn: &mut PgConnection) -> Result<Vec<Region>, StoreError> {
    let cells: Vec<i64> = query_scalar(WAITING_REGIONS).fetch_all(conn).await?;
    cells.into_iter().map(|cell| Region::from_i64(cell).map_err(StoreError::corrupt)).collect()
}

/// Returns the pickups of up to `limit` waiting orders.
pub async fn pickups(conn: &mut PgConnection, limit: i64) -> Result<Vec<Position>, StoreError> {
    let rows: Vec<(f64, f64)> = query_as(PICKUPS).bind(limit).fetch_all(conn).await?;
    rows.into_iter().map(|(lat, lon)| Position::new(lat, lon).map_err(StoreError::corrupt)).collect()
}

/// An order that waits for a driver.
#[derive(Clone, Copy, Debug)]
pub struct WaitingOrder {
    /// The id of the delivery.
    pub id: DeliveryId,
    /// The position of the pickup.
    pub pickup: Position,
    /// The number of searches since the order began to wait.
    pub search_rounds: i32,
    /// The number of the attempt. Above 1, the order was unassigned or retried before.
    pub attempt: i32,
    /// When the order arrived.
    pub created_at: DateTime<Utc>,
}

type WaitingRow = (Uuid, f64, f64, i32, i32, DateTime<Utc>);

fn waiting_order((id, lat, lon, search_rounds, attempt, created_at): WaitingRow) -> Result<WaitingOrder, StoreError> {
    let pickup = Position::new(lat, lon).map_err(StoreError::corrupt)?;
    Ok(WaitingOrder { id: DeliveryId(id), pickup, search_rounds, attempt, created_at })
}

/// Returns a page of the region's due orders after `after`, oldest first.
pub async fn of_region(
    conn: &mut PgConnection,
    region: Region,
    after: Option<&WaitingOrder>,
    limit: i64,
) -> Result<Vec<WaitingOrder>, StoreError> {
    let rows: Vec<WaitingRow> = query_as(WAITING)
        .bind(region.as_i64())
        .bind(after.map(|o| o.created_at))
        .bind(after.map(|o| o.id.0))
        .bind(limit)
        .fetch_all(conn)
        .await?;
    rows.into_iter().map(waiting_order).collect()
}

/// Returns a page of the orders that wait near a place, due or not, after `after`, oldest first.
///
/// The page may have orders that are farther away than `radius_m`: it has every order inside the bounding boxes.
pub async fn near(
    conn: &mut PgConnection,
    place: &Position,
    radius_m: f64,
    after: Option<&WaitingOrder>,
    limit: i64,
) -> Result<Vec<WaitingOrder>, StoreError> {
    let boxes = place.boxes_around(radius_m);
    let (first, second) = (boxes[0], boxes[boxes.len() - 1]);
    let rows: Vec<WaitingRow> = query_as(WAITING_NEAR)
        .bind(first.min_lat)
        .bind(first.max_lat)
        .bind(first.min_lon)
        .bind(first.max_lon)
        .bind(second.min_lon)
        .bind(second.max_lon)
        .bind(after.map(|o| o.created_at))
        .bind(after.map(|o| o.id.0))
        .bind(limit)
        .fetch_all(conn)
        .await?;
    rows.into_iter().map(waiting_order).collect()
}

/// Postpones the next search of orders for which no driver was found.
pub async fn postpone(conn: &mut PgConnection, ids: &[DeliveryId], seconds: f64) -> Result<(), StoreError> {
    let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
    query(POSTPONE).bind(ids).bind(seconds).execute(conn).await?;
    Ok(())
}
