//! The state of things in a few numbers, for people.

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

/// A few numbers.
#[derive(Debug, Clone, Copy, FromRow)]
pub struct Overview {
    /// Drivers who want to work.
    pub on_duty: i64,
    /// Drivers with every slot taken.
    pub busy: i64,
    /// Orders without a driver.
    pub waiting: i64,
    /// Orders with one.
    pub under_way: i64,
    /// Orders handed over.
    pub delivered: i64,
}

/// Reads them.
pub async fn read(conn: &mut PgConnection) -> Result<Overview, StoreError> {
    Ok(query_as(READ).fetch_one(conn).await?)
}

/// Orders without a driver; reads no more than them.
pub async fn waiting(conn: &mut PgConnection) -> Result<i64, StoreError> {
    Ok(query_scalar(WAITING).fetch_one(conn).await?)
}
