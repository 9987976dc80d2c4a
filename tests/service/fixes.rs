//! Which fixes are believed, by every way that a fix can come, and what becomes of a driver whose fixes are not.

use std::time::Duration;

use chrono::{SecondsFormat, TimeDelta, Utc};
use serde_json::{Value, json};

use super::support::plan::Plan;
use super::support::*;

const CODES: [&str; 4] = ["fix_in_future", "fix_at_zero", "fix_inaccurate", "fix_too_fast"];

fn at(offset: TimeDelta) -> String {
    (Utc::now() + offset).to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// A fix at the restaurant, in some things another.
fn here(more: Value) -> Value {
    let mut fix = json!({"fixTime": at(TimeDelta::zero()), "lat": RESTAURANT.lat, "lon": RESTAURANT.lon});
    more.as_object().unwrap().iter().for_each(|(name, value)| fix[name] = value.clone());
    fix
}

/// One fix for each code, in the order of [`CODES`], of a driver who stands at the restaurant.
fn unbelievable() -> [Value; 4] {
    let far = RESTAURANT.offset(20_000.0, 0.0);
    [
        here(json!({"fixTime": at(TimeDelta::seconds(60))})),
        here(json!({"lat": 0, "lon": 0})),
        here(json!({"accuracyM": 250})),
        here(json!({"lat": far.lat, "lon": far.lon})),
    ]
}

fn as_heartbeat(mut fix: Value, seq: usize) -> Value {
    fix["type"] = json!("heartbeat");
    fix["seq"] = json!(seq);
    fix
}

fn codes_of(refused: &Value) -> Vec<&str> {
    refused.as_array().expect("refusals").iter().map(|one| one["code"].as_str().unwrap()).collect()
}

async fn counted(world: &World) -> Vec<f64> {
    let node = world.node();
    let series = CODES.map(|code| format!("driver_tracker_fixes_refused_total{{code=\"{code}\"}}"));
    together(series.iter().map(|series| node.metric(series))).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_refusal_is_counted_by_whatever_way_it_comes_and_keeps_the_driver_alive() {
    let world = World::start().await;
    let mut driver = world.on_duty(RESTAURANT).await;
    driver.fall_silent();
    let app = world.node().api().keyed(Some(&driver.token));
    let session = &driver.session;
    let alive = |way: &'static str, before_ms: i64| {
        let (world, id) = (&world, driver.id.clone());
        async move {
            eventually(&format!("a refused fix by {way} renews the key"), SOON, || async {
                world.redis.online_ttl_ms(&id).await.filter(|ms| *ms > before_ms)
            })
            .await
        }
    };
    // Lets the key age, so that its renewal is seen.
    let aged = async || {
        eventually("the key ages", SOON, || async {
            world.redis.online_ttl_ms(&driver.id).await.filter(|ms| *ms < 5_600)
        })
        .await
    };
    assert_eq!(counted(&world).await, [0.0; 4]);

    let before_ms = aged().await;
    for (n, fix) in unbelievable().into_iter().enumerate() {
        session.send(&as_heartbeat(fix, 1000 + n));
        let error = session.take_where(CODES[n], SOON, |frame| frame["type"] == "error").await;
        assert_eq!((&error["code"], &error["seq"]), (&json!(CODES[n]), &json!(1000 + n)));
        assert_eq!(error.get("serverTime").is_some(), CODES[n] == "fix_in_future", "{error}");
    }
    alive("heartbeats", before_ms).await;
    assert_eq!(counted(&world).await, [1.0; 4]);

    let before_ms = aged().await;
    let told = session.ask(json!({"type": "batch", "fixes": unbelievable()})).await;
    assert_eq!((&told["accepted"], codes_of(&told["refused"])), (&json!(0), CODES.to_vec()));
    alive("batch", before_ms).await;
    assert_eq!(counted(&world).await, [2.0; 4]);

    let before_ms = aged().await;
    let told = app.post("/api/v1/driver/locations", &json!({"fixes": unbelievable()})).await.expect(200);
    assert_eq!((&told["accepted"], codes_of(&told["refused"])), (&json!(0), CODES.to_vec()));
    alive("locations", before_ms).await;
    assert_eq!(counted(&world).await, [3.0; 4]);

    let before_ms = aged().await;
    let frames: Vec<Value> = unbelievable().into_iter().enumerate().map(|(n, fix)| as_heartbeat(fix, n)).collect();
    let told = app.post("/api/v1/driver/messages", &json!({"frames": frames})).await.expect(200);
    for (n, answer) in told["answers"].as_array().unwrap().iter().enumerate() {
        assert_eq!((&answer["code"], &answer["seq"]), (&json!(CODES[n]), &json!(n)), "{answer}");
    }
    alive("messages", before_ms).await;
    assert_eq!(counted(&world).await, [4.0; 4]);

    // What is negative is absent, and what is unknown is borne.
    let odd = json!({"speedMps": -1, "headingDeg": -1, "batteryPct": -1, "new": true});
    session.send(&as_heartbeat(here(odd), 2000));
    session.acked(2000).await;
    assert!(session.waiting("error").is_empty());

    let answer = world.order(&Order::new("where-they-were")).await.expect(201);
    assert_eq!(answer["driverId"], driver.id.as_str(), "alive, and not moved");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_refusal_is_the_operators_to_set() {
    let plan = World::with().set("FIX_MAX_FUTURE_MS", 2000).set("FIX_MAX_INACCURACY_M", 20);
    let world = plan.set("FIX_REFUSE_ZERO", false).set("FIX_MAX_SPEED_KMH", 0).start().await;
    let driver = world.connected_at(world.node(), RESTAURANT).await;
    let fix = |ahead_s: i64, accuracy_m: f64, lat: f64| json!({"fixTime": at(TimeDelta::seconds(ahead_s)), "lat": lat, "lon": 0, "accuracyM": accuracy_m});
    let fixes =
        json!([fix(0, 20.0, 50.0), fix(0, 20.5, 50.0), fix(6, 5.0, 50.0), fix(0, 5.0, 0.0), fix(0, 5.0, -50.0)]);
    let told = driver.session.ask(json!({"type": "batch", "fixes": fixes})).await;
    assert_eq!(told["accepted"], 3, "{told}");
    assert_eq!(codes_of(&told["refused"]), ["fix_inaccurate", "fix_in_future"]);
    world.finish().await;
}

/// Alive, and nobody knows where: no order until a fresh fix comes.
async fn an_old_position_earns_no_orders(plan: Plan) {
    let world = plan.set("POSITION_MAX_AGE_MS", 1500).set("HEARTBEAT_TTL_MS", 20_000).start().await;
    let mut driver = world.on_duty(RESTAURANT.offset(100.0, 0.0)).await;
    driver.fall_silent();
    for seq in 5000..5004 {
        driver.session.send(&json!({"type": "heartbeat", "seq": seq}));
        driver.session.acked(seq).await;
        world::let_time_pass("the position grows old while the driver speaks", Duration::from_millis(500)).await;
    }
    let waiting = world.order(&Order::new("too-old")).await.expect(202);
    let id = waiting["deliveryId"].as_str().unwrap();
    assert_eq!(world.driver(&driver.id).await["online"], true);
    driver.keep_beating();
    driver.assignment(id).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_position_earns_no_orders_by_redis() {
    an_old_position_earns_no_orders(World::with()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_position_earns_no_orders_by_postgresql_alone() {
    an_old_position_earns_no_orders(World::with().without_redis()).await;
}
