//! Tests of the outbox relay when nodes die, freeze and resume, and of replays of dead letters.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::support::http::{Api, try_send};
use super::support::*;

/// The events of every delivery in this file, in order.
const STORY: [&str; 4] =
    ["DELIVERY_ASSIGNED_V1", "DELIVERY_PICKED_UP_V1", "DELIVERY_FAILED_V1", "DELIVERY_CANCELLED_V1"];
const CANCELLED: &str = "DELIVERY_CANCELLED_V1";

/// Posts an order and cancels it at once, which makes one event. Returns the delivery's id.
async fn cancelled(world: &World, name: &str) -> String {
    let accepted = world.post_order(&Order::new(name)).await.expect(202);
    world.post_cancellation(name, None).await.expect(200);
    accepted["deliveryId"].as_str().unwrap().to_owned()
}

/// Sends a request to the nodes in turn until one accepts it, because nodes die meanwhile. The idempotency key
/// distinguishes a repeat from a first request.
async fn request_until_accepted(clients: &[Api], first_client: usize, path: &str, body: &Value) -> Value {
    let key = uuid::Uuid::now_v7().to_string();
    let deadline = Instant::now() + Duration::from_secs(90);
    for n in 0.. {
        let request = clients[(first_client + n) % clients.len()]
            .request("POST", path)
            .header("idempotency-key", &key)
            .json(body);
        match try_send(request).await {
            Ok(reply) if matches!(reply.status, 200..=202) => return reply.body,
            // Another node may still process the request, or may have lost PostgreSQL's response.
            Ok(reply) if reply.status == 503 || reply.body["code"] == "request_under_way" => {}
            Ok(reply) => panic!("{path}: {} {}", reply.status, reply.text),
            Err(_) => {}
        }
        assert!(Instant::now() < deadline, "a node accepts {path} in time");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    unreachable!("the loop ends only by a return")
}

/// Runs one delivery through all events of [`STORY`] by the operators' API. Returns its id.
async fn run_story(clients: &[Api], first_client: usize, driver: uuid::Uuid) -> String {
    let mut order = Order::new(&format!("storm-{first_client}")).0;
    order["shop"] = json!("vendure");
    let made = request_until_accepted(clients, first_client, "/api/v1/deliveries", &order).await;
    let id = made["deliveryId"].as_str().expect("the response has an id").to_owned();
    let failed = json!({"status": "FAILED", "reason": "test", "failure": {"code": "DELIVERY_FAILED"}});
    for (action, body) in [
        ("assign", json!({"driverId": driver, "reason": "test"})),
        ("status", json!({"status": "PICKED_UP", "reason": "test"})),
        ("status", failed),
        ("retry", json!({"reason": "test"})),
        ("cancel", json!({"reason": "test"})),
    ] {
        request_until_accepted(clients, first_client, &format!("/api/v1/deliveries/{id}/{action}"), &body).await;
    }
    id
}

/// Returns the accepted events of each delivery, each at its first arrival, as a receiver without duplicates sees
/// them.
fn first_arrivals(shop: &Shop) -> HashMap<String, Vec<(i64, String)>> {
    let mut first_arrivals: HashMap<String, Vec<(i64, String)>> = HashMap::new();
    for post in shop.posts().into_iter().filter(|post| post.reaction.accepts()) {
        let of = first_arrivals
            .entry(post.event["deliveryId"].as_str().expect("the event has a delivery").to_owned())
            .or_default();
        let one = (
            post.event["sequence"].as_i64().expect("the sequence is a number"),
            post.event["event"].as_str().unwrap().to_owned(),
        );
        if !of.contains(&one) {
            of.push(one);
        }
    }
    first_arrivals
}

/// Runs `deliveries` with four events each. The shop fails three posts in ten, and nodes are killed `kills` times.
pub async fn storm(deliveries: usize, kills: usize) {
    // One driver for each concurrent delivery. The search finds none of them, so only operators assign.
    const AT_ONCE: usize = 24;
    // The schedule is long because an attempt may also be lost with its node.
    let schedule = ["0ms", "100ms", "200ms"].into_iter().chain([["300ms"; 30]].concat()).collect::<Vec<_>>().join(",");
    let mut world = World::with()
        .nodes(3)
        .set("ASSIGNMENT_WAIT_MS", 0)
        .set("EVENTS_RETRY_SCHEDULE", schedule)
        .set("RUST_LOG", "warn,driver_tracker::app=info")
        .start()
        .await;
    world.shop().set_reaction(|_| match rand::random_range(0..10) {
        0 => Reaction::Status(500),
        1 => Reaction::RetryAfter(503, 0),
        2 => Reaction::Drop,
        _ => Reaction::Status(200),
    });
    let (drivers, _) = world.insert_drivers(AT_ONCE, false).await;
    let ports: Vec<String> = world.nodes.iter().map(|node| node.address.clone()).collect();
    // Each node restarts at its address.
    let clients: Vec<Api> = world.nodes.iter().map(|node| world.admin_at(node)).collect();
    let began = Instant::now();
    let stories = drivers.iter().enumerate().map(|(lane, driver)| {
        let (clients, driver) = (clients.clone(), *driver);
        async move {
            let mut ids = Vec::new();
            for first_client in (lane..deliveries).step_by(AT_ONCE) {
                ids.push(run_story(&clients, first_client, driver).await);
            }
            ids
        }
    });
    let (ids, ()) = tokio::join!(join_all(stories), async {
        for n in 0..kills {
            let node_index = n % world.nodes.len();
            // The kills are spread over the whole run.
            let rows_before_kill = (n + 1) * deliveries * STORY.len() / (kills + 1);
            eventually("the deliveries progress", Duration::from_secs(90), || async {
                (world.count("SELECT count(*) FROM outbox").await as usize >= rows_before_kill).then_some(())
            })
            .await;
            world.nodes[node_index].kill9().await;
            world.nodes[node_index] = Node::start(&world.env_with(&[("LISTEN_ADDR", &ports[node_index])])).await;
        }
    });
    let ids: Vec<String> = ids.into_iter().flatten().collect();
    let elapsed = began.elapsed();
    assert_eq!(ids.len(), deliveries);
    eventually("every event is delivered", Duration::from_secs(120), || async {
        (world.count("SELECT count(*) FROM outbox WHERE state <> 'delivered'").await == 0).then_some(())
    })
    .await;
    println!(
        "{deliveries} deliveries: {elapsed:?}, all delivered after {:?}, {} posts",
        began.elapsed(),
        world.shop().posts().len()
    );
    assert_eq!(world.count("SELECT count(*) FROM outbox").await as usize, deliveries * STORY.len());
    let first_arrivals = first_arrivals(world.shop());
    for id in &ids {
        let events = &first_arrivals[id];
        let names: Vec<&str> = events.iter().map(|(_, name)| name.as_str()).collect();
        assert_eq!(names, STORY, "the events are complete and in order: {id}");
        assert!(events.is_sorted(), "{events:?}");
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_event_is_lost_or_out_of_order_when_shop_and_nodes_fail() {
    storm(100, 5).await;
}

/// Returns the number of events whose lease a node holds.
async fn leased_by(world: &World, node: &str) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM outbox WHERE lease_owner = $1 AND lease_until > clock_timestamp()")
        .bind(node)
        .fetch_one(&world.pool)
        .await
        .expect("the leases are counted")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_resumes_after_a_freeze_does_not_undo_the_work_of_another() {
    let mut world = World::with().nodes(0).set("ASSIGNMENT_WAIT_MS", 0).start().await;
    let paused = world.start_node_with(&[("NODE_ID", "paused")]).await;
    world.nodes.push(paused);
    world.shop().set_reaction(|_| Reaction::Hang);
    let mut ids = Vec::new();
    for n in 0..5 {
        ids.push(cancelled(&world, &format!("paused-{n}")).await);
    }
    eventually("the node holds the leases of all events", SOON, || async {
        (leased_by(&world, "paused").await == 5).then_some(())
    })
    .await;
    world.nodes[0].freeze();
    let other = world.start_node_with(&[("NODE_ID", "other")]).await;
    world.shop().respond_with(200);
    // The leases of the frozen node expire, and the other node posts its events.
    eventually("the other node delivers the events", Duration::from_secs(40), || async {
        (world.count("SELECT count(*) FROM outbox WHERE state = 'delivered'").await == 5).then_some(())
    })
    .await;
    // After the thaw, the node finds that its posts failed and that it no longer holds the leases.
    world.nodes[0].thaw();
    world.nodes[0].wait_for_health("ok").await;
    let changed = "SELECT count(*) FROM outbox WHERE state <> 'delivered' OR tries <> 2";
    holds("delivered events stay delivered", Duration::from_secs(6), || async { world.count(changed).await == 0 })
        .await;
    for id in &ids {
        assert_eq!(world.shop().accepted(id), [CANCELLED], "the shop accepts the event exactly once");
    }
    assert_eq!(
        world.count("SELECT count(*) FROM outbox_attempts").await,
        5,
        "the attempts of the frozen node are not recorded"
    );
    world.nodes.push(other);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_post_that_takes_longer_than_a_lease_is_not_posted_by_another_node() {
    let world = World::with().nodes(2).set("ASSIGNMENT_WAIT_MS", 0).start().await;
    world.shop().set_reaction(|_| Reaction::After(Duration::from_secs(13), 200));
    let id = cancelled(&world, "slow").await;
    eventually("the event is delivered", Duration::from_secs(30), || async {
        (world.count("SELECT count(*) FROM outbox WHERE state = 'delivered'").await == 1).then_some(())
    })
    .await;
    assert_eq!(world.shop().posts_of(&id).len(), 1, "the lease is renewed during the post");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_does_not_affect_an_event_in_flight() {
    let world = World::with().set("ASSIGNMENT_WAIT_MS", 0).start().await;
    world.shop().set_reaction(|_| Reaction::After(Duration::from_secs(4), 200));
    let id = cancelled(&world, "under-way").await;
    eventually("the post is in flight", SOON, || async { (world.shop().posts_of(&id).len() == 1).then_some(()) }).await;
    let event = world.shop().posts_of(&id)[0].event["eventId"].as_str().unwrap().to_owned();
    let shown = world.admin().post(&format!("/api/v1/outbound-events/{event}/replay"), &json!({})).await.expect(202);
    assert_eq!(shown["state"], "pending");
    eventually("the event is delivered", SOON, || async {
        (world.count("SELECT count(*) FROM outbox WHERE state = 'delivered'").await == 1).then_some(())
    })
    .await;
    assert_eq!(world.shop().posts_of(&id).len(), 1);
    world.finish().await;
}

/// Returns a world with three dead letters of the configured shop and one of another shop.
async fn with_dead_letters() -> (World, OtherShop, Vec<String>, String) {
    let world = World::with().set("ASSIGNMENT_WAIT_MS", 0).start().await;
    let other = OtherShop::make(&world, "bakery", json!({})).await;
    world.shop().respond_with(422);
    other.receiver.respond_with(400);
    let mut ids = Vec::new();
    for n in 0..3 {
        ids.push(cancelled(&world, &format!("dead-{n}")).await);
    }
    let theirs = other.cancelled_order(world.node(), "dead").await;
    wait_until_dead(&world, 4).await;
    world.shop().respond_with(200);
    other.receiver.respond_with(200);
    (world, other, ids, theirs)
}

async fn wait_until_dead(world: &World, count: i64) {
    eventually(&format!("{count} events are dead"), SOON, || async {
        (world.count("SELECT count(*) FROM outbox WHERE state = 'dead'").await == count).then_some(())
    })
    .await;
}

async fn wait_until_accepted(shop: &Shop, delivery: &str) {
    eventually("the event arrives", SOON, || async { (shop.accepted(delivery) == [CANCELLED]).then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_are_replayed_by_filter_or_all_at_once() {
    let (world, other, ids, theirs) = with_dead_letters().await;
    let admin = world.admin();
    let replay = async |body: Value| admin.post("/api/v1/outbound-events/replay", &body).await;
    assert_eq!(replay(json!({"deliveryId": ids[0]})).await.expect(202), json!({"replayed": 1}));
    wait_until_accepted(world.shop(), &ids[0]).await;
    wait_until_dead(&world, 3).await;
    assert_eq!(replay(json!({"type": "DELIVERY_ASSIGNED_V1"})).await.expect(202)["replayed"], 0);
    let (now, long_ago) = (chrono::Utc::now().to_rfc3339(), "2020-01-01T00:00:00Z");
    assert_eq!(replay(json!({"to": long_ago})).await.expect(202)["replayed"], 0);
    assert_eq!(replay(json!({"from": now})).await.expect(202)["replayed"], 0);
    assert_eq!(replay(json!({"shop": "bakery", "from": long_ago, "to": now})).await.expect(202)["replayed"], 1);
    wait_until_accepted(&other.receiver, &theirs).await;
    assert!(world.shop().accepted(&ids[1]).is_empty(), "dead letters of another shop stay dead");
    assert_eq!(replay(json!({})).await.expect(202)["replayed"], 2);
    wait_until_accepted(world.shop(), &ids[1]).await;
    wait_until_accepted(world.shop(), &ids[2]).await;
    assert_eq!(replay(json!({})).await.expect(202)["replayed"], 0, "no event is dead");

    // A replay of delivered events needs a filter.
    let unbounded = replay(json!({"state": "delivered"})).await;
    assert_eq!(unbounded.invalid_field_names(), ["shop"]);
    assert_eq!(replay(json!({"state": "delivered", "shop": "bakery"})).await.expect(202)["replayed"], 1);
    eventually("the event arrives once more", SOON, || async {
        (other.receiver.accepted(&theirs).len() == 2).then_some(())
    })
    .await;
    let wrong =
        replay(json!({"state": "x", "shop": "X Y", "deliveryId": "x", "type": "x", "from": "x", "cursor": "x"}));
    assert_eq!(wrong.await.invalid_field_names(), ["cursor", "deliveryId", "from", "shop", "state", "type"]);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_program_lists_shows_and_replays_events() {
    let (world, other, ids, theirs) = with_dead_letters().await;
    let env = world.env_with(&[]);
    let events = async |arguments: &[&str]| {
        let done = node::run(&[&["events"], arguments].concat(), &env).await;
        (done.status.code(), String::from_utf8(done.stdout).unwrap(), String::from_utf8(done.stderr).unwrap())
    };
    let (code, listed, _) = events(&["list", "--state", "dead"]).await;
    assert_eq!((code, listed.lines().count()), (Some(0), 4), "{listed}");
    let (_, listed, _) = events(&["list", "--shop", "bakery"]).await;
    let fields: Vec<&str> = listed.trim().split('\t').collect();
    assert_eq!((fields[1], fields[2], fields[3], fields[5]), (CANCELLED, "bakery", theirs.as_str(), "dead"));
    let (_, two, _) = events(&["list", "--limit", "2"]).await;
    assert_eq!(two.lines().count(), 2);

    let (_, shown, _) = events(&["show", fields[0]]).await;
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!((&shown["attempts"][0]["status"], &shown["body"]["eventId"]), (&json!(400), &json!(fields[0])));

    let (_, replayed, _) = events(&["replay", fields[0]]).await;
    assert_eq!(replayed.trim(), "1");
    wait_until_accepted(&other.receiver, &theirs).await;
    let (_, replayed, _) = events(&["replay", "--all", "--delivery", &ids[1]]).await;
    assert_eq!(replayed.trim(), "1");
    wait_until_accepted(world.shop(), &ids[1]).await;
    let (_, replayed, _) = events(&["replay", "--all"]).await;
    assert_eq!(replayed.trim(), "2");
    wait_until_accepted(world.shop(), &ids[2]).await;

    let missing = uuid::Uuid::now_v7().to_string();
    let (code, _, error_output) = events(&["replay", &missing]).await;
    assert_eq!(code, Some(1), "{error_output}");
    assert!(error_output.contains(&missing));
    for wrong in [&["replay"][..], &["replay", "--all", "--state", "delivered"], &["replay", &missing, "--all"]] {
        assert_eq!(events(wrong).await.0, Some(2), "{wrong:?}");
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_behind_a_waiting_one_are_not_due_and_follow_it_at_once() {
    let world = World::with().set("EVENTS_RETRY_SCHEDULE", "0ms,1h").start().await;
    world.shop().respond_with(500);
    let (drivers, _) = world.insert_drivers(1, false).await;
    let id = run_story(&[world.admin()], 0, drivers[0]).await;
    const LATE: &str =
        "SELECT count(*) FROM outbox WHERE state = 'pending' AND next_try_at > clock_timestamp() + interval '30 min'";
    eventually("the first event is refused", SOON, || async { (world.count(LATE).await >= 1).then_some(()) }).await;
    // In every interleaving of the commits and the first attempt, one more attempt postpones all events.
    world.shop().respond_with(500);
    let first = world.admin().get(&format!("/api/v1/outbound-events?deliveryId={id}")).await.expect(200);
    let first = first["items"].as_array().unwrap().last().unwrap()["id"].as_str().unwrap().to_owned();
    let replay = async || {
        world.admin().post(&format!("/api/v1/outbound-events/{first}/replay"), &json!({})).await.expect(202);
    };
    replay().await;
    eventually("all events wait as long as the first", SOON, || async { (world.count(LATE).await == 4).then_some(()) })
        .await;
    world.shop().respond_with(200);
    replay().await;
    eventually("all events arrive in order", SOON, || async { (world.shop().accepted(&id) == STORY).then_some(()) })
        .await;
    world.finish().await;
}
