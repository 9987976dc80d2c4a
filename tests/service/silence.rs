//! Tests of silent drivers, and of outages of the service that must not look like silent drivers.

use std::time::Duration;

use serde_json::json;

use super::support::plan::Plan;
use super::support::world::let_time_pass;
use super::support::*;

const OFFLINE_AFTER: Duration = Duration::from_millis(4500);

/// Returns a plan with a short limit for silence.
fn with_short_silence_limit() -> Plan {
    World::with()
        .set("HEARTBEAT_INTERVAL_MS", 500)
        .set("HEARTBEAT_TTL_MS", 2500)
        .set("POSITION_FLUSH_MS", 300)
        .set("OFFLINE_AFTER_MS", OFFLINE_AFTER.as_millis())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_driver_goes_off_duty_loses_the_order_to_another_and_late_updates_change_nothing() {
    let world = with_short_silence_limit().start().await;
    let mut silent_driver = world.on_duty(RESTAURANT.offset(100.0, 0.0)).await;
    let other = world.on_duty(RESTAURANT.offset(900.0, 0.0)).await;
    let response = world.post_order(&Order::new("taken-back")).await.expect(201);
    let (id, old) = (response["deliveryId"].as_str().unwrap(), response["assignmentId"].as_str().unwrap());
    assert_eq!(response["driverId"], silent_driver.id.as_str());
    silent_driver.wait_for_assignment(id).await;
    silent_driver.stop_heartbeats();

    let reassigned = other.wait_for_assignment(id).await;
    assert_ne!(reassigned["delivery"]["assignmentId"], old);
    assert_eq!(world.driver(&silent_driver.id).await["onDuty"], false);
    let cancelled = silent_driver.session.take("assignment.cancelled").await;
    assert_eq!((&cancelled["deliveryId"], &cancelled["assignmentId"]), (&json!(id), &json!(old)));
    let unassigned = world.shop().wait_for_event(id, "DELIVERY_UNASSIGNED_V1").await.event;
    assert_eq!(unassigned["previousDriverId"], silent_driver.id.as_str());
    assert!(unassigned["reason"].is_string());
    world.shop().wait_for_event(id, "DELIVERY_ASSIGNED_V1").await;

    for status in ["PICKED_UP", "IN_TRANSIT", "DELIVERED", "REJECTED"] {
        let late = silent_driver.update(id, old, status, json!({})).await;
        assert_eq!((&late["type"], &late["code"]), (&json!("error"), &json!("assignment_closed")), "{late}");
    }
    let after = world.delivery(id).await;
    assert_eq!((&after["status"], &after["attempt"]), (&json!("ASSIGNED"), &json!(2)));
    assert_eq!(after["driverId"], other.id.as_str());
    assert_eq!(world.trail(id).await, ["CREATED", "ASSIGNED", "UNASSIGNED", "ASSIGNED"]);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_that_was_picked_up_stays_with_its_silent_driver() {
    let world = with_short_silence_limit().start().await;
    let mut driver = world.on_duty(RESTAURANT.offset(100.0, 0.0)).await;
    let response = world.post_order(&Order::new("in-hand")).await.expect(201);
    let (id, assignment) = (response["deliveryId"].as_str().unwrap(), response["assignmentId"].as_str().unwrap());
    assert_eq!(driver.update(id, assignment, "PICKED_UP", json!({})).await["type"], "ok");
    driver.stop_heartbeats();
    eventually("the silent driver is off duty", SOON, || async {
        (world.driver(&driver.id).await["onDuty"] == false).then_some(())
    })
    .await;
    assert_eq!(world.delivery(id).await["status"], "PICKED_UP");
    assert_eq!(world.driver_status(&driver.id).await, "BUSY");
    // The driver delivers the order later, and is off duty afterwards.
    assert_eq!(driver.update(id, assignment, "DELIVERED", json!({})).await["type"], "ok");
    world.wait_for_driver(&driver.id, "OFFLINE").await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_driver_goes_offline_because_all_nodes_were_stopped() {
    let mut world = with_short_silence_limit().nodes(2).start().await;
    let mut fleet = world.fleet(&[100.0, 200.0, 300.0].map(|m| RESTAURANT.offset(m, 0.0))).await;
    let response = world.post_order(&Order::new("through-the-night")).await.expect(201);
    let id = response["deliveryId"].as_str().unwrap().to_owned();
    fleet[0].wait_for_assignment(&id).await;
    for node in &mut world.nodes {
        node.kill9().await;
    }
    let_time_pass("longer than a driver may be silent", OFFLINE_AFTER + Duration::from_millis(1500)).await;
    world.nodes = join_all((0..2).map(|_| world.start_node())).await;

    // Apps reconnect after a delay, as real apps do.
    let_time_pass("apps take a moment to reconnect", Duration::from_millis(1500)).await;
    for driver in &mut fleet {
        let welcome = driver.reconnect(&world.nodes[1]).await;
        assert_eq!(welcome["driver"]["onDuty"], true, "{welcome}");
    }
    holds("no driver goes offline", OFFLINE_AFTER + Duration::from_secs(1), || async {
        world.count("SELECT count(*) FROM drivers WHERE NOT on_duty").await == 0
    })
    .await;
    assert_eq!(world.trail(&id).await, ["CREATED", "ASSIGNED"]);
    world.wait_for_candidates(&fleet[1..]).await;
    world.post_order(&Order::new("next-morning")).await.expect(201);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fleet_that_falls_silent_at_once_is_an_outage_and_stays_on_duty() {
    let world = with_short_silence_limit().start().await;
    let places: Vec<Place> = (1..=50).map(|n| RESTAURANT.offset(f64::from(n) * 20.0, 0.0)).collect();
    let mut fleet = world.fleet(&places).await;
    fleet.iter_mut().for_each(Driver::stop_heartbeats);
    // The last heartbeats of all drivers are at the same time.
    join_all(fleet.iter().map(Driver::heartbeat)).await;
    eventually("the silent drivers leave drivers:geo", SOON, || async {
        world.redis.geo_members().await?.is_empty().then_some(())
    })
    .await;
    // One pass may see a few silent drivers before the others are silent too.
    holds("the fleet stays on duty", OFFLINE_AFTER + Duration::from_secs(2), || async {
        world.count("SELECT count(*) FROM drivers WHERE NOT on_duty").await <= 20
    })
    .await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_socket_does_not_change_the_driver() {
    let world = World::start().await;
    let mut driver = world.on_duty(RESTAURANT.offset(100.0, 0.0)).await;
    driver.stop_heartbeats();
    let (id, token, place) = (driver.id.clone(), driver.token.clone(), driver.place());
    drop(driver);
    // The driver is still on duty with a fresh fix: the order is assigned and waits for a reconnect.
    let response = world.post_order(&Order::new("in-a-tunnel")).await.expect(201);
    assert_eq!(response["driverId"], id.as_str());
    let driver = Driver::connect(world.node(), &id, &token, place).await;
    driver.wait_for_assignment(response["deliveryId"].as_str().unwrap()).await;
    world.finish().await;
}

/// Creates drivers on duty whose last heartbeat in PostgreSQL is at the time of an SQL expression.
async fn insert_drivers_last_seen_at(world: &World, count: usize, at: &'static str) -> Vec<uuid::Uuid> {
    let (ids, _) = world.insert_drivers(count, true).await;
    let sql = format!(
        "WITH at AS (SELECT {at} AS at), changed AS (
            UPDATE drivers SET changed_at = at FROM at WHERE id = ANY($1) RETURNING id)
        INSERT INTO driver_positions (driver_id, last_seen_at, session_epoch) SELECT id, at, 1 FROM changed, at"
    );
    sqlx::query(sqlx::AssertSqlSafe(sql)).bind(&ids).execute(&world.pool).await.unwrap();
    ids
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_fleet_that_falls_silent_at_once_is_an_outage_too() {
    let mut world = with_short_silence_limit().start().await;
    // All last heartbeats are at the same time. There are more drivers than one pass marks offline.
    insert_drivers_last_seen_at(&world, 12_000, "now()").await;
    eventually("the outage is detected", SOON, || async {
        (world.node().metric("driver_tracker_silence_outage").await == 1.0).then_some(())
    })
    .await;
    // A driver who falls silent a moment later is marked offline at the usual time, long before any driver of the
    // fleet.
    let late =
        insert_drivers_last_seen_at(&world, 1, "(SELECT max(last_seen_at) FROM driver_positions) + interval '500 ms'")
            .await[0];
    eventually("the later driver is off duty", SOON, || async {
        (world.driver_status(&late.to_string()).await == "OFFLINE").then_some(())
    })
    .await;
    holds("the fleet stays on duty and the metric reports the outage", Duration::from_secs(1), || async {
        world.count("SELECT count(*) FROM drivers WHERE NOT on_duty").await == 1
            && world.node().metric("driver_tracker_silence_outage").await == 1.0
    })
    .await;
    world.nodes[0].kill9().await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_driver_with_a_fresh_heartbeat_in_redis_goes_offline() {
    let world = with_short_silence_limit().start().await;
    let fleet = world.fleet(&[100.0, 200.0, 300.0].map(|m| RESTAURANT.offset(m, 0.0))).await;
    // The trigger simulates a node that reaches only Redis.
    for sql in [
        "CREATE FUNCTION discard_row() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
        "CREATE TRIGGER discard_row BEFORE INSERT OR UPDATE ON driver_positions FOR EACH ROW EXECUTE FUNCTION discard_row()",
    ] {
        sqlx::query(sql).execute(&world.pool).await.unwrap();
    }
    holds("no driver goes offline", OFFLINE_AFTER + Duration::from_secs(3), || async {
        world.count("SELECT count(*) FROM drivers WHERE NOT on_duty").await == 0
    })
    .await;
    sqlx::query("DROP TRIGGER discard_row ON driver_positions").execute(&world.pool).await.unwrap();
    world.wait_for_candidates(&fleet).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drivers_alive_in_redis_do_not_hide_silent_ones_and_a_stale_online_key_does_not_count() {
    let mut world = with_short_silence_limit().start().await;
    // More drivers than one pass marks offline. In PostgreSQL they are silent for longer than the others.
    let alive = insert_drivers_last_seen_at(&world, 1_100, "clock_timestamp() - interval '60 s'").await;
    let silent = insert_drivers_last_seen_at(&world, 2, "clock_timestamp() - interval '30 s'").await;
    let now_ms = chrono::Utc::now().timestamp_millis();
    let mut keys = ::redis::cmd("MSET");
    for (drivers, received_ms) in [(&alive[..], now_ms + 60_000), (&silent[1..], now_ms - 60_000)] {
        for driver in drivers {
            keys.arg(world.redis.key(&format!("driver:online:{driver}"))).arg(format!(",,,{received_ms},1"));
        }
    }
    let _: () = world.redis.try_command(&keys).await.unwrap();
    eventually("the silent drivers are off duty", SOON, || async {
        (world.count("SELECT count(*) FROM drivers WHERE NOT on_duty").await == 2).then_some(())
    })
    .await;
    for driver in &silent {
        assert_eq!(world.driver_status(&driver.to_string()).await, "OFFLINE");
    }
    assert_eq!(world.node().metric("driver_tracker_silence_outage").await, 0.0, "no outage is reported");
    world.nodes[0].kill9().await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_resumes_marks_no_driver_offline_before_heartbeats_can_arrive() {
    let world = with_short_silence_limit().start().await;
    let mut fleet = world.fleet(&[100.0, 200.0, 300.0].map(|m| RESTAURANT.offset(m, 0.0))).await;
    fleet.iter_mut().for_each(Driver::stop_heartbeats);
    world.node().freeze();
    let_time_pass("longer than a driver may be silent", OFFLINE_AFTER + Duration::from_secs(2)).await;
    world.node().thaw();
    let_time_pass("heartbeats wait in the sockets for a while", Duration::from_millis(1500)).await;
    fleet.iter_mut().for_each(Driver::start_heartbeats);
    holds("no driver goes offline", Duration::from_secs(3), || async {
        world.count("SELECT count(*) FROM drivers WHERE NOT on_duty").await == 0
    })
    .await;
    world.wait_for_candidates(&fleet).await;
    world.finish().await;
}
