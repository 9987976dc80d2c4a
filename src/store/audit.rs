//! The audit trail of deliveries.
//!
//! - The trail is append-only, and its numbers have no gaps.
//! - Each row has a hash over itself and the hash of the row before it (a hash chain).

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgConnection;

use super::StoreError;
use super::json::exact;
use super::statement::{query_as, query_scalar};
use crate::domain::event::{Actor, AuditType};
use crate::domain::ids::DeliveryId;

statements! {
    // The hash covers the hash of the row before and every value of this row. jsonb has one text for one value.
    APPEND = "WITH appended AS (
            INSERT INTO delivery_events (delivery_id, sequence, type, at, actor_kind, actor_id, data, prev_hash, hash)
            SELECT d.id, d.last_sequence + 1, $2, m.at, $4, $5, $6, d.last_hash,
                   sha256(coalesce(d.last_hash, '') || convert_to(jsonb_build_array(d.id, d.last_sequence + 1, $2::text,
                          (extract(epoch FROM m.at) * 1000000)::bigint, $4::text, $5::text, $6::jsonb)::text, 'UTF8'))
            FROM deliveries d
            CROSS JOIN LATERAL (SELECT greatest($3::timestamptz, (SELECT e.at FROM delivery_events e
                WHERE e.delivery_id = d.id AND e.sequence = d.last_sequence)) AS at) m
            WHERE d.id = $1
            ON CONFLICT DO NOTHING
            RETURNING delivery_id, sequence, hash)
        UPDATE deliveries d SET last_sequence = a.sequence, last_hash = a.hash FROM appended a
        WHERE d.id = a.delivery_id RETURNING a.sequence";
    LIST = "SELECT sequence, type, at, actor_kind, actor_id, data FROM delivery_events
        WHERE delivery_id = $1 AND ($2::integer IS NULL OR sequence < $2) ORDER BY sequence DESC LIMIT $3";
}

/// Appends a row to the trail of a locked delivery and returns its number. Returns `None` if the schema allows only one such
/// row and the row exists (the same conflict was recorded before).
pub async fn append(
    conn: &mut PgConnection,
    delivery: DeliveryId,
    kind: AuditType,
    at: DateTime<Utc>,
    actor: &Actor,
    data: &Value,
) -> Result<Option<i32>, StoreError> {
    Ok(query_scalar(APPEND)
        .bind(delivery.0)
        .bind(kind.as_str())
        .bind(at)
        .bind(actor.kind())
        .bind(actor.id())
        .bind(exact(data))
        .fetch_optional(conn)
        .await?)
}

/// A row of the trail.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct AuditRow {
    /// The number of the row within the delivery.
    pub sequence: i32,
    /// The type of the change.
    #[sqlx(rename = "type")]
    pub kind: String,
    /// When the change happened.
    pub at: DateTime<Utc>,
    /// Who made the change: `driver`, `operator`, `system` or `shop`.
    pub actor_kind: String,
    /// The id of the actor.
    pub actor_id: Option<String>,
    /// Further data of the change.
    pub data: Value,
}

/// Returns the rows before `before`, newest first.
pub async fn list(
    conn: &mut PgConnection,
    delivery: DeliveryId,
    before: Option<i32>,
    limit: i64,
) -> Result<Vec<AuditRow>, StoreError> {
    Ok(query_as(LIST).bind(delivery.0).bind(before).bind(limit).fetch_all(conn).await?)
}
