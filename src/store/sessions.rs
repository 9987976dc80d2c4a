//! The newest session of each driver. The newest wins over every node; work born in an older one stops here.

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
    // An epoch that was lost in a failover is given again, to another session.
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

/// Makes this session the driver's newest and gives its epoch.
pub async fn open(
    conn: &mut PgConnection,
    driver: DriverId,
    session: SessionId,
    token: TokenId,
    node_id: &str,
) -> Result<i64, StoreError> {
    Ok(query_scalar(OPEN).bind(driver.0).bind(session.0).bind(token.0).bind(node_id).fetch_one(conn).await?)
}

/// The epoch of the driver's newest session, 0 when there never was one; holds it so until the transaction ends.
pub async fn hold(conn: &mut PgConnection, driver: DriverId) -> Result<i64, StoreError> {
    let current: Option<i64> = query_scalar(HOLD).bind(driver.0).fetch_optional(conn).await?;
    Ok(current.unwrap_or(0))
}

/// The epoch of the driver's newest session; 0 when there never was one.
pub async fn current_epoch(conn: &mut PgConnection, driver: DriverId) -> Result<i64, StoreError> {
    let current: Option<i64> = query_scalar(CURRENT_EPOCH).bind(driver.0).fetch_optional(conn).await?;
    Ok(current.unwrap_or(0))
}

/// A live session as a node knows it.
#[derive(Debug, Clone, Copy)]
pub struct LiveSession {
    /// Whose.
    pub driver_id: DriverId,
    /// Which.
    pub session_id: SessionId,
    /// Its number among the driver's sessions.
    pub session_epoch: i64,
    /// By which token it came in.
    pub token_id: TokenId,
    /// The newest epoch of the driver's state that the session knows.
    pub epoch: i64,
}

/// Drivers for whom something that their session must receive happened within `seconds`: their state, a newer session, a
/// revoked token; or a command that was not acknowledged, for four times as long, since it is said again. Those of all nodes;
/// longer than any transaction takes, it misses none.
pub async fn recent(conn: &mut PgConnection, seconds: f64) -> Result<HashSet<DriverId>, StoreError> {
    let found: Vec<Uuid> = query_scalar(RECENT).bind(seconds).fetch_all(conn).await?;
    Ok(found.into_iter().map(DriverId).collect())
}

/// What a live session does not know yet.
#[derive(Debug, Clone)]
pub struct SessionState {
    /// Whose.
    pub driver_id: DriverId,
    /// Which.
    pub session_epoch: i64,
    /// A newer session of the driver exists.
    pub replaced: bool,
    /// PostgreSQL does not know it: a standby that was promoted may lack the last commits.
    pub lost: bool,
    /// Its token was revoked or its driver deactivated.
    pub revoked: bool,
    /// The driver's present state.
    pub changed: DriverChanged,
    /// Why the state is so.
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

/// Those of `sessions` that must end or whose driver's state has moved on.
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
