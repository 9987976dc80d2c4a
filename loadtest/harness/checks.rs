//! Checks what must hold after a scenario. The data comes directly from PostgreSQL and from the receiving shop.

use std::collections::BTreeSet;
use std::time::Duration;

use sqlx::{Connection, PgConnection, Row};
use tokio::time::{Instant, sleep};

use crate::failure::Result;
use crate::world::World;

/// The time limit for the last events to reach the shop.
const EVENTS_LIMIT: Duration = Duration::from_secs(30);

/// One requirement and the finding.
#[derive(Clone, Debug)]
pub struct Check {
    pub what: String,
    pub held: bool,
    pub found: String,
}

/// Requirements, each with a statement that selects the violations.
const FORBIDDEN: [(&str, &str); 5] = [
    (
        // The simulated drivers never request to go off duty. They only lose their connections.
        "no driver was taken off duty (false OFFLINE)",
        "SELECT DISTINCT gone.driver_id::text FROM driver_events gone JOIN driver_events before
            ON before.driver_id = gone.driver_id AND before.epoch < gone.epoch AND before.on_duty
            WHERE NOT gone.on_duty",
    ),
    (
        "no delivery ended without being delivered",
        "SELECT id::text FROM deliveries WHERE status IN ('FAILED', 'CANCELLED')",
    ),
    (
        "a delivery in progress has exactly one active assignment, any other has none",
        "SELECT d.id::text FROM deliveries d WHERE (d.status IN ('ASSIGNED', 'PICKED_UP', 'IN_TRANSIT')) <>
            ((SELECT count(*) FROM assignments a WHERE a.delivery_id = d.id AND a.state = 'ACTIVE') = 1)",
    ),
    (
        "a driver's used slots equal their active assignments",
        "SELECT d.id::text FROM drivers d WHERE d.used_slots <>
            (SELECT count(*) FROM assignments a WHERE a.driver_id = d.id AND a.state = 'ACTIVE')",
    ),
    ("no event is dead", "SELECT event_id::text FROM outbox WHERE state = 'dead'"),
];

/// Checks what must hold after any scenario. With `all_delivered` also checks that every order is delivered.
pub async fn check(world: &World, accepted: &BTreeSet<String>, all_delivered: bool) -> Result<Vec<Check>> {
    let mut conn = PgConnection::connect(&world.database_url).await?;
    let mut checks = vec![no_order_is_lost(&mut conn, accepted).await?];
    for (what, statement) in FORBIDDEN {
        let found: Vec<String> = sqlx::query_scalar(statement).fetch_all(&mut conn).await?;
        checks.push(verdict(what, found.is_empty(), some_of(&found)));
    }
    if all_delivered {
        let rows = sqlx::query("SELECT status, count(*) FROM deliveries GROUP BY status ORDER BY status")
            .fetch_all(&mut conn)
            .await?;
        let states: Vec<(String, i64)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        let left = states.iter().any(|(state, _)| state != "DELIVERED");
        let found: Vec<String> = states.iter().map(|(state, count)| format!("{count} {state}")).collect();
        checks.push(verdict("every accepted order was delivered", !left, found.join(", ")));
    }
    checks.push(events_arrive(&mut conn).await?);
    let counts = world.shop.counts();
    let held = counts.bad_signatures + counts.unreadable + counts.order_violations + counts.changed_bodies == 0;
    let found = format!("{} posted, {} of them repeats", counts.accepted, counts.duplicates);
    checks.push(verdict("events are signed and in order, and repeats are identical", held, found));
    let _ = conn.close().await;
    Ok(checks)
}

/// Checks that every order with a 2xx answer is in the database, in any status.
async fn no_order_is_lost(conn: &mut PgConnection, accepted: &BTreeSet<String>) -> Result<Check> {
    let known: BTreeSet<String> = sqlx::query_scalar::<_, String>("SELECT seller_order_id FROM deliveries")
        .fetch_all(conn)
        .await?
        .into_iter()
        .collect();
    let lost: Vec<String> = accepted.difference(&known).cloned().collect();
    let found = if lost.is_empty() { format!("{} accepted", accepted.len()) } else { some_of(&lost) };
    Ok(verdict("no accepted order is lost", lost.is_empty(), found))
}

async fn events_arrive(conn: &mut PgConnection) -> Result<Check> {
    let deadline = Instant::now() + EVENTS_LIMIT;
    loop {
        let pending: i64 =
            sqlx::query_scalar("SELECT count(*) FROM outbox WHERE state = 'pending'").fetch_one(&mut *conn).await?;
        if pending == 0 || Instant::now() > deadline {
            let what = format!("every event reached the shop within {} s", EVENTS_LIMIT.as_secs());
            return Ok(verdict(&what, pending == 0, format!("{pending} pending")));
        }
        sleep(Duration::from_millis(200)).await;
    }
}

/// Builds a check from a requirement and the finding.
pub fn verdict(what: &str, held: bool, found: String) -> Check {
    Check { what: what.to_owned(), held, found }
}

fn some_of(found: &[String]) -> String {
    match found.len() {
        0 => "none".to_owned(),
        1..=3 => found.join(", "),
        more => format!("{more}, such as {}", found[..3].join(", ")),
    }
}
