//! Commands to drivers.
//!
//! - A command is written in the transaction of the change that it reports.
//! - A command is repeated until the driver acknowledges it. Repeats have the same message id.

use sqlx::{FromRow, PgConnection};
use uuid::Uuid;

use super::StoreError;
use super::deliveries::{self, Delivery};
use super::statement::{query, query_as};
use crate::domain::ids::{AssignmentId, DeliveryId, DriverId, MessageId};

statements! {
    INSERT = "INSERT INTO driver_commands (message_id, driver_id, kind, delivery_id, assignment_id, reason)
        VALUES ($1, $2, $3, $4, $5, $6)";
    // An `assignment` command of an assignment that has ended is not sent. Every other command is sent.
    UNACKED = concat!("SELECT c.message_id, c.driver_id AS to_driver, c.kind, c.assignment_id AS by_assignment, c.reason, ",
        delivery_columns!(), "
        FROM unnest($1::uuid[]) AS u (driver_id)
        CROSS JOIN LATERAL (
            SELECT c.* FROM driver_commands c JOIN assignments a ON a.id = c.assignment_id
            WHERE c.driver_id = u.driver_id AND c.acked_at IS NULL AND (c.kind <> 'assignment' OR a.state = 'ACTIVE')
            ORDER BY c.message_id DESC LIMIT $2) AS c
        JOIN deliveries d ON d.id = c.delivery_id
        ORDER BY c.message_id");
    ACK = "UPDATE driver_commands SET acked_at = clock_timestamp()
        WHERE message_id = $1 AND driver_id = $2 AND acked_at IS NULL";
    PRUNE = "DELETE FROM driver_commands WHERE message_id IN (
        SELECT c.message_id FROM driver_commands c JOIN assignments a ON a.id = c.assignment_id
        WHERE c.created_at < clock_timestamp() - interval '3 days' AND a.state <> 'ACTIVE'
          AND (c.acked_at IS NOT NULL OR c.kind = 'assignment') LIMIT 1000)";
}

/// The kind of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommandKind {
    /// The delivery is assigned to the driver.
    Assignment,
    /// The delivery is no longer assigned to the driver.
    AssignmentCancelled,
    /// The delivery changed.
    Delivery,
}

impl CommandKind {
    /// The wire and database name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Assignment => "assignment",
            Self::AssignmentCancelled => "assignment.cancelled",
            Self::Delivery => "delivery",
        }
    }

    fn parse(text: &str) -> Result<Self, StoreError> {
        [Self::Assignment, Self::AssignmentCancelled, Self::Delivery]
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| StoreError::Corrupt(format!("command kind {text:?}")))
    }
}

/// A command, with the present state of its delivery.
#[derive(Debug, Clone)]
pub struct Command {
    /// The id of the command. It is the same on every repetition.
    pub message_id: MessageId,
    /// The driver who receives the command.
    pub driver_id: DriverId,
    /// The kind of the command.
    pub kind: CommandKind,
    /// The assignment of the delivery to the driver.
    pub assignment_id: AssignmentId,
    /// Why the assignment was cancelled.
    pub reason: Option<String>,
    /// The delivery.
    pub delivery: Delivery,
}

#[derive(FromRow)]
struct Row {
    message_id: Uuid,
    to_driver: Uuid,
    kind: String,
    by_assignment: Uuid,
    reason: Option<String>,
    #[sqlx(flatten)]
    delivery: deliveries::Row,
}

impl TryFrom<Row> for Command {
    type Error = StoreError;
    fn try_from(row: Row) -> Result<Self, StoreError> {
        Ok(Self {
            message_id: MessageId(row.message_id),
            driver_id: DriverId(row.to_driver),
            kind: CommandKind::parse(&row.kind)?,
            assignment_id: AssignmentId(row.by_assignment),
            reason: row.reason,
            delivery: row.delivery.try_into()?,
        })
    }
}

/// Writes a command.
pub async fn insert(
    conn: &mut PgConnection,
    driver: DriverId,
    kind: CommandKind,
    delivery: DeliveryId,
    assignment: AssignmentId,
    reason: Option<&str>,
) -> Result<(), StoreError> {
    query(INSERT)
        .bind(MessageId::new().0)
        .bind(driver.0)
        .bind(kind.as_str())
        .bind(delivery.0)
        .bind(assignment.0)
        .bind(reason)
        .execute(conn)
        .await?;
    Ok(())
}

/// Returns the commands that the given drivers have not acknowledged: the newest `limit` of each driver, oldest first.
pub async fn unacked(conn: &mut PgConnection, drivers: &[DriverId], limit: i64) -> Result<Vec<Command>, StoreError> {
    let drivers: Vec<Uuid> = drivers.iter().map(|driver| driver.0).collect();
    let rows: Vec<Row> = query_as(UNACKED).bind(drivers).bind(limit).fetch_all(conn).await?;
    rows.into_iter().map(Command::try_from).collect()
}

/// Records that the driver acknowledged a command. An unknown id, or the id of another driver's command, changes nothing.
pub async fn ack(conn: &mut PgConnection, driver: DriverId, message: MessageId) -> Result<(), StoreError> {
    query(ACK).bind(message.0).bind(driver.0).execute(conn).await?;
    Ok(())
}

/// Deletes commands that are older than three days and whose assignment has ended, at most 1000. Returns their number.
pub async fn prune(conn: &mut PgConnection) -> Result<u64, StoreError> {
    Ok(query(PRUNE).execute(conn).await?.rows_affected())
}
