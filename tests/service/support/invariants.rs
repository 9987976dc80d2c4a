//! Checks the invariants of `docs/architecture.md` at the end of every test, directly in PostgreSQL and Redis.
//!
//! A check must not go through the service: a faulty service must not be able to hide a violation.

use std::collections::BTreeMap;
use std::time::Duration;

use driver_tracker::domain::delivery::{DeliveryAction, DeliveryStatus};
use sqlx::{AssertSqlSafe, Row};
use uuid::Uuid;

use super::{World, eventually};

/// How long Redis may lag behind PostgreSQL.
const REDIS_LAG: Duration = Duration::from_secs(6);

/// The states that must never exist, each with a statement that returns the ids of the violating rows.
const FORBIDDEN: &[(&str, &str)] = &[
    (
        "a driver's used slots differ from the number of their active assignments",
        "SELECT d.id::text FROM drivers d WHERE d.used_slots <>
            (SELECT count(*) FROM assignments a WHERE a.driver_id = d.id AND a.state = 'ACTIVE')",
    ),
    (
        "a driver's status does not follow from their slots, duty and activation",
        "SELECT id::text FROM drivers WHERE status <> CASE WHEN used_slots >= capacity THEN 'BUSY'
            WHEN on_duty AND active THEN 'AVAILABLE' ELSE 'OFFLINE' END",
    ),
    (
        "a delivery has two active assignments",
        "SELECT delivery_id::text FROM assignments WHERE state = 'ACTIVE' GROUP BY delivery_id HAVING count(*) > 1",
    ),
    (
        "a slot of a driver has two active assignments",
        "SELECT driver_id::text FROM assignments WHERE state = 'ACTIVE' GROUP BY driver_id, slot HAVING count(*) > 1",
    ),
    (
        "an active assignment has a slot beyond the capacity of its driver",
        "SELECT a.id::text FROM assignments a JOIN drivers d ON d.id = a.driver_id
            WHERE a.state = 'ACTIVE' AND a.slot >= d.capacity",
    ),
    (
        "a delivery in progress has no matching active assignment",
        "SELECT d.id::text FROM deliveries d WHERE d.status IN ('ASSIGNED', 'PICKED_UP', 'IN_TRANSIT') AND NOT EXISTS
            (SELECT 1 FROM assignments a WHERE a.id = d.assignment_id AND a.delivery_id = d.id
             AND a.driver_id = d.driver_id AND a.state = 'ACTIVE')",
    ),
    (
        "a delivery that is not in progress has an active assignment",
        "SELECT a.id::text FROM assignments a JOIN deliveries d ON d.id = a.delivery_id
            WHERE a.state = 'ACTIVE' AND d.status NOT IN ('ASSIGNED', 'PICKED_UP', 'IN_TRANSIT')",
    ),
    (
        "a pending delivery has a driver or an assignment",
        "SELECT id::text FROM deliveries WHERE status = 'PENDING' AND (driver_id IS NOT NULL OR assignment_id IS NOT NULL)",
    ),
    (
        "an audit trail has a gap",
        "SELECT d.id::text FROM deliveries d LEFT JOIN delivery_events e ON e.delivery_id = d.id GROUP BY d.id
            HAVING count(e.*) = 0 OR min(e.sequence) <> 1 OR max(e.sequence) <> count(e.*)
                OR max(e.sequence) <> d.last_sequence",
    ),
    (
        "an audit row does not contain the hash of the previous row",
        "SELECT c.delivery_id::text FROM (SELECT e.delivery_id, e.prev_hash, e.hash,
            lag(e.hash) OVER (PARTITION BY e.delivery_id ORDER BY e.sequence) AS before FROM delivery_events e) c
            WHERE c.prev_hash IS DISTINCT FROM c.before OR length(c.hash) <> 32",
    ),
    (
        "a delivery's last hash differs from its last audit row",
        "SELECT d.id::text FROM deliveries d JOIN delivery_events e ON e.delivery_id = d.id AND e.sequence = d.last_sequence
            WHERE e.hash IS DISTINCT FROM d.last_hash",
    ),
    (
        "a driver does not have exactly one audit row for each epoch",
        "SELECT d.id::text FROM drivers d LEFT JOIN driver_events e ON e.driver_id = d.id GROUP BY d.id
            HAVING count(e.*) <> d.epoch OR max(e.epoch) <> d.epoch",
    ),
    (
        "a driver's state differs from their last audit row",
        "SELECT d.id::text FROM drivers d JOIN driver_events e ON e.driver_id = d.id AND e.epoch = d.epoch
            WHERE e.status <> d.status OR e.on_duty <> d.on_duty",
    ),
    (
        "an assignment does not have exactly one assignment command",
        "SELECT a.id::text FROM assignments a WHERE (SELECT count(*) FROM driver_commands c
            WHERE c.assignment_id = a.id AND c.driver_id = a.driver_id AND c.kind = 'assignment') <> 1",
    ),
    (
        "a step of an assignment is earlier than the previous step",
        "SELECT id::text FROM assignments WHERE picked_up_at < created_at
            OR departed_at < greatest(created_at, picked_up_at) OR ended_at < greatest(created_at, picked_up_at, departed_at)",
    ),
    (
        "a step of a delivery is earlier than the previous step",
        "SELECT id::text FROM deliveries WHERE picked_up_at < assigned_at OR delivered_at < greatest(assigned_at, picked_up_at)
            OR cancelled_at < greatest(assigned_at, picked_up_at)
            OR (failure ->> 'occurredAt')::timestamptz < greatest(assigned_at, picked_up_at)",
    ),
    (
        "an audit row of a delivery is earlier than the previous row",
        "SELECT c.delivery_id::text FROM (SELECT e.delivery_id, e.at,
            lag(e.at) OVER (PARTITION BY e.delivery_id ORDER BY e.sequence) AS before FROM delivery_events e) c
            WHERE c.at < c.before",
    ),
    (
        "an order has two deliveries",
        "SELECT seller_order_id FROM deliveries GROUP BY shop, seller_order_id HAVING count(*) > 1",
    ),
];

/// The audit types that are posted to a shop, with their event names.
const ANNOUNCED: &str = "(VALUES ('ASSIGNED', 'DELIVERY_ASSIGNED_V1'), ('UNASSIGNED', 'DELIVERY_UNASSIGNED_V1'),
    ('PICKED_UP', 'DELIVERY_PICKED_UP_V1'), ('DELIVERED', 'DELIVERY_DELIVERED_V1'), ('FAILED', 'DELIVERY_FAILED_V1'),
    ('CANCELLED', 'DELIVERY_CANCELLED_V1')) AS t (kind, name)";

/// Asserts every invariant. Redis gets [`REDIS_LAG`] to catch up, and is checked only while a node runs.
pub async fn assert_invariants(world: &World, a_node_runs: bool) {
    for (what, statement) in FORBIDDEN {
        assert_nothing_found(world, what, (*statement).to_owned()).await;
    }
    assert_outbox(world).await;
    assert_trails_are_legal(world).await;
    if a_node_runs && world.has_redis() {
        assert_redis(world).await;
    }
}

async fn assert_nothing_found(world: &World, what: &str, statement: String) {
    let found: Vec<String> = sqlx::query_scalar(AssertSqlSafe(statement))
        .fetch_all(&world.pool)
        .await
        .unwrap_or_else(|error| panic!("the check of {what:?} failed: {error}"));
    assert!(found.is_empty(), "{what}: {found:?}");
}

/// Asserts that the outbox has exactly one row for each announced audit row, and no other row.
async fn assert_outbox(world: &World) {
    if world.shop.is_none() {
        return assert_nothing_found(
            world,
            "an outbox row exists although no shop receives events",
            "SELECT event_id::text FROM outbox".into(),
        )
        .await;
    }
    let missing = format!(
        "SELECT e.delivery_id::text || '/' || e.sequence FROM delivery_events e JOIN {ANNOUNCED} ON t.kind = e.type
         LEFT JOIN outbox o ON o.delivery_id = e.delivery_id AND o.sequence = e.sequence
         WHERE o.type IS DISTINCT FROM t.name"
    );
    assert_nothing_found(world, "an announced audit row has no outbox row", missing).await;
    let without_audit_row = format!(
        "SELECT o.event_id::text FROM outbox o LEFT JOIN delivery_events e ON e.delivery_id = o.delivery_id
         AND e.sequence = o.sequence LEFT JOIN {ANNOUNCED} ON t.kind = e.type AND t.name = o.type WHERE t.kind IS NULL"
    );
    assert_nothing_found(world, "an outbox row has no audit row", without_audit_row).await;
}

/// Asserts that each delivery's audit rows form a legal sequence of transitions that ends in the delivery's status.
async fn assert_trails_are_legal(world: &World) {
    let rows = sqlx::query(
        "SELECT d.id, d.status, e.type FROM deliveries d JOIN delivery_events e ON e.delivery_id = d.id
         ORDER BY d.id, e.sequence",
    )
    .fetch_all(&world.pool)
    .await
    .expect("the audit rows are read");
    let mut trails: BTreeMap<Uuid, (String, Vec<String>)> = BTreeMap::new();
    for row in rows {
        let trail = trails.entry(row.get("id")).or_insert_with(|| (row.get("status"), Vec::new()));
        trail.1.push(row.get("type"));
    }
    for (id, (status, trail)) in trails {
        assert_eq!(trail[0], "CREATED", "the first audit row of {id} is CREATED: {trail:?}");
        let mut state = DeliveryStatus::Pending;
        for kind in &trail[1..] {
            if let Some(action) = action_of(kind) {
                let next = state.transition(action);
                state = next.unwrap_or_else(|refusal| {
                    panic!("the audit rows of {id} contain an illegal transition: {refusal}; {trail:?}")
                });
            }
        }
        assert_eq!(state.as_str(), status, "the audit rows of delivery {id} end in its status: {trail:?}");
    }
}

fn action_of(audit_type: &str) -> Option<DeliveryAction> {
    match audit_type {
        "ASSIGNED" => Some(DeliveryAction::Assign),
        "UNASSIGNED" => Some(DeliveryAction::TakeBack),
        "PICKED_UP" => Some(DeliveryAction::PickUp),
        "IN_TRANSIT" => Some(DeliveryAction::Depart),
        "DELIVERED" => Some(DeliveryAction::Deliver),
        "FAILED" => Some(DeliveryAction::Fail),
        "CANCELLED" => Some(DeliveryAction::Cancel),
        "RETRIED" => Some(DeliveryAction::Retry),
        "CHANGED" | "CONFLICT" => None,
        other => panic!("unknown audit type: {other}"),
    }
}

/// Returns the first difference between Redis and PostgreSQL, or `None` when they agree.
pub async fn redis_discrepancy(world: &World) -> Option<String> {
    let (geo_members, statuses) = (world.redis.geo_members().await, world.redis.statuses().await);
    let (Some(geo_members), Some(statuses)) = (geo_members, statuses) else {
        return Some("Redis does not respond".into());
    };
    let rows = sqlx::query("SELECT id::text, status, epoch FROM drivers").fetch_all(&world.pool).await;
    let rows = match rows {
        Ok(rows) => rows,
        Err(error) => return Some(format!("PostgreSQL does not respond: {error}")),
    };
    let drivers: BTreeMap<String, (String, i64)> =
        rows.into_iter().map(|row| (row.get("id"), (row.get("status"), row.get("epoch")))).collect();
    for id in &geo_members {
        if drivers.get(id).is_none_or(|(status, _)| status != "AVAILABLE") {
            return Some(format!("driver {id} is in drivers:geo, but is {:?}", drivers.get(id)));
        }
        if world.redis.online_ttl_ms(id).await.is_none() {
            return Some(format!("driver {id} is in drivers:geo, but has no online key"));
        }
    }
    for (id, in_redis) in &statuses {
        let expected = drivers.get(id).map(|(status, epoch)| format!("{status}:{epoch}"));
        if expected.as_ref() != Some(in_redis) {
            return Some(format!("driver {id} is {expected:?}, but {in_redis} in Redis"));
        }
    }
    None
}

/// Asserts that Redis agrees with PostgreSQL within [`REDIS_LAG`].
pub async fn assert_redis(world: &World) {
    let last = std::sync::Mutex::new(String::new());
    let agreement = async {
        eventually("Redis agrees with PostgreSQL", Duration::from_secs(600), || async {
            match redis_discrepancy(world).await {
                None => Some(()),
                Some(wrong) => {
                    *last.lock().expect("the lock is not poisoned") = wrong;
                    None
                }
            }
        })
        .await;
    };
    if tokio::time::timeout(REDIS_LAG, agreement).await.is_err() {
        panic!("Redis and PostgreSQL differ: {}", last.lock().expect("the lock is not poisoned"));
    }
}
