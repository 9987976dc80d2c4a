//! The transactional outbox: events for shops, delivered at least once and in order for each delivery.
//!
//! - An event is inserted in the transaction of the change that it reports.
//! - Only the lowest pending event of a delivery can be leased, so two relays cannot change the order. An id is never used as a
//!   cursor.
//! - A lease has its owner and its try as a fencing token. A relay that lost its lease cannot record a result.
//! - Events behind one that waits for its next try wait for the same time. So the number of due events stays close to the
//!   number of events that can be posted, also when many events wait for a shop that does not answer.

use chrono::{DateTime, Utc};
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;

use super::StoreError;
use super::statement::{query, query_as, query_scalar};
use crate::domain::event::{OutboundState, OutboundType, Selection};
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
                WHERE o.shop = f.shop AND o.state = 'pending' AND o.next_try_at <= statement_timestamp()
                  AND (o.lease_until IS NULL OR o.lease_until < statement_timestamp())
                  AND NOT EXISTS (SELECT 1 FROM outbox p WHERE p.delivery_id = o.delivery_id AND p.state = 'pending'
                                  AND (p.sequence < o.sequence OR p.lease_until >= statement_timestamp()
                                       AND p.event_id <> o.event_id))
                ORDER BY o.next_try_at, o.event_id LIMIT f.posts FOR NO KEY UPDATE OF o SKIP LOCKED) d)
        UPDATE outbox o SET lease_owner = $3, tries = o.tries + 1,
               lease_until = clock_timestamp() + make_interval(secs => $4::double precision)
        FROM due WHERE o.event_id = due.event_id
        RETURNING o.event_id, o.shop, o.body, o.tries";
    RENEW = "UPDATE outbox o SET lease_until = clock_timestamp() + make_interval(secs => $4::double precision)
        FROM unnest($1::uuid[], $2::integer[]) AS h (event_id, tries)
        WHERE o.event_id = h.event_id AND o.tries = h.tries AND o.lease_owner = $3 AND o.lease_until IS NOT NULL";
    RECORD_RESULT = "UPDATE outbox SET state = $4, lease_owner = NULL, lease_until = NULL,
               next_try_at = clock_timestamp() + make_interval(secs => $5::double precision)
        WHERE event_id = $1 AND lease_owner = $2 AND tries = $3";
    // Later events of the delivery become due together with this one. Otherwise each lease would read events that it cannot
    // use.
    PUT_OFF_LATER = "UPDATE outbox l SET next_try_at = o.next_try_at FROM outbox o
        WHERE o.event_id = $1 AND l.delivery_id = o.delivery_id AND l.state = 'pending' AND l.sequence > o.sequence
          AND l.next_try_at < o.next_try_at";
    RELEASE_LATER = "UPDATE outbox l SET next_try_at = clock_timestamp() + make_interval(secs => $2::double precision)
        FROM outbox o WHERE o.event_id = $1 AND l.delivery_id = o.delivery_id AND l.state = 'pending'
          AND l.sequence > o.sequence
          AND l.next_try_at > clock_timestamp() + make_interval(secs => $2::double precision)";
    RECORD_ATTEMPT = "INSERT INTO outbox_attempts (event_id, number, status, error)
        SELECT $1, coalesce(max(number), 0) + 1, $2, $3 FROM outbox_attempts WHERE event_id = $1";
    STATS = "SELECT (SELECT count(*) FROM outbox WHERE state = 'pending'),
               (SELECT count(*) FROM outbox WHERE state = 'dead'),
               (SELECT (extract(epoch FROM clock_timestamp() - min(created_at)) * 1000)::bigint
                FROM outbox WHERE state = 'pending')";
    LIST = "SELECT event_id, type, delivery_id, shop, sequence, state, next_try_at, created_at FROM outbox
        WHERE ($1::text IS NULL OR state = $1) AND ($2::text IS NULL OR shop = $2)
          AND ($3::uuid IS NULL OR delivery_id = $3) AND ($4::uuid IS NULL OR event_id < $4)
          AND ($5::text IS NULL OR type = $5) AND ($6::timestamptz IS NULL OR created_at >= $6)
          AND ($7::timestamptz IS NULL OR created_at < $7)
        ORDER BY event_id DESC LIMIT $8";
    GET = "SELECT event_id, type, delivery_id, shop, sequence, state, next_try_at, created_at FROM outbox
        WHERE event_id = $1";
    BODY = "SELECT body FROM outbox WHERE event_id = $1";
    ATTEMPTS = "SELECT event_id, at, status, error FROM outbox_attempts WHERE event_id = ANY($1) ORDER BY event_id, number";
    REPLAY = "UPDATE outbox SET state = 'pending', tries = 0, next_try_at = clock_timestamp(), lease_owner = NULL,
               lease_until = NULL
        WHERE event_id = $1 AND (lease_until IS NULL OR lease_until < clock_timestamp())";
    REPLAY_SOME = "WITH chosen AS MATERIALIZED (
            SELECT event_id FROM outbox
            WHERE state = $1 AND ($2::text IS NULL OR shop = $2) AND ($3::uuid IS NULL OR delivery_id = $3)
              AND ($4::text IS NULL OR type = $4) AND ($5::timestamptz IS NULL OR created_at >= $5)
              AND ($6::timestamptz IS NULL OR created_at < $6) AND ($7::uuid IS NULL OR event_id > $7)
              AND (lease_until IS NULL OR lease_until < clock_timestamp())
            ORDER BY event_id LIMIT $8 FOR NO KEY UPDATE)
        UPDATE outbox o SET state = 'pending', tries = 0, next_try_at = clock_timestamp(), lease_owner = NULL,
               lease_until = NULL
        FROM chosen WHERE o.event_id = chosen.event_id RETURNING o.event_id";
}

/// A new event. One field for each value of the row.
#[derive(Debug, Clone)]
pub struct NewEvent {
    /// The id of the event, and its `webhook-id`.
    pub event_id: EventId,
    /// The delivery that changed.
    pub delivery_id: DeliveryId,
    /// The shop that receives the event.
    pub shop: String,
    /// The number of the change in the audit trail.
    pub sequence: i32,
    /// The type of the event.
    pub kind: OutboundType,
    /// The body that is posted.
    pub body: Vec<u8>,
    /// The delay before the first try, in seconds.
    pub first_delay_s: f64,
}

/// Inserts an event. The caller must be in the transaction of the change that the event reports.
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

/// An event that this relay has leased and may post.
#[derive(Debug, Clone, FromRow)]
pub struct Leased {
    /// The id of the event.
    pub event_id: Uuid,
    /// The shop that receives the event.
    pub shop: String,
    /// The body that is posted.
    pub body: Vec<u8>,
    /// The number of this try, from 1.
    pub tries: i32,
}

/// Leases due events for `seconds`. `free` has the number of posts that each shop can take now.
pub async fn lease(
    conn: &mut PgConnection,
    free: Vec<(String, i64)>,
    owner: &str,
    seconds: f64,
) -> Result<Vec<Leased>, StoreError> {
    let (shops, posts): (Vec<String>, Vec<i64>) = free.into_iter().unzip();
    Ok(query_as(LEASE).bind(shops).bind(posts).bind(owner).bind(seconds).fetch_all(conn).await?)
}

/// Renews leases for `seconds`. A lease is named by its event and its try. A lost lease stays lost.
pub async fn renew(
    conn: &mut PgConnection,
    held: Vec<(Uuid, i32)>,
    owner: &str,
    seconds: f64,
) -> Result<(), StoreError> {
    let (events, tries): (Vec<Uuid>, Vec<i32>) = held.into_iter().unzip();
    query(RENEW).bind(events).bind(tries).bind(owner).bind(seconds).execute(conn).await?;
    Ok(())
}

/// Ends a lease and writes the event's new state. Returns `false` if this owner no longer held the lease.
///
/// `next_try_s` is the delay of the next try in seconds: of this event if it stays pending, otherwise of the next event of the
/// delivery.
pub async fn record_result(
    conn: &mut PgConnection,
    leased: &Leased,
    owner: &str,
    state: OutboundState,
    next_try_s: f64,
) -> Result<bool, StoreError> {
    let done = query(RECORD_RESULT)
        .bind(leased.event_id)
        .bind(owner)
        .bind(leased.tries)
        .bind(state.as_str())
        .bind(next_try_s)
        .execute(&mut *conn)
        .await?;
    if done.rows_affected() == 0 {
        return Ok(false);
    }
    match state {
        OutboundState::Pending => query(PUT_OFF_LATER).bind(leased.event_id).execute(conn).await?,
        _ => query(RELEASE_LATER).bind(leased.event_id).bind(next_try_s).execute(conn).await?,
    };
    Ok(true)
}

/// Records the outcome of a try.
pub async fn record_attempt(
    conn: &mut PgConnection,
    event: Uuid,
    status: Option<u16>,
    error: Option<&str>,
) -> Result<(), StoreError> {
    query(RECORD_ATTEMPT).bind(event).bind(status.map(i32::from)).bind(error).execute(conn).await?;
    Ok(())
}

/// The numbers of events in the outbox.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OutboxStats {
    /// The number of pending events.
    pub pending: i64,
    /// The number of dead events.
    pub dead: i64,
    /// The age of the oldest pending event, in milliseconds.
    pub oldest_pending_ms: Option<i64>,
}

/// Counts the pending and the dead events.
pub async fn stats(conn: &mut PgConnection) -> Result<OutboxStats, StoreError> {
    let (pending, dead, oldest_pending_ms): (i64, i64, Option<i64>) = query_as(STATS).fetch_one(conn).await?;
    Ok(OutboxStats { pending, dead, oldest_pending_ms })
}

/// An event in a list.
#[derive(Debug, Clone, FromRow)]
pub struct EventRow {
    /// The id of the event.
    pub event_id: Uuid,
    /// The type of the event.
    #[sqlx(rename = "type")]
    pub kind: String,
    /// The delivery that changed.
    pub delivery_id: Uuid,
    /// The shop that receives the event.
    pub shop: String,
    /// The number of the change in the audit trail.
    pub sequence: i32,
    /// `pending`, `delivered` or `dead`.
    pub state: String,
    /// The time of the next try, while the event is pending.
    pub next_try_at: DateTime<Utc>,
    /// When the event was written.
    pub created_at: DateTime<Utc>,
}

/// A try in a list.
#[derive(Debug, Clone, FromRow)]
pub struct AttemptRow {
    /// The event that was posted.
    pub event_id: Uuid,
    /// When the try happened.
    pub at: DateTime<Utc>,
    /// The HTTP status, if the shop answered.
    pub status: Option<i32>,
    /// The error, if the try failed.
    pub error: Option<String>,
}

/// Returns at most `limit` selected events that are older than `before`, newest first.
pub async fn list(
    conn: &mut PgConnection,
    which: &Selection,
    before: Option<EventId>,
    limit: i64,
) -> Result<Vec<EventRow>, StoreError> {
    Ok(query_as(LIST)
        .bind(which.state.map(OutboundState::as_str))
        .bind(&which.shop)
        .bind(which.delivery_id.map(|id| id.0))
        .bind(before.map(|id| id.0))
        .bind(which.kind.map(OutboundType::as_str))
        .bind(which.from)
        .bind(which.to)
        .bind(limit)
        .fetch_all(conn)
        .await?)
}

/// Reads an event.
pub async fn get(conn: &mut PgConnection, id: EventId) -> Result<Option<EventRow>, StoreError> {
    Ok(query_as(GET).bind(id.0).fetch_optional(conn).await?)
}

/// Reads the body of an event, as it is posted.
pub async fn body(conn: &mut PgConnection, id: EventId) -> Result<Vec<u8>, StoreError> {
    Ok(query_scalar(BODY).bind(id.0).fetch_one(conn).await?)
}

/// Returns the tries of the given events, in order.
pub async fn attempts(conn: &mut PgConnection, ids: &[Uuid]) -> Result<Vec<AttemptRow>, StoreError> {
    Ok(query_as(ATTEMPTS).bind(ids).fetch_all(conn).await?)
}

/// Makes an event pending again, from any state. The id and the sequence stay the same. Returns `false` if the event does not
/// change because a relay is posting it.
pub async fn replay(conn: &mut PgConnection, id: EventId) -> Result<bool, StoreError> {
    Ok(query(REPLAY).bind(id.0).execute(conn).await?.rows_affected() > 0)
}

/// Makes events pending again, as [`replay`] does: at most `limit` selected events that are newer than `after`, oldest first.
/// Without a state in `which`, only dead events are selected.
///
/// Returns the number of the events and the id of the newest one.
pub async fn replay_some(
    conn: &mut PgConnection,
    which: &Selection,
    after: Option<EventId>,
    limit: i64,
) -> Result<(usize, Option<EventId>), StoreError> {
    let replayed: Vec<Uuid> = query_scalar(REPLAY_SOME)
        .bind(which.state_to_replay().as_str())
        .bind(&which.shop)
        .bind(which.delivery_id.map(|id| id.0))
        .bind(which.kind.map(OutboundType::as_str))
        .bind(which.from)
        .bind(which.to)
        .bind(after.map(|id| id.0))
        .bind(limit)
        .fetch_all(conn)
        .await?;
    Ok((replayed.len(), replayed.into_iter().max().map(EventId)))
}
