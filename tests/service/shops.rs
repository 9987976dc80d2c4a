//! Tests of several shops on one service: each has its own secrets, orders, events and limits.

use std::time::Duration;

use serde_json::{Value, json};
use standardwebhooks::Webhook;

use super::support::other_shop::secret_of;
use super::support::plan::{SHOP_SECRETS_KEY, WEBHOOK_SECRET};
use super::support::*;

/// Starts a world without drivers, in which every order stays pending.
async fn world() -> World {
    World::with().set("ASSIGNMENT_WAIT_MS", 0).start().await
}

async fn two_shops(world: &World) -> (OtherShop, OtherShop) {
    (OtherShop::make(world, "bakery", json!({})).await, OtherShop::make(world, "florist", json!({})).await)
}

async fn wait_for_events(shop: &OtherShop, delivery: &str, names: &[&str]) {
    eventually(&format!("{} accepts {names:?} of {delivery}", shop.name), SOON, || async {
        (shop.receiver.accepted(delivery) == names).then_some(())
    })
    .await;
}

const CANCELLED: &str = "DELIVERY_CANCELLED_V1";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_shop_has_its_own_orders_and_events_and_no_secret_is_valid_for_another_shop() {
    let world = world().await;
    let (bakery, florist) = two_shops(&world).await;
    let node = world.node();
    let mine = bakery.post_order(node, &Order::new("same")).await.expect(202);
    let theirs = florist.post_order(node, &Order::new("same")).await.expect(202);
    let configured = world.post_order(&Order::new("same")).await.expect(202);
    let ids: Vec<&Value> = [&mine, &theirs, &configured].into_iter().map(|order| &order["deliveryId"]).collect();
    assert!(ids[0] != ids[1] && ids[1] != ids[2] && ids[0] != ids[2], "three shops have three deliveries");
    assert_eq!((&mine["shop"], &theirs["shop"]), (&json!("bakery"), &json!("florist")));
    let again = bakery.post_order(node, &Order::new("same")).await.expect(200);
    assert_eq!(again["deliveryId"], mine["deliveryId"]);

    // The secret of another shop, of the other direction, or of the configured shop is refused.
    for wrong in [&florist.orders_secret, &bakery.events_secret, &WEBHOOK_SECRET.to_owned()] {
        bakery.post_order_signed(node, &Order::new("stolen"), wrong).await.refused(401, "unauthorized");
    }
    let unknown_shop = OtherShop { name: "nobody".to_owned(), ..florist };
    unknown_shop.post_order(node, &Order::new("stolen")).await.refused(401, "unauthorized");
    let florist = OtherShop { name: "florist".to_owned(), ..unknown_shop };
    let with_foreign_secret = OtherShop { orders_secret: florist.orders_secret.clone(), ..bakery };
    with_foreign_secret.post_cancellation(node, "same").await.refused(401, "unauthorized");
    let bakery = with_foreign_secret;
    assert_eq!(world.count("SELECT count(*) FROM deliveries").await, 3);

    florist.post_cancellation(node, "same").await.expect(200);
    assert_eq!(world.delivery(mine["deliveryId"].as_str().unwrap()).await["status"], "PENDING");
    let cancelled = theirs["deliveryId"].as_str().unwrap();
    wait_for_events(&florist, cancelled, &[CANCELLED]).await;
    let event = &florist.receiver.posts()[0].event;
    assert_eq!((&event["shop"], &event["sellerOrderId"]), (&json!("florist"), &json!("same")));
    assert!(bakery.receiver.posts().is_empty() && world.shop().posts().is_empty(), "events go only to their own shop");
    florist.receiver.assert_all_signed();
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shops_api_key_cannot_read_or_change_anything_of_another_shop() {
    let world = world().await;
    let (bakery, florist) = two_shops(&world).await;
    let own = bakery.cancelled_order(world.node(), "own").await;
    let foreign = florist.cancelled_order(world.node(), "foreign").await;
    let open = florist.post_order(world.node(), &Order::new("open")).await.expect(202)["deliveryId"].clone();
    let open = open.as_str().unwrap();
    wait_for_events(&florist, &foreign, &[CANCELLED]).await;
    let foreign_event = florist.receiver.posts()[0].event["eventId"].as_str().unwrap().to_owned();
    let api = bakery.api(&world).await;

    for path in ["/api/v1/deliveries", "/api/v1/outbound-events", "/api/v1/shops"] {
        let items = api.get(path).await.expect(200)["items"].clone();
        let items = items.as_array().unwrap();
        assert_eq!(items.len(), 1, "{path}: {items:?}");
        assert!(items[0]["shop"] == "bakery" || items[0]["name"] == "bakery", "{path}: {items:?}");
    }
    api.get(&format!("/api/v1/deliveries/{own}")).await.expect(200);
    for path in [
        format!("/api/v1/deliveries/{open}"),
        format!("/api/v1/deliveries/{open}/events"),
        format!("/api/v1/outbound-events/{foreign_event}"),
        "/api/v1/deliveries?shop=florist".to_owned(),
        "/api/v1/outbound-events?shop=florist".to_owned(),
        "/api/v1/shops/florist".to_owned(),
    ] {
        api.get(&path).await.problem(404);
    }
    let mut order = Order::new("posed").0;
    order["shop"] = json!("florist");
    for (path, body) in [
        (format!("/api/v1/deliveries/{open}/cancel"), json!({"reason": "x"})),
        (format!("/api/v1/outbound-events/{foreign_event}/replay"), json!({})),
        ("/api/v1/outbound-events/replay".to_owned(), json!({"shop": "florist"})),
        ("/api/v1/deliveries".to_owned(), order),
    ] {
        api.post(&path, &body).await.problem(404);
    }
    let path = format!("/api/v1/outbound-events/replay?deliveryId={foreign}");
    let replayed = api.post(&path, &json!({"state": "delivered", "deliveryId": foreign})).await.expect(202);
    assert_eq!(replayed["replayed"], 0, "the delivery of another shop is not found");
    for (path, body) in [
        ("/api/v1/shops", json!({"name": "third"})),
        ("/api/v1/shops/bakery/secrets", json!({"direction": "orders"})),
        ("/api/v1/shops/bakery/endpoint/enable", json!({})),
    ] {
        api.post(path, &body).await.problem(403);
    }
    api.patch("/api/v1/shops/bakery", &json!({"ordersPerSecond": 0})).await.problem(403);
    assert_eq!(world.delivery(open).await["status"], "PENDING");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_is_shown_once_and_the_previous_one_stays_valid_for_the_overlap() {
    let world = world().await;
    let shop = OtherShop::make(&world, "bakery", json!({})).await;
    let (node, admin) = (world.node(), world.admin());
    let shown = admin.get("/api/v1/shops/bakery").await.expect(200);
    assert!(!shown.to_string().contains("whsec_"), "a secret is shown once: {shown}");
    let new_secret = async |body: Value| {
        let made = admin.post("/api/v1/shops/bakery/secrets", &body).await.expect(201);
        let secret = made["secret"].as_str().unwrap().to_owned();
        world.register_secret(secret.trim_start_matches("whsec_"));
        (made["secretId"].as_str().unwrap().to_owned(), secret)
    };
    let (_, second) = new_secret(json!({"direction": "orders", "overlapSeconds": 3600})).await;
    assert_ne!(second, shop.orders_secret);
    shop.post_order(node, &Order::new("by-the-old")).await.expect(202);
    shop.post_order_signed(node, &Order::new("by-the-new"), &second).await.expect(202);

    // A short overlap for both earlier secrets.
    let (_, third) = new_secret(json!({"direction": "orders", "overlapSeconds": 2})).await;
    for old in [&shop.orders_secret, &second] {
        eventually("the overlap is over", SOON, || async {
            (shop.post_order_signed(node, &Order::new("over"), old).await.status == 401).then_some(())
        })
        .await;
    }
    shop.post_order_signed(node, &Order::new("by-the-third"), &third).await.expect(202);

    // A leaked secret is revoked at once.
    let (leaked_id, leaked) = new_secret(json!({"direction": "orders"})).await;
    shop.post_order_signed(node, &Order::new("leaked"), &leaked).await.expect(202);
    assert_eq!(admin.delete(&format!("/api/v1/shops/bakery/secrets/{leaked_id}")).await.status, 204);
    shop.post_order_signed(node, &Order::new("leaked-too"), &leaked).await.refused(401, "unauthorized");
    admin.delete(&format!("/api/v1/shops/bakery/secrets/{leaked_id}")).await.problem(404);
    admin.delete("/api/v1/shops/bakery/secrets/nonsense").await.problem(404);

    // Events are signed with every valid secret.
    let (_, events) = new_secret(json!({"direction": "events", "overlapSeconds": 3600})).await;
    let accepted = shop.post_order_signed(node, &Order::new("signed"), &third).await.expect(202);
    let id = accepted["deliveryId"].as_str().unwrap();
    admin.post(&format!("/api/v1/deliveries/{id}/cancel"), &json!({"reason": "x"})).await.expect(200);
    let post = shop.receiver.wait_for_event(id, CANCELLED).await;
    for secret in [&shop.events_secret, &events] {
        Webhook::new(secret).unwrap().verify(&post.raw, &post.headers).unwrap();
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_table_and_no_stored_response_contains_a_secret() {
    let world = world().await;
    let request = || {
        let request = world.admin().request("POST", "/api/v1/shops").header("idempotency-key", "once");
        request.json(&json!({"name": "bakery"}))
    };
    let made = http::send(request()).await.expect(201);
    assert_eq!(http::send(request()).await.expect(201), made, "a repeat gets the same response");
    let secret = secret_of(&made, "orders");
    world.register_secret(secret.trim_start_matches("whsec_"));
    let tables: Vec<String> = sqlx::query_scalar("SELECT tablename::text FROM pg_tables WHERE schemaname = 'public'")
        .fetch_all(&world.pool)
        .await
        .unwrap();
    assert!(tables.iter().any(|table| table == "shop_secrets"));
    for table in tables {
        let statement = format!("SELECT count(*) FROM {table} t WHERE t::text LIKE '%' || $1 || '%'");
        for kept in [secret.trim_start_matches("whsec_").to_owned(), hex_of(&secret)] {
            let found: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(statement.clone()))
                .bind(kept)
                .fetch_one(&world.pool)
                .await
                .unwrap();
            assert_eq!(found, 0, "{table} does not contain the secret");
        }
    }
    world.finish().await;
}

/// Returns the secret's text in hexadecimal, as `bytea` columns show it.
fn hex_of(secret: &str) -> String {
    secret.trim_start_matches("whsec_").bytes().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_limit_of_one_shop_does_not_affect_others() {
    let world = world().await;
    let busy = OtherShop::make(&world, "busy", json!({"ordersPerSecond": 2})).await;
    let calm = OtherShop::make(&world, "calm", json!({})).await;
    let node = world.node();
    let orders: Vec<Order> = (0..12).map(|n| Order::new(&format!("n-{n}"))).collect();
    let responses = join_all(orders.iter().map(|order| busy.post_order(node, order))).await;
    let (accepted, limited): (Vec<_>, Vec<_>) = responses.into_iter().partition(|response| response.status == 202);
    assert!(!accepted.is_empty() && limited.len() >= 2, "{} accepted, {} limited", accepted.len(), limited.len());
    for response in limited {
        assert!(response.retry_after_s() >= 1);
        response.refused(429, "too_many_orders");
    }
    for response in join_all(orders.iter().map(|order| calm.post_order(node, order))).await {
        response.expect(202);
    }
    world.post_order(&Order::new("configured")).await.expect(202);

    let changed = world.admin().patch("/api/v1/shops/busy", &json!({"ordersPerSecond": 0})).await.expect(200);
    assert_eq!(changed["ordersPerSecond"], 0);
    let taken_back = json!({"ordersPerSecond": null, "eventsUrl": null});
    let changed = world.admin().patch("/api/v1/shops/calm", &taken_back).await.expect(200);
    assert!(changed.get("ordersPerSecond").is_none() && changed["endpoint"].get("url").is_none(), "{changed}");
    let more: Vec<Order> = (0..12).map(|n| Order::new(&format!("more-{n}"))).collect();
    for response in join_all(more.iter().map(|order| busy.post_order(node, order))).await {
        response.expect(202);
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shops_that_fail_do_not_delay_others() {
    let world = world().await;
    let (hanging, failing) = two_shops(&world).await;
    let alive = OtherShop::make(&world, "alive", json!({})).await;
    hanging.receiver.set_reaction(|_| Reaction::Hang);
    failing.receiver.respond_with(500);
    let node = world.node();
    // More events than the limit of concurrent posts to one shop, and more than a relay with one queue could pass.
    for n in 0..40 {
        let id = format!("n-{n}");
        tokio::join!(hanging.cancelled_order(node, &id), failing.cancelled_order(node, &id));
    }
    eventually("the shop that never responds has as many posts in flight as the limit allows", SOON, || async {
        (hanging.receiver.posts().len() >= 32).then_some(())
    })
    .await;
    let delivery = alive.cancelled_order(node, "fine").await;
    eventually("the other shop receives its event", Duration::from_secs(8), || async {
        (alive.receiver.accepted(&delivery) == [CANCELLED]).then_some(())
    })
    .await;
    let held = "SELECT coalesce(max(n), 0) FROM (SELECT count(*) AS n FROM outbox WHERE lease_owner IS NOT NULL GROUP BY shop) AS s";
    assert!(world.count(held).await <= 32, "the posts in flight to one shop are limited");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_serves_a_new_shop_within_seconds() {
    let world = World::with().nodes(2).set("ASSIGNMENT_WAIT_MS", 0).start().await;
    let shop = OtherShop::make(&world, "bakery", json!({})).await;
    // The node that created the shop serves it at once, the other node soon.
    shop.post_order(&world.nodes[0], &Order::new("here")).await.expect(202);
    let accepted = eventually("the other node serves the shop", SOON, || async {
        let response = shop.post_order(&world.nodes[1], &Order::new("there")).await;
        (response.status == 202).then_some(response.body)
    })
    .await;
    shop.post_cancellation(&world.nodes[1], "there").await.expect(200);
    wait_for_events(&shop, accepted["deliveryId"].as_str().unwrap(), &[CANCELLED]).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_key_that_secrets_are_derived_from_can_be_rotated() {
    const NEW: &str = "YW5vdGhlci1rZXktdGhhdC1zZWNyZXRzLWNvbWUtZnJvbS4=";
    let mut world = world().await;
    let shop = OtherShop::make(&world, "bakery", json!({})).await;
    let both = world.start_node_with(&[("SHOP_SECRETS_KEY", &format!("{NEW},{SHOP_SECRETS_KEY}"))]).await;
    shop.post_order(&both, &Order::new("old-key")).await.expect(202);
    let made = world.admin_at(&both).post("/api/v1/shops/bakery/secrets", &json!({"direction": "orders"})).await;
    let fresh = made.expect(201)["secret"].as_str().unwrap().to_owned();
    world.register_secret(fresh.trim_start_matches("whsec_"));
    shop.post_order_signed(&both, &Order::new("new-key"), &fresh).await.expect(202);

    let late = world.start_node_with(&[("SHOP_SECRETS_KEY", NEW)]).await;
    shop.post_order_signed(&late, &Order::new("only-new"), &fresh).await.expect(202);
    shop.post_order(&late, &Order::new("gone")).await.refused(401, "unauthorized");
    assert!(late.log_lines().iter().any(|line| line.contains("SHOP_SECRETS_KEY") && line.contains("bakery")));
    let none = world.start_node_with(&[("SHOP_SECRETS_KEY", "")]).await;
    let refused = world.admin_at(&none).post("/api/v1/shops", &json!({"name": "florist"})).await;
    refused.refused(409, "no_secrets_key");
    world.nodes.extend([both, late, none]);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shops_are_listed_read_and_validated_as_documented() {
    let world = world().await;
    let admin = world.admin();
    let made = admin.post("/api/v1/shops", &json!({"name": "bakery", "ordersPerSecond": 7})).await;
    assert_eq!(made.header("location").as_deref(), Some("/api/v1/shops/bakery"));
    let made = made.expect(201);
    for direction in ["orders", "events"] {
        world.register_secret(secret_of(&made, direction).trim_start_matches("whsec_"));
    }
    let required = world.count("SELECT min_program_schema::bigint FROM database_identity").await;
    assert_eq!(required, 6, "a program without support for several shops does not start");
    assert_eq!((&made["ordersPerSecond"], &made["endpoint"]), (&json!(7), &json!({"enabled": true})));
    admin.post("/api/v1/shops", &json!({"name": "bakery"})).await.refused(409, "exists");
    admin.post("/api/v1/shops", &json!({"name": "vendure"})).await.refused(409, "exists");
    let wrong = json!({"name": "Not A Name", "eventsUrl": "nonsense", "ordersPerSecond": -1});
    let bad = admin.post("/api/v1/shops", &wrong).await;
    assert_eq!(bad.invalid_field_names(), ["eventsUrl", "name", "ordersPerSecond"]);
    for url in ["http://169.254.169.254/", "http://0x0a000001/", "http://[::ffff:10.0.0.1]/", "http://3232235521/"] {
        let inside = admin.patch("/api/v1/shops/bakery", &json!({"eventsUrl": url})).await;
        assert_eq!(inside.invalid_field_names(), ["eventsUrl"], "{url}: {}", inside.text);
    }

    let first = admin.get("/api/v1/shops?limit=1").await.expect(200);
    assert_eq!(first["items"][0]["name"], "bakery", "the list is newest first: {first}");
    let rest = admin.get(&format!("/api/v1/shops?cursor={}", first["nextCursor"].as_str().unwrap())).await.expect(200);
    assert_eq!(rest["items"][0]["name"], "vendure");
    assert!(rest.get("nextCursor").is_none());
    admin.get("/api/v1/shops/nobody").await.problem(404);
    admin.get("/api/v1/shops/Not%20A%20Name").await.problem(404);
    admin.patch("/api/v1/shops/nobody", &json!({"ordersPerSecond": 1})).await.problem(404);
    admin.post("/api/v1/shops/nobody/secrets", &json!({"direction": "orders"})).await.problem(404);
    let unknown = admin.post("/api/v1/shops/bakery/secrets", &json!({"direction": "sideways"})).await;
    assert_eq!(unknown.invalid_field_names(), ["direction"]);

    // The configured shop can be changed only by the configuration.
    admin.patch("/api/v1/shops/vendure", &json!({"ordersPerSecond": 1})).await.refused(409, "configured_shop");
    let secret = admin.post("/api/v1/shops/vendure/secrets", &json!({"direction": "orders"})).await;
    secret.refused(409, "configured_shop");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_response_of_an_old_address_does_not_disable_the_new_one() {
    let world = world().await;
    let (shop, elsewhere) = two_shops(&world).await;
    shop.receiver.set_reaction(|_| Reaction::After(Duration::from_secs(2), 410));
    let first = shop.cancelled_order(world.node(), "first").await;
    eventually("the event is in flight", SOON, || async { (!shop.receiver.posts().is_empty()).then_some(()) }).await;
    let moved = json!({"eventsUrl": elsewhere.receiver.url});
    world.admin().patch("/api/v1/shops/bakery", &moved).await.expect(200);
    eventually("the late response arrives and the event goes to the new address", SOON, || async {
        (!elsewhere.receiver.posts().is_empty()).then_some(())
    })
    .await;
    assert_eq!(world.count("SELECT count(*) FROM shop_endpoints WHERE NOT enabled").await, 0);
    assert!(shop.receiver.accepted(&first).is_empty());
    world.admin().patch("/api/v1/shops/bakery", &json!({"eventsUrl": null})).await.expect(200);
    world.finish().await;
}
