//! Tests of API keys, their scopes, and idempotency keys.

use serde_json::{Value, json};

use super::support::http::Api;
use super::support::*;

/// Creates a key by the program and returns it.
async fn new_key(world: &World, arguments: &[&str]) -> String {
    let arguments = [&["api-key", "create", "--name", "made-by-a-test"], arguments].concat();
    let made = node::run(&arguments, &world.env_with(&[])).await;
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let text = String::from_utf8(made.stdout).unwrap();
    assert_eq!(text.lines().count(), 1, "the output is only the key: {text}");
    text.trim().to_owned()
}

/// Paths that operators read.
const READS: [&str; 4] =
    ["/api/v1/drivers", "/api/v1/deliveries", "/api/v1/outbound-events", "/api/v1/drivers/nearby?lat=1&lon=1"];

async fn create_driver(api: &Api) -> Reply {
    api.post("/api/v1/drivers", &json!({"name": "Asha", "phone": "+91 80 1"})).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_needs_a_valid_key_and_a_scope_that_allows_it() {
    let world = World::start().await;
    let order = world.post_order(&Order::new("seen")).await.expect(202);
    let delivery = format!("/api/v1/deliveries/{}", order["deliveryId"].as_str().unwrap());
    let (driver, token) = world.new_driver().await;
    for key in [None, Some("guess"), Some(token.as_str())] {
        let api = world.node().api().keyed(key);
        for path in READS {
            let reply = api.get(path).await;
            assert_eq!(reply.status, 401, "{path} with {key:?}: {}", reply.text);
            reply.problem(401);
        }
        create_driver(&api).await.problem(401);
    }
    let read = world.node().api().keyed(Some(&new_key(&world, &["--scope", "read"]).await));
    for path in READS {
        read.get(path).await.expect(200);
    }
    read.get(&delivery).await.expect(200);
    create_driver(&read).await.problem(403);
    read.post(&format!("{delivery}/cancel"), &json!({"reason": "x"})).await.problem(403);
    read.delete(&format!("/api/v1/drivers/{driver}")).await.problem(403);

    let shop = world.node().api().keyed(Some(&new_key(&world, &["--scope", "shop", "--shop", "vendure"]).await));
    shop.get(&delivery).await.expect(200);
    assert_eq!(shop.get("/api/v1/deliveries").await.expect(200)["items"].as_array().unwrap().len(), 1);
    shop.get("/api/v1/outbound-events").await.expect(200);
    shop.get("/api/v1/drivers").await.problem(403);
    create_driver(&shop).await.problem(403);
    let made = shop.post("/api/v1/deliveries", &Order::new("by-key").0).await;
    assert!(matches!(made.status, 201 | 202), "{}", made.text);
    assert_eq!(made.body["shop"], "vendure");
    create_driver(&world.admin()).await.expect(201);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_key_is_refused_and_a_list_shows_no_key() {
    let world = World::start().await;
    let key = new_key(&world, &["--scope", "admin"]).await;
    let api = world.node().api().keyed(Some(&key));
    api.get("/api/v1/drivers").await.expect(200);
    let listed = node::run(&["api-key", "list"], &world.env_with(&[])).await;
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(!listed.contains(&key) && !listed.contains(&world.admin_key), "{listed}");
    let line = listed.lines().find(|line| line.contains("made-by-a-test")).expect("the list has the key by its name");
    let is_id = |word: &&str| word.parse::<uuid::Uuid>().is_ok();
    let id = line.split_whitespace().find(is_id).expect("the line has the key's id");
    let revoked = node::run(&["api-key", "revoke", id], &world.env_with(&[])).await;
    assert!(revoked.status.success(), "{}", String::from_utf8_lossy(&revoked.stderr));
    eventually("the key is refused", SOON, || async { (api.get("/api/v1/drivers").await.status == 401).then_some(()) })
        .await;
    let unknown = uuid::Uuid::now_v7().to_string();
    let unknown = node::run(&["api-key", "revoke", &unknown], &world.env_with(&[])).await;
    assert!(!unknown.status.success());
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_post_is_applied_once_for_each_idempotency_key() {
    let world = World::with().nodes(2).start().await;
    let post = |node: usize, key: &'static str, body: Value| {
        let request = world.admin_at(&world.nodes[node]).request("POST", "/api/v1/drivers").json(&body);
        http::send(request.header("Idempotency-Key", key))
    };
    let asha = json!({"name": "Asha", "phone": "+91 80 1"});
    let first = post(0, "one", asha.clone()).await;
    let location = first.header("location").expect("the response has a Location");
    let made = first.expect(201);
    assert!(location.ends_with(&format!("/api/v1/drivers/{}", made["id"].as_str().unwrap())), "{location}");
    let again = post(1, "one", asha.clone()).await;
    assert_eq!(again.header("location").as_deref(), Some(location.as_str()));
    assert_eq!(again.expect(201), made);
    post(0, "one", json!({"name": "Ravi", "phone": "+91 80 2"})).await.problem(422);
    assert_ne!(
        post(0, "two", asha.clone()).await.expect(201)["id"],
        made["id"],
        "a request with another key is applied"
    );

    post(0, "bad", json!({"name": ""})).await.problem(422);
    post(0, "bad", asha.clone()).await.expect(201);

    let before = world.count("SELECT count(*) FROM drivers").await;
    let at_once = join_all((0..12).map(|n| post(n % 2, "at-once", asha.clone()))).await;
    let ids: std::collections::BTreeSet<String> = at_once
        .into_iter()
        .filter_map(|reply| match reply.status {
            201 => Some(reply.body["id"].as_str().unwrap().to_owned()),
            409 => None,
            other => panic!("{other}: {}", reply.text),
        })
        .collect();
    assert_eq!(ids.len(), 1, "{ids:?}");
    assert_eq!(world.count("SELECT count(*) FROM drivers").await, before + 1);

    // A key is bound to its route: the same key on another route is another request.
    let driver = made["id"].as_str().unwrap();
    let elsewhere = world.admin().request("POST", &format!("/api/v1/drivers/{driver}/status"));
    let body = json!({"status": "OFFLINE", "reason": "x"});
    http::send(elsewhere.json(&body).header("Idempotency-Key", "one")).await.expect(200);
    world.finish().await;
}
