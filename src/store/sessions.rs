//! Stores the newest session of each driver.
//!
//! - A new session gets the next epoch of its driver. The newest session wins on every node.
//! - The epoch is a fencing token: work of an older session is refused.
//! - After a failover PostgreSQL may lack the last sessions. Then an epoch can be used again by another session. So a session
//!   is compared by its epoch and its id.

use std::collections::HashSet;

use sqlx::{FromRow, PgConnection};
use uuid::Uuid;

use super::StoreError;
use super::drivers::DriverChanged;
use super::statement::{query_as, query_scalar};
use crate::domain::ids::{DriverId, SessionId, TokenId};

statements! {
    OPEN = "INSERT INTO driver_sessions AS s (driver_id, session_epoch, session_id, token_id, node_id)
        VALUES ($1, 1, $2, $3, $4)
        ON CONFLICT (driver_id) DO UPDATE SET session_epoch = s.session_epoch + 1, session_id = EXCLUDED.session_id,
            token_id = EXCLUDED.token_id, node_id = EXCLUDED.node_id, opened_at = clock_timestamp()
        RETURNING session_epoch";
    HOLD = "SELECT session_epoch FROM driver_sessions WHERE driver_id = $1 FOR SHARE";
    CURRENT_EPOCH = "SELECT session_epoch FROM driver_sessions WHERE driver_id = $1";
    RECENT = "SELECT id FROM drivers WHERE changed_at > clock_timestamp() - make_interval(secs => $1)
        UNION SELECT driver_id FROM driver_sessions WHERE opened_at > clock_timestamp() - make_interval(secs => $1)
        UNION SELECT driver_id FROM driver_tokens WHERE revoked_at > clock_timestamp() - make_interval(secs => $1)
        UNION SELECT driver_id FROM driver_commands
            WHERE acked_at IS NULL AND created_at > clock_timestamp() - make_interval(secs => $1 * 4)";
    // An epoch that was lost in a failover is used again for another session. So the ids are compared too.
    NEWS = "SELECT u.driver_id, u.session_epoch,
               coalesce(s.session_epoch > u.session_epoch OR
                        s.session_epoch = u.session_epoch AND s.session_id <> u.session_id, false) AS replaced,
               coalesce(s.session_epoch, 0) < u.session_epoch AS lost,
               t.revoked_at IS NOT NULL OR NOT d.active AS revoked, d.epoch, d.status, d.on_duty, d.used_slots,
               coalesce(e.reason, '') AS reason,
               coalesce(e.actor_kind = 'driver' AND e.actor_id = d.id::text, false) AS by_driver
        FROM unnest($1::uuid[], $2::bigint[], $3::uuid[], $4::bigint[], $5::uuid[])
             AS u (driver_id, session_epoch, token_id, epoch, session_id)
        LEFT JOIN driver_sessions s ON s.driver_id = u.driver_id
        JOIN drivers d ON d.id = u.driver_id
        JOIN driver_tokens t ON t.id = u.token_id
        LEFT JOIN driver_events e ON e.driver_id = d.id AND e.epoch = d.epoch
        WHERE (s.session_epoch, s.session_id) IS DISTINCT FROM (u.session_epoch, u.session_id)
           OR t.revoked_at IS NOT NULL OR NOT d.active OR d.epoch > u.epoch";
}

/// Makes this session the driver's newest and returns its epoch.
pub async fn open(
    conn: &mut PgConnection,
    driver: DriverId,
    session: SessionId,
    token: TokenId,
    node_id: &str,
) -> Result<i64, StoreError> {
    Ok(query_scalar(OPEN).bind(driver.0).bind(session.0).bind(token.0).bind(node_id).fetch_one(conn).await?)
}

/// Returns the epoch of the driver's newest session and locks it until the transaction ends. Returns 0 if the driver never had
/// a session.
pub async fn hold(conn: &mut PgConnection, driver: DriverId) -> Result<i64, StoreError> {
    let current: Option<i64> = query_scalar(HOLD).bind(driver.0).fetch_optional(conn).await?;
    Ok(current.unwrap_or(0))
}

/// Returns the epoch of the driver's newest session, or 0 if the driver never had a session.
pub async fn current_epoch(conn: &mut PgConnection, driver: DriverId) -> Result<i64, StoreError> {
    let current: Option<i64> = query_scalar(CURRENT_EPOCH).bind(driver.0).fetch_optional(conn).await?;
    Ok(current.unwrap_or(0))
}

/// A live session of a node.
#[derive(Debug, Clone, Copy)]
pub struct LiveSession {
    /// The driver.
    pub driver_id: DriverId,
    /// The id of the session.
    pub session_id: SessionId,
    /// The number of the session among the driver's sessions.
    pub session_epoch: i64,
    /// The token that opened the session.
    pub token_id: TokenId,
    /// The newest epoch of the driver's state that the session knows.
    pub epoch: i64,
}

/// Returns the drivers with a recent change that their sessions must learn, on all nodes.
///
/// - A change of state, a newer session and a revoked token count for `seconds`.
/// - A command that was not acknowledged counts for four times `seconds`, because commands are repeated.
///
/// `seconds` must be longer than any transaction. Then no change is missed.
pub async fn recent(conn: &mut PgConnection, seconds: f64) -> Result<HashSet<DriverId>, StoreError> {
    let found: Vec<Uuid> = query_scalar(RECENT).bind(seconds).fetch_all(conn).await?;
    Ok(found.into_iter().map(DriverId).collect())
}

/// The state of a live session that must end, or whose driver changed.
#[derive(Debug, Clone)]
pub struct SessionState {
    /// The driver.
    pub driver_id: DriverId,
    /// The epoch of the session.
    pub session_epoch: i64,
    /// Whether a newer session of the driver exists.
    pub replaced: bool,
    /// Whether PostgreSQL does not know the session. A standby that was promoted may lack the last commits.
    pub lost: bool,
    /// Whether the session's token was revoked or the driver was deactivated.
    pub revoked: bool,
    /// The driver's present state.
    pub changed: DriverChanged,
    /// The reason of the driver's last change of state.
    pub reason: String,
    /// The driver changed it, and nobody else.
    pub by_driver: bool,
}

#[derive(FromRow)]
struct NewsRow {
    driver_id: Uuid,
    session_epoch: i64,
    replaced: bool,
    lost: bool,
    revoked: bool,
    epoch: i64,
    status: String,
    on_duty: bool,
    used_slots: i32,
    reason: String,
    by_driver: bool,
}

/// Returns the states of those `sessions` that must end, or whose driver has a newer state.
pub async fn states(conn: &mut PgConnection, sessions: &[LiveSession]) -> Result<Vec<SessionState>, StoreError> {
    let drivers: Vec<Uuid> = sessions.iter().map(|s| s.driver_id.0).collect();
    let session_epochs: Vec<i64> = sessions.iter().map(|s| s.session_epoch).collect();
    let tokens: Vec<Uuid> = sessions.iter().map(|s| s.token_id.0).collect();
    let epochs: Vec<i64> = sessions.iter().map(|s| s.epoch).collect();
    let ids: Vec<Uuid> = sessions.iter().map(|s| s.session_id.0).collect();
    let rows: Vec<NewsRow> =
        query_as(NEWS).bind(drivers).bind(session_epochs).bind(tokens).bind(epochs).bind(ids).fetch_all(conn).await?;
    rows.into_iter()
        .map(|row| {
            let status = row.status.parse().map_err(StoreError::corrupt)?;
            let id = DriverId(row.driver_id);
            Ok(SessionState {
                driver_id: id,
                session_epoch: row.session_epoch,
                replaced: row.replaced,
                lost: row.lost,
                revoked: row.revoked,
                changed: DriverChanged {
                    id,
                    epoch: row.epoch,
                    status,
                    on_duty: row.on_duty,
                    used_slots: row.used_slots,
                },
                reason: row.reason,
                by_driver: row.by_driver,
            })
        })
        .collect()
}
