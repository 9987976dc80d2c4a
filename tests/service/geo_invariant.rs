//! Tests that `drivers:geo` contains only drivers who are AVAILABLE and online, in every order of events.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;

use super::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heartbeats_of_a_busy_driver_never_add_them_to_geo() {
    let world = World::start().await;
    let driver = world.on_duty(RESTAURANT.offset(300.0, 0.0)).await;
    let response = world.post_order(&Order::new("busy")).await.expect(201);
    let id = response["deliveryId"].as_str().unwrap();
    driver.wait_for_assignment(id).await;
    eventually("the driver leaves drivers:geo", Duration::from_secs(2), || async {
        (!world.redis.geo_members().await?.contains(&driver.id)).then_some(())
    })
    .await;
    for step in 0..40 {
        driver.move_to(RESTAURANT.offset(300.0 + f64::from(step) * 2.0, 0.0));
        driver.heartbeat().await;
        assert!(
            !world.redis.geo_members().await.unwrap().contains(&driver.id),
            "the driver is not in drivers:geo after heartbeat {step}"
        );
    }
    assert!(world.redis.online_ttl_ms(&driver.id).await.is_some(), "a busy driver stays online");
    driver.deliver(id, response["assignmentId"].as_str().unwrap()).await;
    world.wait_for_candidates(std::slice::from_ref(&driver)).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_session_of_a_busy_driver_does_not_add_them_to_geo() {
    let world = World::with().nodes(2).start().await;
    let mut driver = world.on_duty(RESTAURANT.offset(300.0, 0.0)).await;
    let response = world.post_order(&Order::new("busy")).await.expect(201);
    driver.wait_for_assignment(response["deliveryId"].as_str().unwrap()).await;
    for node in [1, 0, 1] {
        let welcome = driver.reconnect(&world.nodes[node]).await;
        assert_eq!((&welcome["driver"]["status"], &welcome["driver"]["onDuty"]), (&json!("BUSY"), &json!(true)));
        driver.heartbeat().await;
        holds("the driver stays out of drivers:geo", Duration::from_millis(600), || async {
            !world.redis.geo_members().await.unwrap().contains(&driver.id)
        })
        .await;
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_duty_changes_on_two_nodes_under_heartbeats_leave_redis_equal_to_postgresql() {
    let world = World::with().nodes(2).start().await;
    let fleet = world.fleet(&[100.0, 200.0, 300.0, 400.0].map(|m| RESTAURANT.offset(m, 0.0))).await;
    let over = AtomicBool::new(false);
    let heartbeats = async {
        while !over.load(Ordering::Relaxed) {
            join_all(fleet.iter().map(Driver::heartbeat)).await;
        }
    };
    let changes = async {
        let flips = fleet.iter().enumerate().map(|(n, driver)| {
            let admin = world.admin_at(&world.nodes[(n + 1) % 2]);
            async move {
                // The operator acts through one node and the driver through the other. Neither waits for the other.
                for round in 0..12 {
                    let status = if round % 2 == 0 { "OFFLINE" } else { "AVAILABLE" };
                    let path = format!("/api/v1/drivers/{}/status", driver.id);
                    let body = json!({"status": status, "reason": "test"});
                    let (by_operator, by_driver) = tokio::join!(
                        admin.post(&path, &body),
                        driver.request_duty(if round % 2 == 0 { "AVAILABLE" } else { "OFFLINE" }),
                    );
                    by_operator.expect(200);
                    assert_eq!(by_driver["type"], "ok", "{by_driver}");
                }
            }
        });
        join_all(flips).await;
        over.store(true, Ordering::Relaxed);
    };
    tokio::join!(heartbeats, changes);
    invariants::assert_redis(&world).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_writes_to_redis_are_repaired() {
    let world = World::start().await;
    let driver = world.on_duty(RESTAURANT.offset(300.0, 0.0)).await;
    let response = world.post_order(&Order::new("busy")).await.expect(201);
    driver.wait_for_assignment(response["deliveryId"].as_str().unwrap()).await;
    // A stale member for the busy driver, as a node that died between two writes may leave it.
    let mut stale_member_command = ::redis::cmd("GEOADD");
    stale_member_command
        .arg(world.redis.key("drivers:geo"))
        .arg(RESTAURANT.lon)
        .arg(RESTAURANT.lat)
        .arg(format!("driver:{}", driver.id));
    world.redis.try_command::<i64>(&stale_member_command).await.expect("Redis responds");
    // No order is assigned by the stale member: the only driver is busy.
    world.post_order(&Order::new("second")).await.expect(202);
    invariants::assert_redis(&world).await;
    world.finish().await;
}
