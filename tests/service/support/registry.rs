//! Drivers in bulk, inserted directly into PostgreSQL: on duty, with a current last known location.

use super::{Place, World};

/// Inserts `count` drivers around a place. All are AVAILABLE and have a fix of this moment.
pub async fn insert_candidates(world: &World, count: i64, around: Place) {
    let statement = "WITH made AS (
            INSERT INTO drivers (id, name, phone, on_duty, changed_at)
            SELECT gen_random_uuid(), 'Driver ' || n, '+91', true, now() - interval '1 hour'
            FROM generate_series(1, $1::bigint) n RETURNING id, epoch, status, on_duty),
        audited AS (
            INSERT INTO driver_events (driver_id, epoch, status, on_duty, reason, actor_kind)
            SELECT id, epoch, status, on_duty, 'made by a test', 'system' FROM made)
        INSERT INTO driver_positions (driver_id, lat, lon, fix_time, last_seen_at, session_epoch)
        SELECT id, $2 + (random() - 0.5) * 0.4, $3 + (random() - 0.5) * 0.4, now(), now(), 1 FROM made";
    let done = sqlx::query(statement).bind(count).bind(around.lat).bind(around.lon).execute(&world.pool).await;
    assert_eq!(done.expect("the drivers are inserted").rows_affected() as i64, count);
}
