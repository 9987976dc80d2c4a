//! Counts drivers and deliveries for an overview that people read.

use sqlx::{FromRow, PgConnection};

use super::StoreError;
use super::statement::{query_as, query_scalar};

statements! {
    READ = "SELECT (SELECT count(*) FROM drivers WHERE on_duty) AS on_duty,
               (SELECT count(*) FROM drivers WHERE status = 'BUSY') AS busy,
               (SELECT count(*) FROM deliveries WHERE status = 'PENDING') AS waiting,
               (SELECT count(*) FROM deliveries WHERE status IN ('ASSIGNED', 'PICKED_UP', 'IN_TRANSIT')) AS under_way,
               (SELECT count(*) FROM deliveries WHERE status = 'DELIVERED') AS delivered";
    WAITING = "SELECT count(*) FROM deliveries WHERE status = 'PENDING'";
}

/// The numbers of the overview.
#[derive(Debug, Clone, Copy, FromRow)]
pub struct Overview {
    /// The number of drivers on duty.
    pub on_duty: i64,
    /// The number of drivers without a free slot.
    pub busy: i64,
    /// The number of deliveries that wait for a driver.
    pub waiting: i64,
    /// The number of deliveries that have a driver and have not ended.
    pub under_way: i64,
    /// The number of deliveries that were handed over.
    pub delivered: i64,
}

/// Counts everything.
pub async fn read(conn: &mut PgConnection) -> Result<Overview, StoreError> {
    Ok(query_as(READ).fetch_one(conn).await?)
}

/// Counts only the deliveries that wait for a driver. It reads no other rows.
pub async fn waiting(conn: &mut PgConnection) -> Result<i64, StoreError> {
    Ok(query_scalar(WAITING).fetch_one(conn).await?)
}
