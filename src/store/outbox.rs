//! Events on their way to shops, at least once and in order per delivery.
//!
//! Only a delivery's lowest pending event may be leased, so two relays cannot reorder; an id is never used as a cursor. A
//! lease names its owner and its try: whoever lost it cannot settle it.

use chrono::{DateTime, Utc};
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;

use super::StoreError;
use super::statement::{query, query_as};
use crate::domain::event::{OutboundState, OutboundType};
use crate::domain::ids::{DeliveryId, EventId};

statements! {
    INSERT = "INSERT INTO outbox (event_id, delivery_id, shop, sequence, type, body, next_try_at)
        VALUES ($1, $2, $3, $4, $5, $6, clock_timestamp() + make_interval(secs => $7::double precision))";
    LEASE = "WITH free AS (SELECT * FROM unnest($1::text[], $2::bigint[]) AS f (shop, posts)),
        due AS MATERIALIZED (
            SELECT d.event_id FROM free f
            JOIN shop_endpoints e ON e.shop = f.shop AND e.enabled
            CROSS JOIN LATERAL (
                SELECT o.event_id FROM outbox o
                WHERE o.shop = f.shop AND o.state = 'pending' AND o.next_try_at <= clock_timestamp()
                  AND (o.lease_until IS NULL OR o.lease_until < clock_timestamp())
                  AND NOT EXISTS (SELECT 1 FROM outbox p WHERE p.delivery_id = o.delivery_id AND p.state = 'pending'
                                  AND p.sequence < o.sequence)
                ORDER BY o.next_try_at, o.event_id LIMIT f.posts FOR NO KEY UPDATE OF o SKIP LOCKED) d)
        UPDATE outbox o SET lease_owner = $3, tries = o.tries + 1,
               lease_until = clock_timestamp() + make_interval(secs => $4::double precision)
        FROM due WHERE o.event_id = due.event_id
        RETURNING o.event_id, o.shop, o.body, o.tries";
    RENEW = "UPDATE outbox SET lease_until = clock_timestamp() + make_interval(secs => $4::double precision)
        WHERE event_id = $1 AND lease_owner = $2 AND tries = $3 AND lease_until IS NOT NULL";
    SETTLE = "UPDATE outbox SET state = $4, lease_owner = NULL, lease_until = NULL,
               next_try_at = clock_timestamp() + make_interval(secs => $5::double precision)
        WHERE event_id = $1 AND lease_owner = $2 AND tries = $3";
    RECORD_ATTEMPT = "INSERT INTO outbox_attempts (event_id, number, status, error)
        SELECT $1, coalesce(max(number), 0) + 1, $2, $3 FROM outbox_attempts WHERE event_id = $1";
    STATS = "SELECT (SELECT count(*) FROM outbox WHERE state = 'pending'),
               (SELECT count(*) FROM outbox WHERE state = 'dead'),
               (SELECT (extract(epoch FROM clock_timestamp() - min(created_at)) * 1000)::bigint
                FROM outbox WHERE state = 'pending')";
    LIST = "SELECT event_id, type, delivery_id, shop, sequence, state, next_try_at, created_at FROM outbox
        WHERE ($1::text IS NULL OR state = $1) AND ($2::text IS NULL OR shop = $2)
          AND ($3::uuid IS NULL OR delivery_id = $3) AND ($4::uuid IS NULL OR event_id < $4)
        ORDER BY event_id DESC LIMIT $5";
    GET = "SELECT event_id, type, delivery_id, shop, sequence, state, next_try_at, created_at FROM outbox
        WHERE event_id = $1";
    ATTEMPTS = "SELECT event_id, at, status, error FROM outbox_attempts WHERE event_id = ANY($1) ORDER BY event_id, number";
    REPLAY = "UPDATE outbox SET state = 'pending', tries = 0, next_try_at = clock_timestamp(), lease_owner = NULL,
               lease_until = NULL WHERE event_id = $1";
}

/// Puts an event into the outbox, in the transaction of the change that it reports. One entry a field of the row.
#[derive(Debug, Clone)]
pub struct NewEvent {
    /// Identity, also the `webhook-id`.
    pub event_id: EventId,
    /// Which delivery.
    pub delivery_id: DeliveryId,
    /// To whom.
    pub shop: String,
    /// The audit trail's number.
    pub sequence: i32,
    /// What.
    pub kind: OutboundType,
    /// The body, as it is posted.
    pub body: Vec<u8>,
    /// Delay of the first try, in seconds.
    pub first_delay_s: f64,
}

/// Inserts an event.
pub async fn insert(conn: &mut PgConnection, event: &NewEvent) -> Result<(), StoreError> {
    query(INSERT)
        .bind(event.event_id.0)
        .bind(event.delivery_id.0)
        .bind(&event.shop)
        .bind(event.sequence)
        .bind(event.kind.as_str())
        .bind(&event.body)
        .bind(event.first_delay_s)
        .execute(conn)
        .await?;
    Ok(())
}

/// An event that this relay may post now.
#[derive(Debug, Clone, FromRow)]
pub struct Leased {
    /// Identity.
    pub event_id: Uuid,
    /// To whom.
    pub shop: String,
    /// The body, as it is posted.
    pub body: Vec<u8>,
    /// Which try this is, from 1.
    pub tries: i32,
}

/// Leases due events for `seconds`: of each shop as many as may be posted to it now.
pub async fn lease(
    conn: &mut PgConnection,
    free: Vec<(String, i64)>,
    owner: &str,
    seconds: f64,
) -> Result<Vec<Leased>, StoreError> {
    let (shops, posts): (Vec<String>, Vec<i64>) = free.into_iter().unzip();
    Ok(query_as(LEASE).bind(shops).bind(posts).bind(owner).bind(seconds).fetch_all(conn).await?)
}

/// Holds a lease for `seconds` more; one that is lost already stays lost.
pub async fn renew(conn: &mut PgConnection, leased: &Leased, owner: &str, seconds: f64) -> Result<(), StoreError> {
    query(RENEW).bind(leased.event_id).bind(owner).bind(leased.tries).bind(seconds).execute(conn).await?;
    Ok(())
}

/// Ends a lease: the event's new state, and for a pending one how many seconds until the next try. `false` when the lease
/// was no longer this owner's.
pub async fn settle(
    conn: &mut PgConnection,
    leased: &Leased,
    owner: &str,
    state: OutboundState,
    next_try_s: f64,
) -> Result<bool, StoreError> {
    let name = match state {
        OutboundState::Pending => "pending",
        OutboundState::Delivered => "delivered",
        OutboundState::Dead => "dead",
    };
    let done = query(SETTLE)
        .bind(leased.event_id)
        .bind(owner)
        .bind(leased.tries)
        .bind(name)
        .bind(next_try_s)
        .execute(conn)
        .await?;
    Ok(done.rows_affected() > 0)
}

/// Notes what came of a try.
pub async fn record_attempt(
    conn: &mut PgConnection,
    event: Uuid,
    status: Option<u16>,
    error: Option<&str>,
) -> Result<(), StoreError> {
    query(RECORD_ATTEMPT).bind(event).bind(status.map(i32::from)).bind(error).execute(conn).await?;
    Ok(())
}

/// How full the outbox is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OutboxStats {
    /// To be posted.
    pub pending: i64,
    /// Given up.
    pub dead: i64,
    /// Age of the oldest pending one, in milliseconds.
    pub oldest_pending_ms: Option<i64>,
}

/// Counts what is pending and dead.
pub async fn stats(conn: &mut PgConnection) -> Result<OutboxStats, StoreError> {
    let (pending, dead, oldest_pending_ms): (i64, i64, Option<i64>) = query_as(STATS).fetch_one(conn).await?;
    Ok(OutboxStats { pending, dead, oldest_pending_ms })
}

/// An event as a list shows it.
#[derive(Debug, Clone, FromRow)]
pub struct EventRow {
    /// Identity.
    pub event_id: Uuid,
    /// What.
    #[sqlx(rename = "type")]
    pub kind: String,
    /// Which delivery.
    pub delivery_id: Uuid,
    /// To whom.
    pub shop: String,
    /// The audit trail's number.
    pub sequence: i32,
    /// `pending`, `delivered` or `dead`.
    pub state: String,
    /// When it is tried next, while pending.
    pub next_try_at: DateTime<Utc>,
    /// When it was written.
    pub created_at: DateTime<Utc>,
}

/// A try as a list shows it.
#[derive(Debug, Clone, FromRow)]
pub struct AttemptRow {
    /// Of which event.
    pub event_id: Uuid,
    /// When.
    pub at: DateTime<Utc>,
    /// HTTP status, where there was one.
    pub status: Option<i32>,
    /// What went wrong.
    pub error: Option<String>,
}

/// Which events a list shows.
#[derive(Debug, Clone, Default)]
pub struct EventFilter {
    /// `pending`, `delivered` or `dead`.
    pub state: Option<String>,
    /// Only of this shop.
    pub shop: Option<String>,
    /// Only of this delivery.
    pub delivery_id: Option<DeliveryId>,
    /// Only older than this one.
    pub before: Option<EventId>,
    /// At most so many.
    pub limit: i64,
}

/// Events, newest first.
pub async fn list(conn: &mut PgConnection, filter: &EventFilter) -> Result<Vec<EventRow>, StoreError> {
    Ok(query_as(LIST)
        .bind(&filter.state)
        .bind(&filter.shop)
        .bind(filter.delivery_id.map(|id| id.0))
        .bind(filter.before.map(|id| id.0))
        .bind(filter.limit)
        .fetch_all(conn)
        .await?)
}

/// Reads an event.
pub async fn get(conn: &mut PgConnection, id: EventId) -> Result<Option<EventRow>, StoreError> {
    Ok(query_as(GET).bind(id.0).fetch_optional(conn).await?)
}

/// The tries of some events, in order.
pub async fn attempts(conn: &mut PgConnection, ids: &[Uuid]) -> Result<Vec<AttemptRow>, StoreError> {
    Ok(query_as(ATTEMPTS).bind(ids).fetch_all(conn).await?)
}

/// Makes an event pending again, whatever it was; id and sequence stay.
pub async fn replay(conn: &mut PgConnection, id: EventId) -> Result<bool, StoreError> {
    Ok(query(REPLAY).bind(id.0).execute(conn).await?.rows_affected() > 0)
}
