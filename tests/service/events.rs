//! Tests of outbound events: order, signatures, retries, dead letters and replays.

use std::time::Duration;

use serde_json::json;
use standardwebhooks::Webhook;

use super::support::plan::EVENTS_SECRET;
use super::support::*;

/// Runs a delivery to DELIVERED. The shop may be set to fail before. Returns the driver and the delivery's id.
async fn delivered(world: &World, name: &str) -> (Driver, String) {
    let driver = world.on_duty(RESTAURANT.offset(100.0, 0.0)).await;
    let id = deliver_with(world, &driver, name).await;
    (driver, id)
}

async fn deliver_with(world: &World, driver: &Driver, name: &str) -> String {
    let response = world.post_order(&Order::new(name)).await.expect(201);
    let id = response["deliveryId"].as_str().unwrap().to_owned();
    driver.deliver(&id, response["assignmentId"].as_str().unwrap()).await;
    id
}

const ALL_EVENTS: [&str; 3] = ["DELIVERY_ASSIGNED_V1", "DELIVERY_PICKED_UP_V1", "DELIVERY_DELIVERED_V1"];

async fn wait_until_accepted(world: &World, id: &str, names: &[&str]) {
    eventually(&format!("the shop accepts {names:?} of {id}"), Duration::from_secs(30), || async {
        (world.shop().accepted(id) == names).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_event_is_retried_with_the_same_body_and_blocks_the_later_events_of_its_delivery() {
    let world = World::start().await;
    world.shop().respond_with(500);
    let (_driver, id) = delivered(&world, "held-back").await;
    eventually("the shop has refused three posts", SOON, || async {
        (world.shop().posts_of(&id).len() >= 3).then_some(())
    })
    .await;
    let names: Vec<_> = world.shop().posts_of(&id).iter().map(|p| p.event["event"].clone()).collect();
    assert!(
        names.iter().all(|name| name == ALL_EVENTS[0]),
        "no later event is posted before the refused one: {names:?}"
    );
    world.shop().respond_with(204);
    wait_until_accepted(&world, &id, &ALL_EVENTS).await;

    let posts = world.shop().posts_of(&id);
    let first: Vec<_> = posts.iter().filter(|p| p.event["event"] == ALL_EVENTS[0]).collect();
    assert!(first.iter().all(|p| p.raw == first[0].raw), "the body is the same in all attempts");
    assert!(first.iter().all(|p| p.headers["webhook-id"] == first[0].headers["webhook-id"]));
    let stamp = |p: &shop::Posted| p.headers["webhook-timestamp"].to_str().unwrap().parse::<i64>().unwrap();
    let now = chrono::Utc::now().timestamp();
    assert!(posts.iter().all(|p| (stamp(p) - now).abs() < 60), "each attempt has a current timestamp");
    let sequences: Vec<i64> = posts.iter().map(|p| p.event["sequence"].as_i64().unwrap()).collect();
    assert!(sequences.is_sorted(), "{sequences:?}");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_event_of_one_delivery_does_not_delay_other_deliveries() {
    let world = World::start().await;
    world.shop().set_reaction(|event| Reaction::Status(if event["sellerOrderId"] == "trouble" { 503 } else { 200 }));
    let driver = world.on_duty(RESTAURANT.offset(100.0, 0.0)).await;
    let stuck = deliver_with(&world, &driver, "trouble").await;
    let fine = deliver_with(&world, &driver, "fine").await;
    wait_until_accepted(&world, &fine, &ALL_EVENTS).await;
    assert!(world.shop().accepted(&stuck).is_empty());
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_permanently_refused_event_is_dead_at_once_unblocks_later_events_and_can_be_replayed() {
    let world = World::start().await;
    world.shop().set_reaction(|event| Reaction::Status(if event["event"] == ALL_EVENTS[1] { 422 } else { 200 }));
    let (_driver, id) = delivered(&world, "dead").await;
    wait_until_accepted(&world, &id, &[ALL_EVENTS[0], ALL_EVENTS[2]]).await;
    assert_eq!(world.shop().posts_of(&id).len(), 3, "a dead letter is not retried");

    let dead = world.admin().get(&format!("/api/v1/outbound-events?state=dead&deliveryId={id}")).await.expect(200);
    let items = dead["items"].as_array().unwrap();
    assert_eq!(items.len(), 1, "{dead}");
    let event = &items[0];
    assert_eq!(
        (&event["type"], &event["state"], &event["shop"]),
        (&json!(ALL_EVENTS[1]), &json!("dead"), &json!("vendure"))
    );
    assert_eq!((&event["deliveryId"], &event["attempts"][0]["status"]), (&json!(id), &json!(422)));
    let health = world.node().health().await.unwrap();
    assert_eq!(
        (&health["outbox"]["dead"], &health["status"]),
        (&json!(1), &json!("ok")),
        "dead letters do not degrade the health"
    );

    let event_id = event["id"].as_str().unwrap();
    let path = format!("/api/v1/outbound-events/{event_id}");
    world.shop().respond_with(200);
    world.admin().post(&format!("{path}/replay"), &json!({})).await.expect(202);
    wait_until_accepted(&world, &id, &[ALL_EVENTS[0], ALL_EVENTS[2], ALL_EVENTS[1]]).await;
    let posts: Vec<_> = world.shop().posts_of(&id).into_iter().filter(|p| p.event["eventId"] == event_id).collect();
    assert_eq!(posts.len(), 2);
    assert_eq!(posts[0].raw, posts[1].raw, "a replay has the same eventId and sequence");
    let after = eventually("the event is delivered", SOON, || async {
        let shown = world.admin().get(&path).await.expect(200);
        (shown["state"] == "delivered").then_some(shown)
    })
    .await;
    assert_eq!(after["attempts"].as_array().unwrap().len(), 2, "{after}");
    world.admin().get("/api/v1/outbound-events/nonsense").await.problem(404);
    world
        .admin()
        .post(&format!("/api/v1/outbound-events/{}/replay", uuid::Uuid::now_v7()), &json!({}))
        .await
        .problem(404);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_is_dead_after_the_last_entry_of_the_retry_schedule() {
    let world = World::with().set("EVENTS_RETRY_SCHEDULE", "0ms,100ms,100ms").start().await;
    world.shop().respond_with(500);
    let (_driver, id) = delivered(&world, "hopeless").await;
    let dead = eventually("all three events are dead", SOON, || async {
        let listed =
            world.admin().get(&format!("/api/v1/outbound-events?state=dead&deliveryId={id}")).await.expect(200);
        (listed["items"].as_array()?.len() == 3).then(|| listed["items"].clone())
    })
    .await;
    for event in dead.as_array().unwrap() {
        let attempts = event["attempts"].as_array().unwrap();
        assert_eq!(attempts.len(), 3, "{event}");
        assert!(attempts.iter().all(|a| a["status"] == 500 && a["at"].is_string()), "{event}");
    }
    assert_eq!(world.shop().posts_of(&id).len(), 9);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_410_disables_the_endpoint_until_an_operator_enables_it() {
    let world = World::start().await;
    world.shop().respond_with(410);
    let (_driver, id) = delivered(&world, "gone").await;
    let disabled = "SELECT count(*) FROM shop_endpoints WHERE NOT enabled";
    eventually("the endpoint is disabled", SOON, || async { (world.count(disabled).await == 1).then_some(()) }).await;
    let posted = world.shop().posts().len();
    world.shop().respond_with(200);
    holds("nothing is posted to a disabled endpoint", Duration::from_secs(2), || async {
        world.shop().posts().len() == posted
    })
    .await;
    let pending =
        world.admin().get(&format!("/api/v1/outbound-events?state=pending&deliveryId={id}")).await.expect(200);
    assert_eq!(pending["items"].as_array().unwrap().len(), 3, "the endpoint's events stay pending: {pending}");

    world.admin().post("/api/v1/shops/vendure/endpoint/enable", &json!({})).await.expect(200);
    wait_until_accepted(&world, &id, &ALL_EVENTS).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retry_after_delays_the_next_post() {
    let world = World::start().await;
    world.shop().set_reaction(|_| Reaction::RetryAfter(429, 3));
    let (_driver, id) = delivered(&world, "later").await;
    eventually("the first post arrives", SOON, || async { (!world.shop().posts_of(&id).is_empty()).then_some(()) })
        .await;
    world.shop().respond_with(200);
    wait_until_accepted(&world, &id, &ALL_EVENTS).await;
    let posts = world.shop().posts_of(&id);
    let waited = posts[1].at - posts[0].at;
    assert!(waited >= Duration::from_millis(2_400), "the next post waits as long as the shop asked: {waited:?}");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redirect_is_not_followed_and_counts_as_a_failure() {
    let world = World::start().await;
    let elsewhere = Shop::open(&[EVENTS_SECRET.to_owned()]).await;
    let to = elsewhere.url.clone();
    world.shop().set_reaction(move |_| Reaction::Redirect(to.clone()));
    let (_driver, id) = delivered(&world, "redirected").await;
    eventually("the event is retried", SOON, || async { (world.shop().posts_of(&id).len() >= 2).then_some(()) }).await;
    assert!(elsewhere.posts().is_empty(), "no redirect is followed");
    world.shop().respond_with(200);
    wait_until_accepted(&world, &id, &ALL_EVENTS).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_post_without_a_response_times_out_and_does_not_delay_other_deliveries() {
    let world = World::start().await;
    world
        .shop()
        .set_reaction(|event| if event["sellerOrderId"] == "hung" { Reaction::Hang } else { Reaction::Status(200) });
    let driver = world.on_duty(RESTAURANT.offset(100.0, 0.0)).await;
    let hung = deliver_with(&world, &driver, "hung").await;
    let fine = deliver_with(&world, &driver, "fine").await;
    wait_until_accepted(&world, &fine, &ALL_EVENTS).await;
    world.shop().respond_with(200);
    wait_until_accepted(&world, &hung, &ALL_EVENTS).await;
    let posts = world.shop().posts_of(&hung);
    let waited = posts[1].at - posts[0].at;
    assert!(
        waited >= Duration::from_secs(14) && waited < Duration::from_secs(20),
        "the post times out in time: {waited:?}"
    );
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_post_every_event_in_order() {
    let world = World::with().nodes(2).start().await;
    let places: Vec<Place> = (1..=10).map(|n| RESTAURANT.offset(f64::from(n) * 50.0, 0.0)).collect();
    let fleet = world.fleet(&places).await;
    let mut deliveries = Vec::new();
    for (n, _) in fleet.iter().enumerate() {
        let response = world.post_order_at(&world.nodes[n % 2], &Order::new(&format!("two-{n}"))).await.expect(201);
        deliveries.push(response["deliveryId"].as_str().unwrap().to_owned());
    }
    join_all(fleet.iter().map(|driver| async move {
        let (id, assignment) = driver.wait_for_any_assignment().await;
        driver.deliver(&id, &assignment).await;
    }))
    .await;
    for id in &deliveries {
        wait_until_accepted(&world, id, &ALL_EVENTS).await;
    }
    assert_eq!(world.shop().posts().len(), 30, "a healthy shop receives each event once");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_of_a_node_that_died_is_posted_by_another() {
    let mut world = World::start().await;
    world.shop().respond_with(500);
    let (_driver, id) = delivered(&world, "outlives").await;
    world.nodes[0].kill9().await;
    world.shop().respond_with(200);
    let node = world.start_node().await;
    world.nodes = vec![node];
    // The lease of the dead node must expire first.
    eventually("the events are posted by another node", Duration::from_secs(60), || async {
        (world.shop().accepted(&id) == ALL_EVENTS).then_some(())
    })
    .await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_configured_secret_signs_events_and_the_shared_secret_is_a_header() {
    const OLD: &str = "whsec_dGhlLW9sZC1zZWNyZXQtb2YtYS1yb3RhdGlvbi10aGF0LWlzLW9u";
    let world = World::with()
        .set("VENDURE_EVENTS_SECRET", format!("{EVENTS_SECRET},{OLD}"))
        .set("VENDURE_EVENTS_SHARED_SECRET", "plainly-shared-with-the-shop")
        .start()
        .await;
    let (_driver, id) = delivered(&world, "rotating").await;
    let post = world.shop().wait_for_event(&id, ALL_EVENTS[0]).await;
    for secret in [EVENTS_SECRET, OLD] {
        Webhook::new(secret).unwrap().verify(&post.raw, &post.headers).unwrap();
    }
    assert_eq!(post.headers["x-webhook-secret"], "plainly-shared-with-the-shop");
    assert!(post.headers["content-type"].to_str().unwrap().starts_with("application/json"));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_events_url_whose_name_resolves_to_a_private_network_is_not_posted_to() {
    let world = World::start().await;
    let url = world.shop().url.replace("127.0.0.1", "localhost");
    let node = world.start_node_with(&[("VENDURE_EVENTS_URL", &url), ("EVENTS_ALLOWED_NETWORKS", "10.0.0.0/8")]).await;
    let mut world = world;
    world.nodes[0].kill9().await;
    world.nodes = vec![node];
    let (_driver, id) = delivered(&world, "inside").await;
    let listed = eventually("an attempt has failed", SOON, || async {
        let listed = world.admin().get(&format!("/api/v1/outbound-events?deliveryId={id}")).await.expect(200);
        let oldest = listed["items"].as_array()?.last()?.clone();
        (!oldest["attempts"].as_array()?.is_empty()).then_some(oldest)
    })
    .await;
    assert!(listed["attempts"][0]["error"].is_string(), "{listed}");
    assert!(world.shop().posts().is_empty());
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_an_events_url_the_outbox_stays_empty() {
    let world = World::with().without_shop().start().await;
    let (_driver, id) = delivered(&world, "quiet").await;
    assert_eq!(world.trail(&id).await.len(), 4, "the audit rows are kept");
    assert_eq!(world.node().health().await.unwrap()["outbox"]["pending"], 0);
    world.finish().await;
}
