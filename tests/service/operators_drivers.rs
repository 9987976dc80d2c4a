//! Tests of the operators' API for drivers.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::support::*;

fn ids(list: &Value) -> Vec<String> {
    let items = list["items"].as_array().expect("the list has items");
    items.iter().map(|item| item["id"].as_str().expect("the item has an id").to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_driver_is_created_read_and_changed_and_unknown_fields_are_left_out() {
    let world = World::start().await;
    let admin = world.admin();
    let body =
        json!({"name": "Asha", "phone": "+91 80 1", "capacity": 2, "externalId": "hr-7", "metadata": {"bike": 3}});
    let made = admin.post("/api/v1/drivers", &body).await.expect(201);
    let id = made["id"].as_str().unwrap();
    assert_eq!((&made["name"], &made["phone"], &made["capacity"]), (&json!("Asha"), &json!("+91 80 1"), &json!(2)));
    assert_eq!((&made["status"], &made["onDuty"], &made["active"]), (&json!("OFFLINE"), &json!(false), &json!(true)));
    assert_eq!((&made["online"], &made["activeDeliveryIds"]), (&json!(false), &json!([])));
    assert_eq!((&made["externalId"], &made["metadata"]), (&json!("hr-7"), &json!({"bike": 3})));
    assert!(made["createdAt"].as_str().unwrap().ends_with('Z') && made["updatedAt"].is_string());
    assert!(made.get("position").is_none(), "an unknown position is left out");
    assert_eq!(uuid::Uuid::parse_str(id).unwrap().get_version_num(), 7);

    let path = format!("/api/v1/drivers/{id}");
    assert_eq!(admin.get(&path).await.expect(200), made);
    let changed = admin.patch(&path, &json!({"name": "Asha R.", "capacity": 1})).await.expect(200);
    assert_eq!(
        (&changed["name"], &changed["phone"], &changed["capacity"]),
        (&json!("Asha R."), &json!("+91 80 1"), &json!(1))
    );
    assert_eq!(world.driver(id).await, changed);

    for bad in [json!({"name": ""}), json!({"capacity": 0}), json!({"phone": 5}), json!({"metadata": "x".repeat(5000)})]
    {
        let reply = admin.patch(&path, &bad).await;
        assert_eq!(reply.invalid_field_names(), [bad.as_object().unwrap().keys().next().unwrap().as_str()], "{bad}");
        reply.problem(422);
    }
    let reply = admin.post("/api/v1/drivers", &json!({"capacity": "two"})).await;
    assert_eq!(reply.invalid_field_names(), ["capacity", "name", "phone"]);
    for unknown in ["nonsense", "00000000-0000-7000-8000-000000000000"] {
        admin.get(&format!("/api/v1/drivers/{unknown}")).await.problem(404);
        admin.patch(&format!("/api/v1/drivers/{unknown}"), &json!({"name": "x"})).await.problem(404);
        admin.delete(&format!("/api/v1/drivers/{unknown}")).await.problem(404);
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_is_paged_newest_first_and_shows_every_driver_exactly_once() {
    let world = World::start().await;
    let admin = world.admin();
    let mut made = Vec::new();
    for n in 0..7 {
        let body = json!({"name": format!("D{n}"), "phone": "1", "externalId": format!("x{}", n % 2)});
        made.push(admin.post("/api/v1/drivers", &body).await.expect(201)["id"].as_str().unwrap().to_owned());
    }
    made.reverse();
    let mut seen = Vec::new();
    let mut path = "/api/v1/drivers?limit=3".to_owned();
    let mut pages = 0;
    loop {
        let page = admin.get(&path).await.expect(200);
        seen.extend(ids(&page));
        pages += 1;
        let Some(cursor) = page["nextCursor"].as_str() else { break };
        path = format!("/api/v1/drivers?limit=3&cursor={cursor}");
    }
    assert_eq!((&seen, pages), (&made, 3));
    assert_eq!(
        ids(&admin.get("/api/v1/drivers").await.expect(200)),
        made,
        "without a limit a page has up to fifty drivers"
    );
    for bad in ["limit=0", "limit=201", "limit=x", "cursor=nonsense", "status=ASLEEP", "online=perhaps"] {
        let reply = admin.get(&format!("/api/v1/drivers?{bad}")).await;
        let name = bad.split('=').next().unwrap().to_owned();
        assert_eq!((reply.status, reply.invalid_field_names()), (422, vec![name]), "{bad}: {}", reply.text);
    }
    let same = admin.get("/api/v1/drivers?externalId=x1").await.expect(200);
    assert_eq!(ids(&same).len(), 3);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drivers_are_filtered_by_status_and_online_and_shown_with_their_position() {
    let world = World::start().await;
    let free = world.on_duty(RESTAURANT.offset(2_000.0, 0.0)).await;
    let busy = world.on_duty(RESTAURANT.offset(100.0, 0.0)).await;
    let order = world.post_order(&Order::new("one")).await.expect(201);
    let (away, _) = world.new_driver().await;
    let list = |query: &'static str| {
        let admin = world.admin();
        async move { ids(&admin.get(&format!("/api/v1/drivers?{query}")).await.expect(200)) }
    };
    assert_eq!(list("status=AVAILABLE").await.join(" "), free.id);
    assert_eq!(list("status=BUSY").await.join(" "), busy.id);
    assert_eq!(list("status=OFFLINE").await.join(" "), away);
    let online: BTreeSet<String> = list("online=true").await.into_iter().collect();
    assert_eq!(online, BTreeSet::from([free.id.clone(), busy.id.clone()]));
    assert_eq!(list("online=false").await.join(" "), away);

    let shown = world.driver(&busy.id).await;
    assert_eq!((&shown["online"], &shown["activeDeliveryIds"][0]), (&json!(true), &order["deliveryId"]));
    let position = &shown["position"];
    assert!((position["lat"].as_f64().unwrap() - busy.place().lat).abs() < 1e-4, "{shown}");
    assert!(position["fixTime"].is_string() && position["ageMs"].as_i64().unwrap() < 10_000, "{shown}");
    let since = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
    world.admin().patch(&format!("/api/v1/drivers/{away}"), &json!({"name": "Later"})).await.expect(200);
    let changed = world.admin().get(&format!("/api/v1/drivers?updatedSince={since}")).await.expect(200);
    assert_eq!(ids(&changed), [away]);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_driver_with_an_active_delivery_cannot_be_deactivated_or_lose_capacity() {
    let world = World::start().await;
    let driver = world.on_duty(RESTAURANT.offset(100.0, 0.0)).await;
    let order = world.post_order(&Order::new("in-hand")).await.expect(201);
    let path = format!("/api/v1/drivers/{}", driver.id);
    world.admin().delete(&path).await.problem(409);
    world.admin().patch(&path, &json!({"active": false})).await.problem(409);
    assert_eq!(world.driver(&driver.id).await["active"], true);
    driver.deliver(order["deliveryId"].as_str().unwrap(), order["assignmentId"].as_str().unwrap()).await;
    world.admin().delete(&path).await.expect(204);
    world.admin().delete(&path).await.expect(204);
    assert!(ids(&world.admin().get("/api/v1/drivers?active=true").await.expect(200)).is_empty());
    let status = world.admin().post(&format!("{path}/status"), &json!({"status": "AVAILABLE", "reason": "x"})).await;
    status.problem(409);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_sets_the_requested_duty_with_a_reason() {
    let world = World::start().await;
    let driver = world.on_duty(RESTAURANT.offset(100.0, 0.0)).await;
    let path = format!("/api/v1/drivers/{}/status", driver.id);
    let set = world.admin().post(&path, &json!({"status": "OFFLINE", "reason": "rain"})).await.expect(200);
    assert_eq!((&set["status"], &set["onDuty"]), (&json!("OFFLINE"), &json!(false)));
    world.post_order(&Order::new("nobody")).await.expect(202);
    for bad in [json!({"status": "BUSY", "reason": "x"}), json!({"status": "OFFLINE"}), json!({"reason": "x"})] {
        world.admin().post(&path, &bad).await.problem(422);
    }
    let set = world.admin().post(&path, &json!({"status": "AVAILABLE", "reason": "sun"})).await.expect(200);
    assert_eq!(set["onDuty"], true);
    driver.wait_for_any_assignment().await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_shown_once_and_listed_without_its_value_and_can_be_revoked() {
    let world = World::start().await;
    let (id, _) = world.new_driver().await;
    let (token_id, token) = world.new_token(&id).await;
    assert!(token.len() >= 43, "the token has 256 bits: {token}");
    let path = format!("/api/v1/drivers/{id}/tokens");
    let listed = world.admin().get(&path).await.expect(200);
    assert_eq!(listed["items"].as_array().unwrap().len(), 2);
    assert!(!listed.to_string().contains(&token));
    let hash: Vec<u8> = sqlx::query_scalar("SELECT token_hash FROM driver_tokens WHERE id = $1")
        .bind(token_id.parse::<uuid::Uuid>().unwrap())
        .fetch_one(&world.pool)
        .await
        .unwrap();
    assert_eq!(hash.len(), 32, "only a hash is stored");
    world.admin().delete(&format!("{path}/{token_id}")).await.expect(204);
    world.admin().delete(&format!("{path}/{}", uuid::Uuid::now_v7())).await.problem(404);
    let (other, _) = world.new_driver().await;
    world.admin().delete(&format!("/api/v1/drivers/{other}/tokens/{token_id}")).await.problem(404);
    world.admin().post("/api/v1/drivers/nonsense/tokens", &json!({})).await.problem(404);
    world.finish().await;
}
