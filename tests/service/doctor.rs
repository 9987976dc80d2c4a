//! Tests of `driver-tracker doctor`: it reports every kind of difference, and none when the stores agree.

use std::process::Output;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use super::support::node::Env;
use super::support::*;

async fn doctor(env: &Env, more: &[&str]) -> Output {
    let arguments: Vec<&str> = ["doctor"].iter().chain(more).copied().collect();
    node::run(&arguments, env).await
}

/// Returns the exit code and the standard output.
async fn run_doctor(env: &Env, more: &[&str]) -> (i32, String) {
    let output = doctor(env, more).await;
    (
        output.status.code().expect("doctor exits by itself"),
        String::from_utf8(output.stdout).expect("the output is UTF-8"),
    )
}

async fn as_json(env: &Env) -> (i32, Value) {
    let (code, text) = run_doctor(env, &["--json"]).await;
    (code, serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn doctor_reports_no_difference_while_drivers_change_continuously() {
    let world = World::with().nodes(2).start().await;
    let fleet = world.fleet(&[100.0, 200.0, 300.0].map(|m| RESTAURANT.offset(m, 0.0))).await;
    world.post_order(&Order::new("one-is-busy")).await.expect(201);
    invariants::assert_redis(&world).await;
    let env = world.env_with(&[]);
    let over = AtomicBool::new(false);
    let changes = async {
        while !over.load(Ordering::Relaxed) {
            for status in ["OFFLINE", "AVAILABLE"] {
                join_all(fleet.iter().map(|driver| driver.request_duty(status))).await;
            }
        }
    };
    let examined = async {
        let report = as_json(&env).await;
        over.store(true, Ordering::Relaxed);
        report
    };
    let ((code, report), ()) = tokio::join!(examined, changes);
    assert_eq!((code, &report["same"], &report["differences"]), (0, &json!(true), &json!([])), "{report}");
    assert_eq!((&report["database"]["drivers"], &report["redis"]["generation"]), (&json!(3), &json!("warm")));
    assert_eq!(report["redis"]["evictionPolicy"], "noeviction");
    assert!(report["redis"]["usedMemoryBytes"].as_u64() > Some(0));
    let (code, text) = run_doctor(&env, &[]).await;
    assert!(code == 0 && text.trim_end().ends_with("the same"), "{code}: {text}");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_difference_that_is_repaired_between_the_two_passes_is_not_reported() {
    let world = World::with().own_redis().set("REDIS_COMPARE_EVERY_MS", 86_400_000).start().await;
    let driver = world.on_duty(RESTAURANT).await;
    invariants::assert_redis(&world).await;
    // The change is long ago, so that the reconciler does not apply it again.
    sqlx::query("UPDATE drivers SET changed_at = now() - interval '1 hour'").execute(&world.pool).await.unwrap();
    let status = world.redis.key("drivers:status");
    let right = world.redis.statuses().await.unwrap().remove(&driver.id).expect("Redis has the driver's status");
    world.redis.command::<()>(&["HSET", &status, &driver.id, "BUSY:4711"]).await;
    let env = world.env_with(&[]);
    let began = std::time::Instant::now();
    let repairing = async {
        eventually("the first pass is over", SOON, || async {
            let stats: String = world.redis.command(&["INFO", "commandstats"]).await;
            stats.contains("cmdstat_mget:").then_some(())
        })
        .await;
        world.redis.command::<()>(&["HSET", &status, &driver.id, &right]).await;
    };
    // No other part of the service reads online keys at this time.
    world.redis.command::<()>(&["CONFIG", "RESETSTAT"]).await;
    let ((code, report), ()) = tokio::join!(as_json(&env), repairing);
    assert_eq!((code, &report["differences"]), (0, &json!([])), "{report}");
    assert!(began.elapsed() > std::time::Duration::from_secs(3), "doctor makes two passes");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_kind_of_difference_is_reported_with_its_drivers() {
    let mut world = World::with().set("HEARTBEAT_TTL_MS", 60_000).start().await;
    let fleet = world.fleet(&[1.0, 2.0, 3.0, 4.0, 5.0].map(|n| RESTAURANT.offset(n * 50.0, 0.0))).await;
    let idle = world.connected_at(world.node(), RESTAURANT).await;
    idle.heartbeat().await;
    invariants::assert_redis(&world).await;
    let env = world.env_with(&[]);
    // No node runs from here on, so nothing repairs Redis. The keys that keep Redis warm live on for a while.
    world.nodes[0].kill9().await;
    let redis = &world.redis;
    let [status, geo, expiry] = ["drivers:status", "drivers:geo", "drivers:expiry"].map(|name| redis.key(name));
    let member = |driver: &Driver| format!("driver:{}", driver.id);
    let unknown_driver_id = uuid::Uuid::now_v7().to_string();
    redis.command::<()>(&["HDEL", &status, &fleet[0].id]).await;
    redis
        .command::<()>(&["HSET", &status, &fleet[1].id, "AVAILABLE:4711", &unknown_driver_id, "BUSY:1", "nobody", "x"])
        .await;
    redis.command::<()>(&["ZREM", &geo, &member(&fleet[2])]).await;
    redis.command::<()>(&["GEOADD", &geo, "77.59", "12.97", &member(&idle)]).await;
    redis.command::<()>(&["DEL", &redis.key(&format!("driver:online:{}", fleet[3].id))]).await;
    redis.command::<()>(&["ZREM", &expiry, &member(&fleet[4])]).await;

    let (code, report) = as_json(&env).await;
    assert_eq!((code, &report["same"], &report["problems"]), (1, &json!(false), &json!([])), "{report}");
    let expected = json!([
        {"kind": "status_missing", "count": 1, "drivers": [fleet[0].id]},
        {"kind": "status_differs", "count": 1, "drivers": [fleet[1].id]},
        {"kind": "missing_in_geo", "count": 1, "drivers": [fleet[2].id]},
        {"kind": "extra_in_geo", "count": 1, "drivers": [idle.id]},
        {"kind": "stale_member", "count": 1, "drivers": [fleet[3].id]},
        {"kind": "never_swept", "count": 2, "drivers": report["differences"][5]["drivers"]},
        {"kind": "unknown_driver", "count": 1, "drivers": [unknown_driver_id]},
    ]);
    assert_eq!(report["differences"], expected);
    assert_eq!(report["strangers"], json!({"count": 1, "first": ["nobody"]}));

    let (code, text) = run_doctor(&env, &["--show", "1"]).await;
    assert!(code == 1 && text.contains("status_missing") && text.contains(&fleet[0].id), "{text}");
    assert!(text.contains("and 1 more"), "{text}");
    let generation = redis.key("drivers:generation");
    for (name, words) in [("foreign", vec!["SET", &generation, "another"]), ("cold", vec!["DEL", &generation])] {
        redis.command::<()>(&words).await;
        let (code, report) = as_json(&env).await;
        assert_eq!((code, &report["problems"]), (1, &json!([name])), "{report}");
    }
    world.expect_redis(false);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn doctor_exits_with_2_when_it_cannot_compare() {
    let world = World::start().await;
    let without_redis = world.env_with(&[("REDIS_URL", "redis://127.0.0.1:1")]);
    let (code, report) = as_json(&without_redis).await;
    assert_eq!((code, &report["same"]), (2, &Value::Null), "{report}");
    assert!(report["error"].as_str().is_some_and(|error| error.contains("Redis")), "{report}");
    let without_schema = world.env_with(&[("DATABASE_URL", &servers::empty_database().await)]);
    let output = doctor(&without_schema, &[]).await;
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("driver-tracker migrate"));
    for (name, value) in [("REDIS_URL", "http://x"), ("DATABASE_URL", "")] {
        let output = doctor(&world.env_with(&[(name, value)]), &[]).await;
        assert_eq!(output.status.code(), Some(2), "{name}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(name));
    }
    world.finish().await;
}
