//! Tests of sessions: who may open one, which of two is the current one, and what ends one.

use std::time::Duration;

use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use super::support::session::{Closed, SUBPROTOCOL, upgrade};
use super::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_upgrade_requires_a_valid_token_and_a_known_subprotocol() {
    let world = World::start().await;
    let (_, token) = world.new_driver().await;
    let bearer = format!("Bearer {token}");
    let address = &world.node().address;
    let open = |headers: Vec<(&'static str, &str)>| Session::open(upgrade(address, "/ws/driver", &headers));

    assert_eq!(Session::try_connect(address, "guess").await.err(), Some(401));
    let admin = world.admin_key.clone();
    assert_eq!(
        Session::try_connect(address, &admin).await.err(),
        Some(401),
        "an operator's key is not a driver's token"
    );
    let with_origin = vec![("origin", "https://evil.example"), ("sec-websocket-protocol", SUBPROTOCOL)];
    assert_eq!(open(with_origin).await.err(), Some(403));
    let other = vec![("authorization", bearer.as_str()), ("sec-websocket-protocol", "driver-tracker.v9")];
    assert_eq!(open(other).await.err(), Some(400));

    let none = open(vec![("authorization", bearer.as_str())])
        .await
        .unwrap_or_else(|s| panic!("the upgrade was refused with {s}"));
    assert_eq!(none.take_first().await["type"], "welcome");
    let in_url = Session::open(upgrade(address, &format!("/ws/driver?token={token}"), &[])).await;
    assert_eq!(in_url.err(), Some(401), "a token in the URL is refused");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_welcome_has_the_whole_state_and_is_always_the_first_frame() {
    let world = World::start().await;
    let mut driver = world.on_duty(RESTAURANT.offset(100.0, 0.0)).await;
    let response = world.post_order(&Order::new("w")).await.expect(201);
    let id = response["deliveryId"].as_str().unwrap();
    driver.session.acknowledge_commands(false);
    for _ in 0..5 {
        // `reconnect` asserts that the welcome is the first frame, although a command is due at once.
        let welcome = driver.reconnect(world.node()).await;
        assert!(welcome["sessionId"].is_string() && welcome["serverTime"].is_string());
        assert_eq!(
            (&welcome["heartbeatIntervalMs"], &welcome["ttlMs"]),
            (&json!(500), &json!(6000)),
            "the interval is the one for busy drivers"
        );
        assert_eq!(welcome["offers"], json!([]));
        assert_eq!(welcome["deliveries"][0]["id"], id);
        assert_eq!(welcome["deliveries"][0]["assignmentId"], response["assignmentId"]);
        let shown_driver = &welcome["driver"];
        assert_eq!(
            (&shown_driver["status"], &shown_driver["onDuty"], &shown_driver["capacity"]),
            (&json!("BUSY"), &json!(true), &json!(1))
        );
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newest_session_replaces_older_ones_on_every_node() {
    let world = World::with().nodes(2).start().await;
    let mut driver = world.on_duty_at(&world.nodes[0], RESTAURANT.offset(100.0, 0.0)).await;
    driver.stop_heartbeats();
    let second = Session::connect(&world.nodes[1].address, &driver.token).await;
    assert_eq!(second.take_first().await["type"], "welcome");
    assert_eq!(driver.session.wait_for_close(Duration::from_secs(5)).await, Closed::With(4001));
    // The next session is on the first node again.
    let third = Session::connect(&world.nodes[1].address, &driver.token).await;
    assert_eq!(third.take_first().await["type"], "welcome");
    second.wait_for_close_code(4001).await;
    third.send(&driver::heartbeat(1, driver.place()));
    third.wait_for_ack(1).await;
    let response = world.post_order(&Order::new("newest")).await.expect(201);
    let frame = third.take("assignment").await;
    assert_eq!(frame["delivery"]["id"], response["deliveryId"]);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_of_a_replaced_session_have_no_effect() {
    let world = World::with().nodes(2).set("HEARTBEAT_TTL_MS", 15_000).start().await;
    let mut driver = world.on_duty_at(&world.nodes[0], RESTAURANT.offset(100.0, 0.0)).await;
    driver.stop_heartbeats();
    // The old session's node is frozen while the session is replaced. Old frames wait in its sockets.
    world.nodes[0].freeze();
    let new = Session::connect(&world.nodes[1].address, &driver.token).await;
    assert_eq!(new.take_first().await["type"], "welcome");
    driver.session.send(&json!({"type": "status", "status": "OFFLINE", "ref": "old"}));
    driver.move_to(RESTAURANT.offset(5_000.0, 0.0));
    driver.send_heartbeat();
    world.nodes[0].thaw();
    driver.session.wait_for_close_code(4001).await;
    holds("the driver stays on duty", Duration::from_secs(1), || async {
        world.driver_status(&driver.id).await == "AVAILABLE"
    })
    .await;
    assert!(driver.session.waiting("ok").is_empty(), "the duty request of the old session gets no success");
    new.send(&driver::heartbeat(1, RESTAURANT.offset(110.0, 0.0)));
    new.wait_for_ack(1).await;
    let position = eventually("the position is of the new session", SOON, || async {
        let shown = world.admin_at(&world.nodes[1]).get(&format!("/api/v1/drivers/{}", driver.id)).await;
        shown.body["position"]["lat"].as_f64()
    })
    .await;
    assert!((position - RESTAURANT.offset(110.0, 0.0).lat).abs() < 0.001, "{position}");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_token_ends_its_session_and_is_refused_while_other_tokens_stay_valid() {
    let world = World::with().nodes(2).start().await;
    let (id, _) = world.new_driver().await;
    let (token_id, token) = world.new_token(&id).await;
    let (_, other_token) = world.new_token(&id).await;
    let session = Session::connect(&world.nodes[1].address, &token).await;
    session.take("welcome").await;
    let path = format!("/api/v1/drivers/{id}/tokens/{token_id}");
    world.admin_at(&world.nodes[0]).delete(&path).await.expect(204);
    session.wait_for_close_code(4002).await;
    assert_eq!(Session::try_connect(&world.nodes[0].address, &token).await.err(), Some(401));
    world.node().api().keyed(Some(&token)).get("/api/v1/driver/state").await.problem(401);

    let session = Session::connect(&world.nodes[0].address, &other_token).await;
    session.take("welcome").await;
    let listed = world.admin().get(&format!("/api/v1/drivers/{id}/tokens")).await.expect(200);
    assert!(!listed.to_string().contains(&other_token), "a list shows no token");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deactivated_driver_loses_the_session_and_is_refused_until_reactivated() {
    let world = World::with().nodes(2).start().await;
    let driver = world.on_duty_at(&world.nodes[1], RESTAURANT.offset(100.0, 0.0)).await;
    let path = format!("/api/v1/drivers/{}", driver.id);
    world.admin().delete(&path).await.expect(204);
    driver.session.wait_for_close_code(4002).await;
    assert_eq!(Session::try_connect(&world.nodes[0].address, &driver.token).await.err(), Some(401));
    world.node().api().keyed(Some(&driver.token)).get("/api/v1/driver/state").await.problem(401);
    let shown = world.driver(&driver.id).await;
    assert_eq!(
        (&shown["active"], &shown["onDuty"], &shown["status"]),
        (&json!(false), &json!(false), &json!("OFFLINE"))
    );
    world.post_order(&Order::new("nobody")).await.expect(202);

    world.admin().patch(&path, &json!({"active": true})).await.expect(200);
    let session = Session::connect(&world.nodes[0].address, &driver.token).await;
    assert_eq!(session.take_first().await["driver"]["onDuty"], false);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ticket_opens_one_session_on_any_node_from_an_allowed_origin() {
    let world = World::with().nodes(2).set("ALLOWED_ORIGINS", "https://app.example.com").start().await;
    let (_, token) = world.new_driver().await;
    let api = world.node().api().keyed(Some(&token));
    let ticket = || async {
        let made = api.post("/api/v1/driver/ws-ticket", &json!({})).await.expect(201);
        assert!(made["expiresAt"].is_string());
        made["ticket"].as_str().expect("the response has a ticket").to_owned()
    };
    let with_origin = |ticket: String, origin: Option<&'static str>| async move { (ticket, origin) };
    let open = |(ticket, origin): (String, Option<&'static str>)| {
        let mut headers = vec![("sec-websocket-protocol", SUBPROTOCOL)];
        headers.extend(origin.map(|origin| ("origin", origin)));
        Session::open(upgrade(&world.nodes[1].address, &format!("/ws/driver?ticket={ticket}"), &headers))
    };
    let first = ticket().await;
    let session = open(with_origin(first.clone(), Some("https://app.example.com")).await).await;
    assert_eq!(
        session.unwrap_or_else(|s| panic!("the upgrade was refused with {s}")).take_first().await["type"],
        "welcome"
    );
    assert_eq!(open((first, Some("https://app.example.com"))).await.err(), Some(401), "a ticket is valid once");
    assert_eq!(open((ticket().await, Some("https://evil.example"))).await.err(), Some(403));
    assert_eq!(open((ticket().await, None)).await.err(), Some(403));
    assert_eq!(open(("guess".to_owned(), Some("https://app.example.com"))).await.err(), Some(401));
    // The public address is an allowed origin too.
    let own = world.nodes[1].address.clone();
    let path = format!("/ws/driver?ticket={}", ticket().await);
    let headers = [("origin", format!("http://{own}")), ("sec-websocket-protocol", SUBPROTOCOL.to_owned())];
    let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
    assert!(Session::open(upgrade(&own, &path, &headers)).await.is_ok());
    world.node().api().post("/api/v1/driver/ws-ticket", &json!({})).await.problem(401);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_change_by_others_is_sent_to_the_driver() {
    let world = World::with().nodes(2).start().await;
    let driver = world.on_duty_at(&world.nodes[1], RESTAURANT.offset(100.0, 0.0)).await;
    let path = format!("/api/v1/drivers/{}/status", driver.id);
    world.admin().post(&path, &json!({"status": "OFFLINE", "reason": "break"})).await.expect(200);
    let shown_driver = driver.session.take("status").await;
    assert_eq!((&shown_driver["status"], &shown_driver["onDuty"]), (&json!("OFFLINE"), &json!(false)));
    world.admin().post(&path, &json!({"status": "AVAILABLE", "reason": "back"})).await.expect(200);
    let shown_driver = driver.session.take("status").await;
    assert_eq!((&shown_driver["status"], &shown_driver["onDuty"]), (&json!("AVAILABLE"), &json!(true)));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_duty_requested_during_a_delivery_holds_after_it() {
    let world = World::start().await;
    let driver = world.on_duty(RESTAURANT.offset(100.0, 0.0)).await;
    let answer = world.post_order(&Order::new("last-one")).await.expect(201);
    let id = answer["deliveryId"].as_str().unwrap();
    driver.wait_for_assignment(id).await;
    let response = driver.request_duty("OFFLINE").await;
    assert_eq!(
        (&response["status"], &response["onDuty"]),
        (&json!("BUSY"), &json!(false)),
        "the delivery stays assigned: {response}"
    );
    driver.deliver(id, answer["assignmentId"].as_str().unwrap()).await;
    world.wait_for_driver(&driver.id, "OFFLINE").await;
    world.post_order(&Order::new("nobody")).await.expect(202);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_disconnected_before_its_session_opened_replaces_no_session() {
    let world = World::start().await;
    let (driver, token) = world.new_driver().await;
    let id: uuid::Uuid = driver.parse().unwrap();
    drop(Session::connect(&world.node().address, &token).await.take_first().await);
    let mut lock = world.pool.begin().await.unwrap();
    let held = "SELECT 1 FROM driver_sessions WHERE driver_id = $1 FOR UPDATE";
    sqlx::query(held).bind(id).execute(&mut *lock).await.unwrap();
    // Both sessions wait for the row. The one whose client disconnected gets it last.
    let live = Session::connect(&world.node().address, &token).await;
    world::let_time_pass("the connected client waits for the row", Duration::from_millis(300)).await;
    drop(Session::connect(&world.node().address, &token).await);
    world::let_time_pass("the other client waits behind it and has disconnected", Duration::from_millis(300)).await;
    lock.rollback().await.unwrap();
    let welcome = live.take_first().await;
    assert_eq!(welcome["type"], "welcome");
    eventually("the node has one session", SOON, || async {
        (world.node().metric("driver_tracker_sessions").await == 1.0).then_some(())
    })
    .await;
    assert_eq!(live.ended(), None);
    let newest = "SELECT session_id FROM driver_sessions WHERE driver_id = $1";
    let newest: uuid::Uuid = sqlx::query_scalar(newest).bind(id).fetch_one(&world.pool).await.unwrap();
    assert_eq!(welcome["sessionId"], newest.to_string());
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_sent_just_before_the_close_are_processed_with_all_effects() {
    let world = World::start().await;
    let mut driver = world.on_duty(RESTAURANT.offset(100.0, 0.0)).await;
    let answer = world.post_order(&Order::new("last-words")).await.expect(201);
    let (delivery, assignment) = driver.wait_for_any_assignment().await;
    assert_eq!(answer["deliveryId"], delivery.as_str());
    driver.stop_heartbeats();
    for status in ["PICKED_UP", "IN_TRANSIT", "DELIVERED"] {
        let frame =
            json!({"type": "delivery.update", "deliveryId": delivery, "assignmentId": assignment, "status": status});
        driver.session.send(&frame);
    }
    driver.session.send(&json!({"type": "status", "status": "OFFLINE"}));
    driver.session.send_raw(Message::Close(None));
    eventually("the delivery is DELIVERED", SOON, || async {
        let response = world.admin().get(&format!("/api/v1/deliveries/{delivery}")).await.expect(200);
        (response["status"] == "DELIVERED").then_some(())
    })
    .await;
    eventually("the driver is off duty", SOON, || async {
        (world.driver(&driver.id).await["onDuty"] == false).then_some(())
    })
    .await;
    // The effects are applied at once and not only by the next pass of the reconciler.
    let statuses = world.redis.statuses().await.expect("Redis responds");
    assert!(statuses[&driver.id].starts_with("OFFLINE"), "{statuses:?}");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_postgresql_lost_is_closed_with_a_code_that_allows_reconnects() {
    let world = World::start().await;
    let mut driver = world.connected_at(world.node(), RESTAURANT).await;
    driver.reconnect(world.node()).await;
    // The state after a failover to a standby that lacks the last commit.
    let sql = "UPDATE driver_sessions SET session_epoch = session_epoch - 1";
    sqlx::query(sql).execute(&world.pool).await.unwrap();
    // A frame during that time does not end the session with a permanent code either.
    let response = driver.request_duty("AVAILABLE").await;
    assert_eq!((&response["code"], &response["retryable"]), (&json!("unavailable"), &json!(true)), "{response}");
    assert_eq!(
        driver.session.wait_for_close(SOON).await,
        Closed::With(1011),
        "the code is not 4001, which is permanent"
    );
    driver.reconnect(world.node()).await;
    driver.heartbeat().await;
    // The driver's first session may be lost too.
    sqlx::query("DELETE FROM driver_sessions").execute(&world.pool).await.unwrap();
    assert_eq!(driver.session.wait_for_close(SOON).await, Closed::With(1011));
    driver.reconnect(world.node()).await;
    // The number of the lost session may belong to another session on another node.
    let sql = "UPDATE driver_sessions SET session_id = gen_random_uuid(), opened_at = clock_timestamp()";
    sqlx::query(sql).execute(&world.pool).await.unwrap();
    assert_eq!(driver.session.wait_for_close(SOON).await, Closed::With(4001));
    world.finish().await;
}
