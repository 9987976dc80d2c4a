//! Stores deliveries. A delivery is an order on its way from a pickup to a drop.
//!
//! A shop's seller order has at most one delivery: a unique constraint ensures it.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::types::Json;
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;

use super::StoreError;
use super::json::exact;
use super::statement::{query, query_as, query_scalar};
use crate::domain::delivery::DeliveryStatus;
use crate::domain::ids::{AssignmentId, DeliveryId, DriverId, ShopName};
use crate::domain::order::{NewOrder, Stop, StopDetails};
use crate::domain::position::Position;
use crate::domain::region::Region;

statements! {
    // The advisory lock makes this wait for a transaction that stores an early cancellation of the same order.
    INSERT = concat!("WITH turn AS MATERIALIZED (SELECT pg_advisory_xact_lock(hashtextextended($2 || '/' || $3, 0)))
        INSERT INTO deliveries AS d (id, shop, seller_order_id, channel_id, order_code, external_id, metadata, seller,
               items, ready_at, pickup_lat, pickup_lon, pickup_details, drop_lat, drop_lon, drop_details, status, region)
        SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, 'PENDING', $17 FROM turn
        ON CONFLICT ON CONSTRAINT deliveries_one_per_order DO NOTHING RETURNING ", delivery_columns!());
    TURN = "SELECT pg_advisory_xact_lock(hashtextextended($1 || '/' || $2, 0))";
    GET = concat!("SELECT ", delivery_columns!(), " FROM deliveries d WHERE d.id = $1");
    GET_BY_ORDER = concat!("SELECT ", delivery_columns!(), " FROM deliveries d
        WHERE d.shop = $1 AND d.seller_order_id = $2");
    LOCK = concat!("SELECT ", delivery_columns!(), " FROM deliveries d WHERE d.id = $1 FOR NO KEY UPDATE");
    LOCK_BY_ORDER = concat!("SELECT ", delivery_columns!(), " FROM deliveries d
        WHERE d.shop = $1 AND d.seller_order_id = $2 FOR NO KEY UPDATE");
    LOCK_PENDING = concat!("SELECT ", delivery_columns!(), " FROM deliveries d
        WHERE d.id = $1 AND d.status = 'PENDING' FOR NO KEY UPDATE SKIP LOCKED");
    LOCK_OF_DRIVER = concat!("SELECT ", delivery_columns!(), " FROM deliveries d
        WHERE d.driver_id = $1 AND d.status IN ('ASSIGNED', 'PICKED_UP', 'IN_TRANSIT')
        ORDER BY d.id FOR NO KEY UPDATE");
    ACTIVE_OF_DRIVER = concat!("SELECT ", delivery_columns!(), " FROM deliveries d
        WHERE d.driver_id = $1 AND d.status IN ('ASSIGNED', 'PICKED_UP', 'IN_TRANSIT') ORDER BY d.assigned_at, d.id");
    NOW = "SELECT clock_timestamp()";
    UPDATE_STATE = "UPDATE deliveries SET status = $2, attempt = $3, driver_id = $4, assignment_id = $5,
               assigned_at = $6, picked_up_at = $7, delivered_at = $8, cancelled_at = $9, failure = $10,
               search_rounds = $11, next_attempt_at = clock_timestamp(), updated_at = clock_timestamp() WHERE id = $1";
    LIST = concat!("SELECT ", delivery_columns!(), " FROM deliveries d
        WHERE ($1::text[] IS NULL OR d.status = ANY($1)) AND ($2::uuid IS NULL OR d.driver_id = $2)
          AND ($3::text IS NULL OR d.shop = $3) AND ($4::text IS NULL OR d.seller_order_id = $4)
          AND ($5::text IS NULL OR d.external_id = $5) AND ($6::timestamptz IS NULL OR d.created_at >= $6)
          AND ($7::timestamptz IS NULL OR d.created_at < $7) AND ($8::timestamptz IS NULL OR d.updated_at >= $8)
          AND ($9::timestamptz IS NULL OR (d.created_at, d.id) < ($9, $10))
        ORDER BY d.created_at DESC, d.id DESC LIMIT $11");
}

/// A row of the table `deliveries`.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The id of the delivery.
    pub id: DeliveryId,
    /// The shop that sent the order.
    pub shop: String,
    /// The shop's id of the order.
    pub seller_order_id: String,
    /// The shop's channel.
    pub channel_id: String,
    /// The code of the order that people use.
    pub order_code: Option<String>,
    /// An id that the sender chose.
    pub external_id: Option<String>,
    /// JSON that the sender chose.
    pub metadata: Option<Value>,
    /// The lines of the order.
    pub items: Option<Value>,
    /// When the goods are ready.
    pub ready_at: Option<DateTime<Utc>>,
    /// Where the driver picks the goods up.
    pub pickup: Stop,
    /// Where the driver hands the goods over.
    pub drop: Stop,
    /// The state of the delivery.
    pub status: DeliveryStatus,
    /// The number of the attempt. It grows when the delivery is unassigned or retried.
    pub attempt: i32,
    /// The region of the pickup.
    pub region: Region,
    /// The number of searches since the delivery began to wait.
    pub search_rounds: i32,
    /// The driver who has the delivery, or had it when it ended.
    pub driver_id: Option<DriverId>,
    /// The assignment of that driver.
    pub assignment_id: Option<AssignmentId>,
    /// When the delivery was assigned to that driver.
    pub assigned_at: Option<DateTime<Utc>>,
    /// When the driver picked the goods up.
    pub picked_up_at: Option<DateTime<Utc>>,
    /// When the driver handed the goods over.
    pub delivered_at: Option<DateTime<Utc>>,
    /// When the delivery was cancelled.
    pub cancelled_at: Option<DateTime<Utc>>,
    /// Why the delivery failed: `{code, reason?, occurredAt}`.
    pub failure: Option<Value>,
    /// When the order arrived.
    pub created_at: DateTime<Utc>,
    /// When the delivery last changed.
    pub updated_at: DateTime<Utc>,
}

#[derive(FromRow)]
pub(super) struct Row {
    id: Uuid,
    shop: String,
    seller_order_id: String,
    channel_id: String,
    order_code: Option<String>,
    external_id: Option<String>,
    metadata: Option<Value>,
    items: Option<Value>,
    ready_at: Option<DateTime<Utc>>,
    pickup_lat: f64,
    pickup_lon: f64,
    pickup_details: Json<StopDetails>,
    drop_lat: f64,
    drop_lon: f64,
    drop_details: Json<StopDetails>,
    status: String,
    attempt: i32,
    region: i64,
    search_rounds: i32,
    driver_id: Option<Uuid>,
    assignment_id: Option<Uuid>,
    assigned_at: Option<DateTime<Utc>>,
    picked_up_at: Option<DateTime<Utc>>,
    delivered_at: Option<DateTime<Utc>>,
    cancelled_at: Option<DateTime<Utc>>,
    failure: Option<Value>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

fn stop(lat: f64, lon: f64, details: StopDetails) -> Result<Stop, StoreError> {
    Ok(Stop { position: Position::new(lat, lon).map_err(StoreError::corrupt)?, details })
}

impl TryFrom<Row> for Delivery {
    type Error = StoreError;
    fn try_from(row: Row) -> Result<Self, StoreError> {
        Ok(Self {
            id: DeliveryId(row.id),
            shop: row.shop,
            seller_order_id: row.seller_order_id,
            channel_id: row.channel_id,
            order_code: row.order_code,
            external_id: row.external_id,
            metadata: row.metadata,
            items: row.items,
            ready_at: row.ready_at,
            pickup: stop(row.pickup_lat, row.pickup_lon, row.pickup_details.0)?,
            drop: stop(row.drop_lat, row.drop_lon, row.drop_details.0)?,
            status: row.status.parse().map_err(StoreError::corrupt)?,
            attempt: row.attempt,
            region: Region::from_i64(row.region).map_err(StoreError::corrupt)?,
            search_rounds: row.search_rounds,
            driver_id: row.driver_id.map(DriverId),
            assignment_id: row.assignment_id.map(AssignmentId),
            assigned_at: row.assigned_at,
            picked_up_at: row.picked_up_at,
            delivered_at: row.delivered_at,
            cancelled_at: row.cancelled_at,
            failure: row.failure,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}

fn one(row: Option<Row>) -> Result<Option<Delivery>, StoreError> {
    row.map(Delivery::try_from).transpose()
}

/// Inserts an order as PENDING. Returns `None` if the shop sent the order before. The existing row is then committed and
/// visible.
pub async fn insert(
    conn: &mut PgConnection,
    shop: &ShopName,
    order: &NewOrder,
    region: Region,
) -> Result<Option<Delivery>, StoreError> {
    let row: Option<Row> = query_as(INSERT)
        .bind(DeliveryId::new().0)
        .bind(shop.as_str())
        .bind(order.seller_order_id.as_str())
        .bind(order.channel_id.as_str())
        .bind(&order.order_code)
        .bind(order.external_id.as_ref().map(|id| id.as_str()))
        .bind(order.metadata.as_ref().map(exact))
        .bind(order.seller.as_ref().map(Json))
        .bind(order.items.as_ref().map(Json))
        .bind(order.ready_at)
        .bind(order.pickup.position.lat())
        .bind(order.pickup.position.lon())
        .bind(Json(&order.pickup.details))
        .bind(order.drop.position.lat())
        .bind(order.drop.position.lon())
        .bind(Json(&order.drop.details))
        .bind(region.as_i64())
        .fetch_optional(conn)
        .await?;
    one(row)
}

/// Locks the key of an order until the transaction ends. Waits until no other transaction handles the order's arrival or
/// cancellation.
pub async fn take_turn(conn: &mut PgConnection, shop: &ShopName, seller_order_id: &str) -> Result<(), StoreError> {
    query(TURN).bind(shop.as_str()).bind(seller_order_id).execute(conn).await?;
    Ok(())
}

/// Reads a delivery.
pub async fn get(conn: &mut PgConnection, id: DeliveryId) -> Result<Option<Delivery>, StoreError> {
    one(query_as(GET).bind(id.0).fetch_optional(conn).await?)
}

/// Reads the delivery of a shop's order.
pub async fn get_by_order(
    conn: &mut PgConnection,
    shop: &ShopName,
    seller_order_id: &str,
) -> Result<Option<Delivery>, StoreError> {
    one(query_as(GET_BY_ORDER).bind(shop.as_str()).bind(seller_order_id).fetch_optional(conn).await?)
}

/// Reads a delivery and locks its row. Waits for a transaction that holds the lock.
pub async fn lock(conn: &mut PgConnection, id: DeliveryId) -> Result<Option<Delivery>, StoreError> {
    one(query_as(LOCK).bind(id.0).fetch_optional(conn).await?)
}

/// Reads the delivery of a shop's order and locks its row. Waits for a transaction that holds the lock.
pub async fn lock_by_order(
    conn: &mut PgConnection,
    shop: &ShopName,
    seller_order_id: &str,
) -> Result<Option<Delivery>, StoreError> {
    one(query_as(LOCK_BY_ORDER).bind(shop.as_str()).bind(seller_order_id).fetch_optional(conn).await?)
}

/// Locks a delivery that is PENDING. Returns `None` if another transaction holds the lock; it does not wait.
pub async fn lock_pending(conn: &mut PgConnection, id: DeliveryId) -> Result<Option<Delivery>, StoreError> {
    one(query_as(LOCK_PENDING).bind(id.0).fetch_optional(conn).await?)
}

/// Locks the active deliveries of a driver, in order of their ids.
pub async fn lock_of_driver(conn: &mut PgConnection, driver: DriverId) -> Result<Vec<Delivery>, StoreError> {
    let rows: Vec<Row> = query_as(LOCK_OF_DRIVER).bind(driver.0).fetch_all(conn).await?;
    rows.into_iter().map(Delivery::try_from).collect()
}

/// Returns the active deliveries of a driver, oldest assignment first.
pub async fn active_of_driver(conn: &mut PgConnection, driver: DriverId) -> Result<Vec<Delivery>, StoreError> {
    let rows: Vec<Row> = query_as(ACTIVE_OF_DRIVER).bind(driver.0).fetch_all(conn).await?;
    rows.into_iter().map(Delivery::try_from).collect()
}

/// Returns the present time of the database's clock. It is not the start time of the transaction.
pub async fn now(conn: &mut PgConnection) -> Result<DateTime<Utc>, StoreError> {
    Ok(query_scalar(NOW).fetch_one(conn).await?)
}

/// Writes the state of a locked delivery.
pub async fn update_state(conn: &mut PgConnection, delivery: &Delivery) -> Result<(), StoreError> {
    query(UPDATE_STATE)
        .bind(delivery.id.0)
        .bind(delivery.status.as_str())
        .bind(delivery.attempt)
        .bind(delivery.driver_id.map(|id| id.0))
        .bind(delivery.assignment_id.map(|id| id.0))
        .bind(delivery.assigned_at)
        .bind(delivery.picked_up_at)
        .bind(delivery.delivered_at)
        .bind(delivery.cancelled_at)
        .bind(&delivery.failure)
        .bind(delivery.search_rounds)
        .execute(conn)
        .await?;
    Ok(())
}

/// Selects the deliveries of a list. A field that is `None` matches every delivery.
#[derive(Clone, Debug, Default)]
pub struct DeliveryFilter {
    /// Only deliveries with one of these statuses.
    pub statuses: Option<Vec<DeliveryStatus>>,
    /// Only deliveries of this driver.
    pub driver_id: Option<DriverId>,
    /// Only deliveries of this shop.
    pub shop: Option<String>,
    /// Only deliveries of this order.
    pub seller_order_id: Option<String>,
    /// Only deliveries with this external id.
    pub external_id: Option<String>,
    /// Only deliveries created at this time or later.
    pub from: Option<DateTime<Utc>>,
    /// Only deliveries created before this time.
    pub to: Option<DateTime<Utc>>,
    /// Only deliveries changed at this time or later.
    pub updated_since: Option<DateTime<Utc>>,
    /// Only deliveries older than this one.
    pub before: Option<(DateTime<Utc>, DeliveryId)>,
    /// The largest number of deliveries to return.
    pub limit: i64,
}

/// Returns the selected deliveries, newest first.
pub async fn list(conn: &mut PgConnection, filter: &DeliveryFilter) -> Result<Vec<Delivery>, StoreError> {
    let statuses: Option<Vec<&str>> =
        filter.statuses.as_ref().map(|all| all.iter().map(|status| status.as_str()).collect());
    let rows: Vec<Row> = query_as(LIST)
        .bind(statuses)
        .bind(filter.driver_id.map(|id| id.0))
        .bind(&filter.shop)
        .bind(&filter.seller_order_id)
        .bind(&filter.external_id)
        .bind(filter.from)
        .bind(filter.to)
        .bind(filter.updated_since)
        .bind(filter.before.map(|(at, _)| at))
        .bind(filter.before.map(|(_, id)| id.0))
        .bind(filter.limit)
        .fetch_all(conn)
        .await?;
    rows.into_iter().map(Delivery::try_from).collect()
}
