//! Tests of query parameters that occur twice: `status` of deliveries is a set, and every other parameter is refused.

use serde_json::{Value, json};

use super::support::*;

fn orders(list: &Value) -> Vec<String> {
    let items = list["items"].as_array().expect("the list has items");
    items.iter().map(|item| item["sellerOrderId"].as_str().expect("the item has an order id").to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_statuses_of_deliveries_are_a_set() {
    let world = World::start().await;
    let admin = world.admin();
    let driver = world.on_duty(RESTAURANT.offset(100.0, 0.0)).await;
    for id in ["assigned", "waiting", "cancelled"] {
        let response = world.post_order(&Order::new(id)).await;
        assert!(matches!(response.status, 201 | 202), "{}", response.text);
    }
    world.post_cancellation("cancelled", None).await.expect(200);
    let list = |query: &str| {
        let (admin, path) = (admin.clone(), format!("/api/v1/deliveries?{query}"));
        async move { orders(&admin.get(&path).await.expect(200)) }
    };
    assert_eq!(list("status=PENDING&status=ASSIGNED").await, ["waiting", "assigned"]);
    assert_eq!(list("status=ASSIGNED&status=CANCELLED&status=ASSIGNED").await, ["cancelled", "assigned"]);
    assert_eq!(list("status=PENDING").await, ["waiting"]);
    assert_eq!(list("").await, ["cancelled", "waiting", "assigned"]);
    // The filter holds over pages.
    let first = admin.get("/api/v1/deliveries?limit=1&status=PENDING&status=ASSIGNED").await.expect(200);
    let cursor = first["nextCursor"].as_str().expect("there is another page");
    let query = format!("status=PENDING&limit=1&status=ASSIGNED&cursor={cursor}");
    assert_eq!((orders(&first), list(&query).await), (vec!["waiting".to_owned()], vec!["assigned".to_owned()]));
    for query in ["status=PENDING,ASSIGNED", "status=PENDING&status=LOST", "status=", "status=pending"] {
        let reply = admin.get(&format!("/api/v1/deliveries?{query}")).await;
        assert_eq!((reply.status, reply.invalid_field_names()), (422, vec!["status".to_owned()]), "{query}");
    }
    drop(driver);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_other_repeated_parameter_is_refused_by_name() {
    let world = World::start().await;
    let admin = world.admin();
    let (driver, _) = world.new_driver().await;
    let delivery = world.post_order(&Order::new("1")).await.expect(202)["deliveryId"].as_str().unwrap().to_owned();
    let twice = |name: &str, one: &str, other: &str| format!("{name}={one}&{name}={other}");
    for (path, name, one, other) in [
        ("deliveries", "limit", "10", "20"),
        ("deliveries", "shop", "vendure", "vendure"),
        ("deliveries", "sellerOrderId", "1", "2"),
        ("deliveries", "unknown", "1", "1"),
        ("drivers", "status", "BUSY", "OFFLINE"),
        ("drivers", "online", "true", "true"),
        ("drivers/nearby?lat=12.9&lon=77.6", "limit", "1", "2"),
        ("drivers/nearby?lon=77.6", "lat", "12.9", "12.9"),
        ("outbound-events", "state", "dead", "pending"),
        ("outbound-events", "cursor", "a", "a"),
        ("shops", "limit", "1", "1"),
        (&format!("drivers/{driver}/tokens"), "limit", "1", "2"),
        (&format!("deliveries/{delivery}/events"), "limit", "1", "2"),
    ] {
        let separator = if path.contains('?') { '&' } else { '?' };
        let reply = admin.get(&format!("/api/v1/{path}{separator}{}", twice(name, one, other))).await;
        assert!(reply.invalid_field_names().contains(&name.to_owned()), "{path} {name}: {}", reply.text);
        reply.refused(422, "invalid_fields");
    }
    let upgrade = world.node().api().request("GET", "/ws/driver?ticket=a&ticket=b");
    let headers = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let upgrade = headers.into_iter().fold(upgrade, |request, (name, value)| request.header(name, value));
    let reply = http::send(upgrade).await;
    assert_eq!(reply.invalid_field_names(), ["ticket"], "{}", reply.text);
    assert_eq!(reply.refused(422, "invalid_fields")["errors"][0]["code"], json!("repeated"));
    world.finish().await;
}
