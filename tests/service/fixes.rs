//! Tests of the plausibility rules for fixes, over every interface that takes fixes, and of drivers whose fixes are
//! refused.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde_json::{Value, json};

use super::support::plan::Plan;
use super::support::*;

const CODES: [&str; 9] = [
    "fix_in_future",
    "fix_at_zero",
    "fix_inaccurate",
    "fix_too_fast",
    "fix_too_old",
    "fix_too_old",
    "fix_too_old",
    "fix_inaccurate",
    "fix_inaccurate",
];
/// Each code, and how often it is in [`CODES`].
const COUNTS: [(&str, f64); 5] = [
    ("fix_in_future", 1.0),
    ("fix_at_zero", 1.0),
    ("fix_inaccurate", 3.0),
    ("fix_too_fast", 1.0),
    ("fix_too_old", 3.0),
];

fn at(offset: TimeDelta) -> String {
    (Utc::now() + offset).to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// Returns a fix at the restaurant, with some fields replaced.
fn here(more: Value) -> Value {
    let mut fix = json!({"fixTime": at(TimeDelta::zero()), "lat": RESTAURANT.lat, "lon": RESTAURANT.lon});
    more.as_object().unwrap().iter().for_each(|(name, value)| fix[name] = value.clone());
    fix
}

/// Returns one refused fix for each entry of [`CODES`], in that order, of a driver at the restaurant.
fn refused_fixes() -> [Value; 9] {
    let far = RESTAURANT.offset(20_000.0, 0.0);
    [
        here(json!({"fixTime": at(TimeDelta::seconds(60))})),
        here(json!({"lat": 0, "lon": 0})),
        here(json!({"accuracyM": 250})),
        here(json!({"lat": far.lat, "lon": far.lon})),
        // Eight days ago, one overflow of the GPS week counter ago, and before 1970.
        here(json!({"fixTime": at(-TimeDelta::days(8))})),
        here(json!({"fixTime": at(-TimeDelta::weeks(1024))})),
        here(json!({"fixTime": "1970-01-01T00:00:00+05:30"})),
        here(json!({"accuracyM": -1})),
        here(json!({"accuracyM": -0.001})),
    ]
}

fn as_heartbeat(mut fix: Value, seq: usize) -> Value {
    fix["type"] = json!("heartbeat");
    fix["seq"] = json!(seq);
    fix
}

fn codes_of(refused: &Value) -> Vec<&str> {
    refused.as_array().expect("refused is a list").iter().map(|one| one["code"].as_str().unwrap()).collect()
}

/// Returns whether each code was counted `times` times as often as it is in [`CODES`].
async fn counted(world: &World, times: f64) -> bool {
    let node = world.node();
    let series = COUNTS.map(|(code, _)| format!("driver_tracker_fixes_refused_total{{code=\"{code}\"}}"));
    let counts = join_all(series.iter().map(|series| node.metric(series))).await;
    counts == COUNTS.map(|(_, count)| count * times)
}

fn has_server_time(code: &str) -> bool {
    matches!(code, "fix_in_future" | "fix_too_old")
}

/// Asserts that the refusals about the device's clock, and no others, have `serverTime`.
fn assert_server_times(refused: &Value) {
    for one in refused.as_array().expect("refused is a list") {
        assert_eq!(one.get("serverTime").is_some(), has_server_time(one["code"].as_str().unwrap()), "{one}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_fix_is_counted_and_renews_the_online_key_over_every_interface() {
    let world = World::start().await;
    let mut driver = world.on_duty(RESTAURANT).await;
    driver.stop_heartbeats();
    let app = world.node().api().keyed(Some(&driver.token));
    let session = &driver.session;
    let alive = |way: &'static str, before_ms: i64| {
        let (world, id) = (&world, driver.id.clone());
        async move {
            eventually(&format!("a refused fix over {way} renews the online key"), SOON, || async {
                world.redis.online_ttl_ms(&id).await.filter(|ms| *ms > before_ms)
            })
            .await
        }
    };
    // The key must age first so that its renewal is visible.
    let aged = async || {
        eventually("the online key ages", SOON, || async {
            world.redis.online_ttl_ms(&driver.id).await.filter(|ms| *ms < 5_600)
        })
        .await
    };
    assert!(counted(&world, 0.0).await);

    let before_ms = aged().await;
    for (n, fix) in refused_fixes().into_iter().enumerate() {
        session.send(&as_heartbeat(fix, 1000 + n));
        let error = session.take_where(CODES[n], SOON, |frame| frame["type"] == "error").await;
        assert_eq!((&error["code"], &error["seq"]), (&json!(CODES[n]), &json!(1000 + n)));
        assert_eq!(error.get("serverTime").is_some(), has_server_time(CODES[n]), "{error}");
    }
    alive("heartbeats", before_ms).await;
    assert!(counted(&world, 1.0).await);

    let before_ms = aged().await;
    let response = session.send_request(json!({"type": "batch", "fixes": refused_fixes()})).await;
    assert_eq!((&response["accepted"], codes_of(&response["refused"])), (&json!(0), CODES.to_vec()));
    assert_server_times(&response["refused"]);
    alive("batch", before_ms).await;
    assert!(counted(&world, 2.0).await);

    let before_ms = aged().await;
    let response = app.post("/api/v1/driver/locations", &json!({"fixes": refused_fixes()})).await.expect(200);
    assert_eq!((&response["accepted"], codes_of(&response["refused"])), (&json!(0), CODES.to_vec()));
    assert_server_times(&response["refused"]);
    alive("locations", before_ms).await;
    assert!(counted(&world, 3.0).await);

    let before_ms = aged().await;
    let frames: Vec<Value> = refused_fixes().into_iter().enumerate().map(|(n, fix)| as_heartbeat(fix, n)).collect();
    let response = app.post("/api/v1/driver/messages", &json!({"frames": frames})).await.expect(200);
    for (n, answer) in response["answers"].as_array().unwrap().iter().enumerate() {
        assert_eq!((&answer["code"], &answer["seq"]), (&json!(CODES[n]), &json!(n)), "{answer}");
    }
    alive("messages", before_ms).await;
    assert!(counted(&world, 4.0).await);

    // Negative values count as absent, and unknown fields are tolerated.
    let odd = json!({"speedMps": -1, "headingDeg": -1, "batteryPct": -1, "new": true});
    session.send(&as_heartbeat(here(odd), 2000));
    session.wait_for_ack(2000).await;
    assert!(session.waiting("error").is_empty());

    let answer = world.post_order(&Order::new("where-they-were")).await.expect(201);
    assert_eq!(answer["driverId"], driver.id.as_str(), "the driver is online at the same place");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fixes_with_any_spelling_of_time_are_accepted_and_old_fixes_do_not_end_the_session() {
    let world = World::start().await;
    let mut driver = world.connected_at(world.node(), RESTAURANT).await;
    driver.stop_heartbeats();
    let session = &driver.session;
    for seq in 5000..5025 {
        session.send(&as_heartbeat(here(json!({"fixTime": "1970-01-01T00:00:00+05:30"})), seq));
    }
    session.wait_for_ack(5024).await;
    let now = Utc::now();
    let local = now + TimeDelta::minutes(330);
    let spelled = [
        now.format("%Y-%m-%dt%H:%M:%S%.6fz").to_string(),
        now.format("%Y-%m-%d %H:%M:%SZ").to_string(),
        now.format("%Y-%m-%dT%H:%M:%S+0000").to_string(),
        now.format("%Y-%m-%dT%H:%M:%S-0000").to_string(),
        now.format("%Y-%m-%dT%H:%M:%S.000000000000Z").to_string(),
        local.format("%Y-%m-%dT%H:%M:%S+0530").to_string(),
        (now - TimeDelta::minutes(1)).format("%Y-%m-%dT%H:%M:60Z").to_string(),
        at(-TimeDelta::days(7)),
    ];
    let fixes: Vec<Value> = spelled.iter().map(|time| here(json!({"fixTime": time, "accuracyM": 0}))).collect();
    let response = session.send_request(json!({"type": "batch", "fixes": fixes})).await;
    assert_eq!((&response["accepted"], &response["refused"]), (&json!(spelled.len()), &json!([])), "{spelled:?}");
    let order = Order::new("offset-without-colon").with("readyAt", json!("2026-01-27t15:30:00+0530"));
    let delivery_id =
        world.post_order(&order).await.body["deliveryId"].as_str().expect("the order is accepted").to_owned();
    let statement = "SELECT ready_at FROM deliveries WHERE id = $1";
    let id: uuid::Uuid = delivery_id.parse().unwrap();
    let ready_at: DateTime<Utc> = sqlx::query_scalar(statement).bind(id).fetch_one(&world.pool).await.unwrap();
    assert_eq!(ready_at.to_rfc3339(), "2026-01-27T10:00:00+00:00");
    let beyond = Order::new("year-10000").with("readyAt", json!("9999-12-31T23:59:59-01:00"));
    let refused = world.post_order(&beyond).await;
    assert_eq!((refused.status, refused.invalid_field_names()), (422, vec!["readyAt".to_owned()]));
    let found = world.admin().get("/api/v1/deliveries?from=2026-01-27%2010:00:00%2B0530&to=9999-12-31t23:59:59z").await;
    assert_eq!(found.expect(200)["items"].as_array().unwrap().len(), 1);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_plausibility_rule_is_configurable() {
    let plan = World::with().set("FIX_MAX_FUTURE_MS", 2000).set("FIX_MAX_INACCURACY_M", 20);
    let world = plan.set("FIX_REFUSE_ZERO", false).set("FIX_MAX_SPEED_KMH", 0).start().await;
    let driver = world.connected_at(world.node(), RESTAURANT).await;
    let fix = |ahead_s: i64, accuracy_m: f64, lat: f64| json!({"fixTime": at(TimeDelta::seconds(ahead_s)), "lat": lat, "lon": 0, "accuracyM": accuracy_m});
    let fixes =
        json!([fix(0, 20.0, 50.0), fix(0, 20.5, 50.0), fix(6, 5.0, 50.0), fix(0, 5.0, 0.0), fix(0, 5.0, -50.0)]);
    let response = driver.session.send_request(json!({"type": "batch", "fixes": fixes})).await;
    assert_eq!(response["accepted"], 3, "{response}");
    assert_eq!(codes_of(&response["refused"]), ["fix_inaccurate", "fix_in_future"]);
    world.finish().await;
}

/// Asserts that a driver who is online with an old fix is no candidate until a new fix arrives.
async fn assert_old_fix_is_no_candidate(plan: Plan) {
    let world = plan.set("POSITION_MAX_AGE_MS", 1500).set("HEARTBEAT_TTL_MS", 20_000).start().await;
    let mut driver = world.on_duty(RESTAURANT.offset(100.0, 0.0)).await;
    driver.stop_heartbeats();
    for seq in 5000..5004 {
        driver.session.send(&json!({"type": "heartbeat", "seq": seq}));
        driver.session.wait_for_ack(seq).await;
        world::let_time_pass("the fix grows old while the driver sends heartbeats", Duration::from_millis(500)).await;
    }
    let waiting = world.post_order(&Order::new("too-old")).await.expect(202);
    let id = waiting["deliveryId"].as_str().unwrap();
    assert_eq!(world.driver(&driver.id).await["online"], true);
    driver.start_heartbeats();
    driver.wait_for_assignment(id).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_driver_with_an_old_fix_is_no_candidate_by_redis() {
    assert_old_fix_is_no_candidate(World::with()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_driver_with_an_old_fix_is_no_candidate_by_postgresql_alone() {
    assert_old_fix_is_no_candidate(World::with().without_redis()).await;
}
