//! Checks that the Redis rights in `docs/operations.md` are sufficient for everything that the service does.

use std::time::Duration;

use super::support::*;

const PAGE: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md"));
const PASSWORD: &str = "sesame";

/// Returns the user's name and rules from the page, with a password and with the prefix before the key patterns.
fn rules(prefix: &str) -> (String, Vec<String>) {
    let start = PAGE.find("user driver-tracker on ").expect("the page has the user");
    let text = &PAGE[start..start + PAGE[start..].find("```").expect("the block has an end")];
    let mut words = text.split_whitespace().skip(1);
    let name = words.next().expect("the rule has a name").to_owned();
    let rules = words.map(|word| {
        let prefixed = |sign: char| word.strip_prefix(sign).map(|rest| format!("{sign}{prefix}{rest}"));
        match word {
            ">SECRET" => format!(">{PASSWORD}"),
            _ => prefixed('~').or_else(|| prefixed('&')).unwrap_or_else(|| word.to_owned()),
        }
    });
    (name, rules.collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_with_exactly_the_rights_of_the_page_is_refused_no_command() {
    let mut world = World::with().own_redis().nodes(0).set("REDIS_COMPARE_EVERY_MS", 1000).start().await;
    let port = world.own_redis.as_ref().unwrap().port();
    let (name, rules) = rules(&world.redis.key(""));
    let setuser: Vec<&str> = ["ACL", "SETUSER", &name].into_iter().chain(rules.iter().map(String::as_str)).collect();
    world.redis.command::<()>(&setuser).await;
    let url = format!("redis://{name}:{PASSWORD}@127.0.0.1:{port}");
    world.register_secret(PASSWORD);
    for _ in 0..2 {
        let node = world.start_node_with(&[("REDIS_URL", &url)]).await;
        node.wait_for_health("ok").await;
        world.nodes.push(node);
    }
    // Heartbeats with and without coordinates, joins, searches, transitions, and hints to the other node.
    let mut near = world.on_duty_at(&world.nodes[1], RESTAURANT.offset(100.0, 0.0)).await;
    let far = world.on_duty_at(&world.nodes[0], RESTAURANT.offset(900.0, 0.0)).await;
    near.session.send(&serde_json::json!({"type": "heartbeat", "seq": 9000}));
    near.session.wait_for_ack(9000).await;
    let response = world.post_order(&Order::new("by-rights")).await.expect(201);
    let (delivery, assignment) = (response["deliveryId"].as_str().unwrap(), response["assignmentId"].as_str().unwrap());
    assert_eq!(response["driverId"], near.id.as_str());
    near.wait_for_assignment(delivery).await;
    near.deliver(delivery, assignment).await;
    world.wait_for_candidates(std::slice::from_ref(&near)).await;
    // The sweep of expired online keys.
    near.stop_heartbeats();
    eventually("the sweep removes the silent driver", SOON, || async {
        (!world.redis.geo_members().await?.contains(&near.id)).then_some(())
    })
    .await;
    near.start_heartbeats();
    // The rebuild, after data of another database.
    let generation = world.redis.key("drivers:generation");
    for (key, value) in [(&generation, "of another time"), (&world.redis.key("drivers:database"), "another")] {
        world.redis.command::<()>(&["SET", key, value]).await;
    }
    eventually("Redis is rebuilt", SOON, || async {
        let current: Option<String> = world.redis.command(&["GET", &generation]).await;
        current.filter(|current| current != "of another time")
    })
    .await;
    // Two passes of the full resync, with a difference to repair.
    let status = world.redis.key("drivers:status");
    sqlx::query("UPDATE drivers SET changed_at = now() - interval '1 hour'").execute(&world.pool).await.unwrap();
    for _ in 0..2 {
        world.redis.command::<i64>(&["HSET", &status, &far.id, "BUSY:4711"]).await;
        eventually("the full resync repairs the status", SOON, || async {
            world.redis.statuses().await?.remove(&far.id).filter(|current| current.starts_with("AVAILABLE:"))
        })
        .await;
    }
    let page = format!("/api/v1/drivers/nearby?lat={}&lon={}&radiusKm=5", RESTAURANT.lat, RESTAURANT.lon);
    eventually("nearby lists both drivers", SOON, || async {
        let found = world.admin().get(&page).await.expect(200);
        (found["items"].as_array()?.len() == 2).then_some(())
    })
    .await;
    let examined = node::run(&["doctor"], &world.env_with(&[("REDIS_URL", &url)])).await;
    assert_eq!(examined.status.code(), Some(0), "{}", String::from_utf8_lossy(&examined.stdout));
    world::let_time_pass("every periodic task runs once more", Duration::from_secs(3)).await;

    let log: Vec<::redis::Value> = world.redis.command(&["ACL", "LOG"]).await;
    let refused: Vec<String> = log.iter().map(|entry| format!("{entry:?}")).collect();
    let others: Vec<&String> = refused.iter().filter(|what| !what.contains("client|setinfo")).collect();
    assert!(others.is_empty(), "Redis refuses no command: {others:?}");
    assert!(!world.nodes.iter().flat_map(Node::log_lines).any(|line| line.contains("Redis refused a command")));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_with_an_eviction_policy_is_warned_of_in_the_log() {
    let mut world = World::with().own_redis().nodes(0).start().await;
    let warned =
        |node: &Node| node.log_lines().iter().any(|line| line.contains("may evict") && line.contains("allkeys-lru"));
    for (policy, expected) in [("noeviction", false), ("allkeys-lru", true)] {
        world.redis.command::<()>(&["CONFIG", "SET", "maxmemory-policy", policy]).await;
        let mut node = world.start_node().await;
        node.wait_for_health("ok").await;
        assert_eq!(warned(&node), expected, "{policy}");
        node.kill9().await;
        world.nodes.push(node);
    }
    world.finish().await;
}
