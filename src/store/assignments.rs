//! Stores assignments, and locks the chosen driver of a claim. An assignment binds one delivery to one driver.
//!
//! - Partial unique indexes allow one ACTIVE assignment for each delivery and for each slot of a driver.
//! - A claim holds the driver's row lock, so it is correct when several nodes claim at the same time.

use chrono::{DateTime, Utc};
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;

use super::StoreError;
use super::statement::{query, query_as, query_scalar};
use crate::domain::ids::{AssignmentId, DeliveryId, DriverId};

statements! {
    // The locking SELECT is in a materialized CTE. Otherwise the planner may evaluate a LIMIT around SKIP LOCKED for each row.
    LOCK_CHOSEN = "WITH chosen AS MATERIALIZED (
            SELECT d.id FROM drivers d WHERE d.id = $1 AND d.status = 'AVAILABLE' FOR NO KEY UPDATE SKIP LOCKED)
        SELECT coalesce(p.last_seen_at > clock_timestamp() - make_interval(secs => $2::double precision), false)
        FROM chosen c LEFT JOIN driver_positions p ON p.driver_id = c.id";
    IS_AVAILABLE = "SELECT EXISTS (SELECT 1 FROM drivers WHERE id = $1 AND status = 'AVAILABLE')";
    INSERT = "INSERT INTO assignments (id, delivery_id, driver_id, attempt, slot, state, distance_m, created_at)
        SELECT $1, $2, $3, $4, min(s.slot), 'ACTIVE', $5, $6
        FROM drivers d, generate_series(0, d.capacity - 1) AS s (slot)
        WHERE d.id = $3 AND NOT EXISTS (
            SELECT 1 FROM assignments a WHERE a.driver_id = $3 AND a.state = 'ACTIVE' AND a.slot = s.slot)";
    DECLINED_BY = "SELECT DISTINCT driver_id FROM assignments WHERE delivery_id = $1 AND state = 'DECLINED'";
    GET = "SELECT id, delivery_id, driver_id, state, picked_up_at, departed_at, ended_as FROM assignments WHERE id = $1";
    MARK_PICKED_UP = "UPDATE assignments SET picked_up_at = $2 WHERE id = $1";
    MARK_DEPARTED = "UPDATE assignments SET departed_at = $2 WHERE id = $1";
    END = "UPDATE assignments SET state = $2, slot = NULL, ended_as = $3, ended_at = $4
        WHERE id = $1 AND state = 'ACTIVE'";
}

/// The outcome of locking the chosen driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DriverLock {
    /// Locked: AVAILABLE with a recent heartbeat, and no other transaction can take the driver now.
    Held,
    /// Another transaction holds the lock. The driver may be available when that transaction ends.
    HeldByAnother,
    /// The driver is not AVAILABLE, or is silent.
    Unavailable,
}

/// Locks the chosen driver without waiting, and checks the driver again under the lock.
pub async fn lock_chosen_driver(
    conn: &mut PgConnection,
    driver: DriverId,
    seen_within_s: f64,
) -> Result<DriverLock, StoreError> {
    let fresh: Option<bool> =
        query_scalar(LOCK_CHOSEN).bind(driver.0).bind(seen_within_s).fetch_optional(&mut *conn).await?;
    match fresh {
        Some(true) => Ok(DriverLock::Held),
        Some(false) => Ok(DriverLock::Unavailable),
        None => {
            let available: bool = query_scalar(IS_AVAILABLE).bind(driver.0).fetch_one(conn).await?;
            Ok(if available { DriverLock::HeldByAnother } else { DriverLock::Unavailable })
        }
    }
}

/// Drivers who rejected this delivery.
pub async fn declined_by(conn: &mut PgConnection, delivery: DeliveryId) -> Result<Vec<DriverId>, StoreError> {
    let ids: Vec<Uuid> = query_scalar(DECLINED_BY).bind(delivery.0).fetch_all(conn).await?;
    Ok(ids.into_iter().map(DriverId).collect())
}

/// A new assignment. It takes the driver's lowest free slot.
#[derive(Debug, Clone, Copy)]
pub struct NewAssignment {
    /// The id of the assignment.
    pub id: AssignmentId,
    /// The delivery.
    pub delivery_id: DeliveryId,
    /// The driver.
    pub driver_id: DriverId,
    /// The number of the delivery's attempt.
    pub attempt: i32,
    /// The distance of the driver to the pickup, in metres, if it is known.
    pub distance_m: Option<f64>,
    /// The time of the assignment.
    pub at: DateTime<Utc>,
}

/// Inserts an ACTIVE assignment. The caller must hold the locks of both rows, and the driver must have a free slot.
pub async fn insert(conn: &mut PgConnection, new: &NewAssignment) -> Result<(), StoreError> {
    query(INSERT)
        .bind(new.id.0)
        .bind(new.delivery_id.0)
        .bind(new.driver_id.0)
        .bind(new.attempt)
        .bind(new.distance_m)
        .bind(new.at)
        .execute(conn)
        .await?;
    Ok(())
}

/// How an assignment ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndedAs {
    /// The delivery was handed over.
    Delivered,
    /// The delivery failed.
    Failed,
    /// The driver rejected it.
    Rejected,
    /// The service or an operator unassigned the delivery.
    Unassigned,
    /// The delivery was cancelled.
    Cancelled,
}

impl EndedAs {
    const ALL: [Self; 5] = [Self::Delivered, Self::Failed, Self::Rejected, Self::Unassigned, Self::Cancelled];

    /// The value of the column `ended_as`.
    fn parse(name: &str) -> Result<Self, StoreError> {
        let found = Self::ALL.into_iter().find(|ended_as| ended_as.columns().1 == name);
        found.ok_or_else(|| StoreError::corrupt(format!("an assignment ended as {name:?}")))
    }

    fn columns(self) -> (&'static str, &'static str) {
        match self {
            Self::Delivered => ("COMPLETED", "DELIVERED"),
            Self::Failed => ("COMPLETED", "FAILED"),
            Self::Rejected => ("DECLINED", "REJECTED"),
            Self::Unassigned => ("REVOKED", "TAKEN_BACK"),
            Self::Cancelled => ("REVOKED", "CANCELLED"),
        }
    }
}

/// An assignment, with the states that it passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// The id of the assignment.
    pub id: AssignmentId,
    /// The delivery.
    pub delivery_id: DeliveryId,
    /// The driver.
    pub driver_id: DriverId,
    /// Whether the assignment is ACTIVE.
    pub active: bool,
    /// Whether the assignment passed PICKED_UP.
    pub picked_up: bool,
    /// When the assignment passed IN_TRANSIT.
    pub departed_at: Option<DateTime<Utc>>,
    /// How it ended.
    pub ended_as: Option<EndedAs>,
}

#[derive(FromRow)]
struct Row {
    id: Uuid,
    delivery_id: Uuid,
    driver_id: Uuid,
    state: String,
    picked_up_at: Option<DateTime<Utc>>,
    departed_at: Option<DateTime<Utc>>,
    ended_as: Option<String>,
}

/// Reads an assignment.
pub async fn get(conn: &mut PgConnection, id: AssignmentId) -> Result<Option<Assignment>, StoreError> {
    let row: Option<Row> = query_as(GET).bind(id.0).fetch_optional(conn).await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(Assignment {
        id: AssignmentId(row.id),
        delivery_id: DeliveryId(row.delivery_id),
        driver_id: DriverId(row.driver_id),
        active: row.state == "ACTIVE",
        picked_up: row.picked_up_at.is_some(),
        departed_at: row.departed_at,
        ended_as: row.ended_as.as_deref().map(EndedAs::parse).transpose()?,
    }))
}

/// Records when the driver picked the goods up.
pub async fn mark_picked_up(conn: &mut PgConnection, id: AssignmentId, at: DateTime<Utc>) -> Result<(), StoreError> {
    query(MARK_PICKED_UP).bind(id.0).bind(at).execute(conn).await?;
    Ok(())
}

/// Records when the driver started for the drop.
pub async fn mark_departed(conn: &mut PgConnection, id: AssignmentId, at: DateTime<Utc>) -> Result<(), StoreError> {
    query(MARK_DEPARTED).bind(id.0).bind(at).execute(conn).await?;
    Ok(())
}

/// Ends an ACTIVE assignment and frees its slot.
pub async fn end(
    conn: &mut PgConnection,
    id: AssignmentId,
    ended_as: EndedAs,
    at: DateTime<Utc>,
) -> Result<(), StoreError> {
    let (state, name) = ended_as.columns();
    let done = query(END).bind(id.0).bind(state).bind(name).bind(at).execute(conn).await?;
    if done.rows_affected() == 1 { Ok(()) } else { Err(StoreError::Corrupt(format!("assignment {id} was not active"))) }
}
