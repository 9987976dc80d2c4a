//! Tests that the heartbeat interval follows the driver's state and is the same over every interface.

use serde_json::{Value, json};

use super::support::*;

/// The intervals and lifetimes in ms of the settings below: on duty, with a delivery, off duty.
const READY: (u64, u64) = (2000, 9000);
const BUSY: (u64, u64) = (700, 9000);
const IDLE: (u64, u64) = (3000, 9000);

async fn world() -> World {
    let plan = World::with().nodes(2).set("HEARTBEAT_INTERVAL_MS", READY.0).set("HEARTBEAT_TTL_MS", READY.1);
    plan.set("HEARTBEAT_INTERVAL_BUSY_MS", BUSY.0).set("HEARTBEAT_INTERVAL_IDLE_MS", IDLE.0).start().await
}

fn interval_of(value: &Value) -> (u64, u64) {
    let number = |name: &str| value[name].as_u64().unwrap_or_else(|| panic!("no {name}: {value}"));
    (number("heartbeatIntervalMs"), number("ttlMs"))
}

/// Returns the intervals that the HTTP interface reports, which opens no session.
async fn intervals_by_http(world: &World, driver: &Driver) -> [(u64, u64); 2] {
    let app = world.node().api().keyed(Some(&driver.token));
    let state = app.get("/api/v1/driver/state").await.expect(200);
    let locations = app.post("/api/v1/driver/locations", &json!({"fixes": []})).await.expect(200);
    [interval_of(&state), interval_of(&locations)]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_heartbeat_interval_follows_the_drivers_state_for_every_cause() {
    let world = world().await;
    let (id, token) = world.new_driver().await;
    let session = Session::connect(&world.node().address, &token).await;
    let welcome = session.take("welcome").await;
    assert_eq!(interval_of(&welcome), IDLE, "a new driver is off duty");
    drop(session);
    let mut driver = Driver::connect(world.node(), &id, &token, RESTAURANT.offset(50.0, 0.0)).await;
    assert_eq!(intervals_by_http(&world, &driver).await, [IDLE; 2]);

    // By the driver: first the response, then the interval.
    driver.go_on_duty().await;
    assert_eq!(interval_of(&driver.session.take("config").await), READY);
    world.wait_for_candidates(std::slice::from_ref(&driver)).await;
    assert_eq!(intervals_by_http(&world, &driver).await, [READY; 2]);
    assert_eq!(driver.request_duty("AVAILABLE").await["type"], "ok", "a repeat of the same duty succeeds");

    // By an assignment on another node.
    let response = world.post_order_at(&world.nodes[1], &Order::new("near")).await.expect(201);
    let (delivery, assignment) = (response["deliveryId"].as_str().unwrap(), response["assignmentId"].as_str().unwrap());
    assert_eq!(interval_of(&driver.session.take("config").await), BUSY);
    assert_eq!(intervals_by_http(&world, &driver).await, [BUSY; 2]);
    // Off duty with a delivery: the interval stays short.
    assert_eq!(driver.request_duty("OFFLINE").await["onDuty"], false);
    assert_eq!(intervals_by_http(&world, &driver).await, [BUSY; 2]);
    let welcome = driver.reconnect(&world.nodes[1]).await;
    assert_eq!(interval_of(&welcome), BUSY, "the welcome of another node has the same interval");
    driver.deliver(delivery, assignment).await;
    assert_eq!(interval_of(&driver.session.take("config").await), IDLE);

    // By an operator.
    let path = format!("/api/v1/drivers/{id}/status");
    world.admin().post(&path, &json!({"status": "AVAILABLE", "reason": "test"})).await.expect(200);
    assert_eq!(interval_of(&driver.session.take("config").await), READY);
    assert!(driver.session.waiting("config").is_empty(), "each change sends one config frame");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_at_the_slowest_interval_stays_online_and_its_key_lives_at_most_ttl_ms() {
    let world = world().await;
    let mut driver = world.connected_at(world.node(), RESTAURANT).await;
    driver.heartbeat().await;
    driver.start_heartbeats();
    holds(
        "the idle driver's online key exists and expires within ttlMs",
        std::time::Duration::from_millis(3 * IDLE.0),
        || async { world.redis.online_ttl_ms(&driver.id).await.is_some_and(|ms| ms <= IDLE.1 as i64) },
    )
    .await;
    world.finish().await;
}
