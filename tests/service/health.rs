//! Tests of the service's health and metrics endpoints.

use serde_json::json;

use super::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_reports_the_state_of_every_part_and_the_listen_addresses() {
    let world = World::start().await;
    let health = world.node().health().await.unwrap();
    assert_eq!(health["status"], "ok", "{health}");
    assert!(health["database"].is_object() && health["redis"].is_object());
    assert_eq!((&health["outbox"]["pending"], &health["outbox"]["dead"]), (&json!(0), &json!(0)));
    assert_eq!(health["version"], env!("CARGO_PKG_VERSION"));
    assert!(health["node"].as_str().is_some_and(|node| node.starts_with("node-")));
    assert_eq!(health["listen"], world.node().address.as_str());
    assert_eq!(health["metricsListen"], world.node().metrics_address.as_str());
    for path in ["/health/live", "/health/ready"] {
        assert_eq!(world.node().api().get(path).await.status, 200, "{path}");
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_are_served_on_their_own_listener_and_count_events() {
    let world = World::start().await;
    let _driver = world.on_duty(RESTAURANT.offset(100.0, 0.0)).await;
    world.post_order(&Order::new("counted")).await.expect(201);
    let url = format!("http://{}/metrics", world.node().metrics_address);
    let metrics = http::send(http::client().get(&url)).await;
    assert_eq!(metrics.status, 200);
    let names: Vec<_> = metrics.text.lines().filter(|l| !l.starts_with('#') && !l.is_empty()).collect();
    assert!(names.len() > 5, "{}", metrics.text);
    assert!(names.iter().all(|l| l.starts_with("driver_tracker_")), "{}", metrics.text);
    let elsewhere = world.node().api().get("/metrics").await;
    assert_eq!(elsewhere.status, 404, "the public listener does not serve metrics");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_path_or_method_gets_a_problem() {
    let world = World::start().await;
    let api = world.node().api();
    api.get("/nowhere").await.problem(404);
    world.admin().get("/api/v1/nowhere").await.problem(404);
    http::send(api.request("DELETE", "/webhooks/vendure/seller-order-ready")).await.problem(405);
    world.finish().await;
}
