//! Tests of tracks: live fixes, late fixes, and no fix outside an assignment.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde_json::{Value, json};
use tokio::task::block_in_place;

use super::support::*;

fn text(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

fn moment(value: &Value) -> DateTime<Utc> {
    value.as_str().expect("the value is a text").parse().expect("the time is in RFC 3339")
}

async fn track(world: &World, delivery: &str) -> Value {
    world.admin().get(&format!("/api/v1/deliveries/{delivery}/track")).await.expect(200)
}

/// Waits until the track has at least so many fixes, and returns it.
async fn track_of(world: &World, delivery: &str, fixes: usize) -> Value {
    eventually(&format!("the track has {fixes} fixes"), SOON, || async {
        let found = track(world, delivery).await;
        let count: usize =
            found["features"].as_array()?.iter().map(|f| f["properties"]["times"].as_array().map_or(0, Vec::len)).sum();
        (count >= fixes).then_some(found)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_track_has_the_live_and_late_fixes_of_the_assignment_and_no_others() {
    let world = World::start().await;
    let mut driver = world.on_duty(RESTAURANT.offset(100.0, 0.0)).await;
    driver.stop_heartbeats();
    let answer = world.post_order(&Order::new("tracked")).await.expect(201);
    let (id, assignment) = (answer["deliveryId"].as_str().unwrap(), answer["assignmentId"].as_str().unwrap());
    assert_eq!(track(&world, id).await, json!({"type": "FeatureCollection", "features": []}));
    driver.session.take_where("the interval of busy drivers", SOON, |frame| frame["heartbeatIntervalMs"] == 500).await;
    let begin = moment(&world.delivery(id).await["assignedAt"]);

    for step in 0..3 {
        driver.move_to(RESTAURANT.offset(100.0 - f64::from(step) * 10.0, 0.0));
        driver.heartbeat().await;
        world::let_time_pass("the fixes have different times", Duration::from_millis(100)).await;
    }
    track_of(&world, id, 3).await;
    driver.deliver(id, assignment).await;
    let end = moment(&world.delivery(id).await["deliveredAt"]);
    // Fixes outside the assignment: live and late, before and after it.
    driver.heartbeat().await;
    let between = begin + (end - begin) / 2;
    let fix = |time: DateTime<Utc>, east_m: f64| {
        let place = RESTAURANT.offset(80.0, east_m);
        json!({"fixTime": text(time), "lat": place.lat, "lon": place.lon})
    };
    let late = [
        fix(begin - TimeDelta::seconds(30), 1.0),
        fix(between, 2.0),
        fix(between + TimeDelta::milliseconds(1), 3.0),
        fix(end + TimeDelta::milliseconds(20), 4.0),
    ];
    let response = driver.session.send_request(json!({"type": "batch", "fixes": late})).await;
    assert_eq!(response["accepted"], 4, "{response}");
    // The same batch again, as an app does that got no response, and one more fix over HTTP.
    driver.session.send_request(json!({"type": "batch", "fixes": late})).await;
    let app = world.node().api().keyed(Some(&driver.token));
    let one_more = json!({"fixes": [fix(between + TimeDelta::milliseconds(2), 5.0)]});
    assert_eq!(app.post("/api/v1/driver/locations", &one_more).await.expect(200)["accepted"], 1);

    let found = track_of(&world, id, 6).await;
    let feature = &found["features"][0];
    assert_eq!((&found["features"][1], &feature["geometry"]["type"]), (&Value::Null, &json!("LineString")));
    let about = &feature["properties"];
    assert_eq!((&about["driverId"], &about["assignmentId"]), (&json!(driver.id), &json!(assignment)));
    assert_eq!((&about["deliveryId"], &about["attempt"]), (&json!(id), &json!(1)));
    let times: Vec<DateTime<Utc>> = about["times"].as_array().unwrap().iter().map(moment).collect();
    assert!(times.is_sorted() && times.iter().all(|time| (begin..=end).contains(time)), "{times:?} in {begin}..{end}");
    assert_eq!(feature["geometry"]["coordinates"].as_array().unwrap().len(), times.len());
    world::let_time_pass("the other fixes would be written by now", Duration::from_millis(1200)).await;
    assert_eq!(world.count("SELECT count(*) FROM delivery_track").await, 6, "no other fix is stored");
    assert_eq!(world.node().metric("driver_tracker_track_fixes_stored_total").await, 6.0);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_driver_of_a_delivery_has_a_line_of_their_own() {
    let world = World::start().await;
    let first = world.on_duty(RESTAURANT.offset(50.0, 0.0)).await;
    let second = world.on_duty(RESTAURANT.offset(400.0, 0.0)).await;
    let response = world.post_order(&Order::new("handed-on")).await.expect(201);
    let (id, assignment) = (response["deliveryId"].as_str().unwrap(), response["assignmentId"].as_str().unwrap());
    first.wait_for_assignment(id).await;
    track_of(&world, id, 2).await;
    assert_eq!(first.update(id, assignment, "REJECTED", json!({})).await["type"], "ok");
    second.wait_for_assignment(id).await;
    let found = eventually("the track has the second driver's line", SOON, || async {
        let found = track(&world, id).await;
        (found["features"].as_array()?.len() == 2).then_some(found)
    })
    .await;
    let drivers = [0, 1].map(|n| found["features"][n]["properties"]["driverId"].clone());
    assert_eq!(drivers, [json!(first.id), json!(second.id)]);
    assert_eq!(found["features"][1]["properties"]["attempt"], 2);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_track_is_visible_to_those_who_may_read_the_delivery() {
    let world = World::start().await;
    let waiting = world.post_order(&Order::new("nobody")).await.expect(202);
    let path = format!("/api/v1/deliveries/{}/track", waiting["deliveryId"].as_str().unwrap());
    let reply = world.admin().get(&path).await;
    assert_eq!(reply.header("content-type").as_deref(), Some("application/geo+json"));
    reply.expect(200);
    world.node().api().get(&path).await.problem(401);
    sqlx::query("INSERT INTO shops (name) VALUES ('other')").execute(&world.pool).await.unwrap();
    for (shop, status) in [("vendure", 200), ("other", 404)] {
        let made = ["api-key", "create", "--name", "t", "--scope", "shop", "--shop", shop];
        let key = node::run(&made, &world.env_with(&[])).await;
        let key = String::from_utf8(key.stdout).unwrap().trim().to_owned();
        world.register_secret(&key);
        assert_eq!(world.node().api().keyed(Some(&key)).get(&path).await.status, status, "{shop}");
    }
    for unknown in [uuid::Uuid::now_v7().to_string(), "x".to_owned()] {
        world.admin().get(&format!("/api/v1/deliveries/{unknown}/track")).await.problem(404);
    }
    world.admin().post(&path, &json!({})).await.problem(405);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heartbeats_continue_while_postgresql_is_frozen_and_the_track_is_complete_afterwards() {
    let world = World::with().own_postgres().set("HEARTBEAT_TTL_MS", 30_000).start().await;
    let postgres = world.own_postgres.clone().unwrap();
    let mut driver = world.on_duty(RESTAURANT.offset(100.0, 0.0)).await;
    driver.stop_heartbeats();
    let response = world.post_order(&Order::new("through-an-outage")).await.expect(201);
    let id = response["deliveryId"].as_str().unwrap();
    driver.session.take_where("the interval of busy drivers", SOON, |frame| frame["heartbeatIntervalMs"] == 500).await;
    block_in_place(|| postgres.freeze()).expect("PostgreSQL is frozen");
    for _ in 0..10 {
        // Each heartbeat is acknowledged: none waits for the track.
        driver.heartbeat().await;
        world::let_time_pass("the heartbeats span several flush intervals", Duration::from_millis(300)).await;
    }
    block_in_place(|| postgres.thaw());
    let found = track_of(&world, id, 10).await;
    assert_eq!(found["features"].as_array().unwrap().len(), 1);
    assert_eq!(world.node().metric("driver_tracker_track_fixes_dropped_total").await, 0.0);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_of_coming_days_are_created_and_old_days_are_pruned() {
    let world = World::with().nodes(0).set("TRACK_RETENTION_DAYS", 7).start().await;
    let insert = "INSERT INTO delivery_track (driver_id, fix_time, lat, lon)
        SELECT gen_random_uuid(), now() - make_interval(days => days), 1, 1 FROM unnest($1::int[]) days";
    // Old days with a partition of their own, and fixes of days without one.
    for days in [40, 9, 3] {
        let make = "SELECT make_delivery_track_day((now() AT TIME ZONE 'UTC')::date - $1::int)";
        assert!(sqlx::query_scalar::<_, bool>(make).bind(days).fetch_one(&world.pool).await.unwrap());
    }
    sqlx::query(insert).bind([40, 30, 9, 5, 3]).execute(&world.pool).await.unwrap();
    let mut world = world;
    world.nodes = join_all((0..2).map(|_| world.start_node())).await;
    let ages = "SELECT array_agg(round(extract(epoch FROM now() - fix_time) / 86400)::int ORDER BY fix_time) FROM delivery_track";
    eventually("the old days are pruned", SOON, || async {
        let ages: Option<Vec<i32>> = sqlx::query_scalar(ages).fetch_one(&world.pool).await.ok()?;
        (ages? == [5, 3]).then_some(())
    })
    .await;
    let days = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'delivery_track'::regclass";
    // The default partition, today and two more days, and the one of three days ago.
    eventually("the partitions of the coming days exist", SOON, || async {
        (world.count(days).await == 5).then_some(())
    })
    .await;
    sqlx::query(insert).bind([0, -1]).execute(&world.pool).await.unwrap();
    assert_eq!(
        world.count("SELECT count(*) FROM delivery_track_other").await,
        1,
        "the new fix is in the partition of its day"
    );
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_that_owns_no_table_prunes_any_number_of_old_fixes() {
    let mut world = World::with().nodes(0).own_postgres().set("TRACK_RETENTION_DAYS", 7).start().await;
    for statement in [
        "CREATE ROLE modest LOGIN PASSWORD 'modest'",
        "GRANT ALL ON ALL TABLES IN SCHEMA public TO modest",
        "GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO modest",
        "REVOKE CREATE ON SCHEMA public FROM PUBLIC",
        "SELECT make_delivery_track_day((now() AT TIME ZONE 'UTC')::date - 40)",
        "INSERT INTO delivery_track (driver_id, fix_time, lat, lon)
         SELECT gen_random_uuid(), now() - make_interval(days => days), 1, 1
         FROM unnest(ARRAY[40, 30, 5]) days, generate_series(1, 25000)",
    ] {
        sqlx::query(statement).execute(&world.pool).await.unwrap();
    }
    let today = "SELECT count(*) FROM pg_class WHERE relname ~ '^delivery_track_[0-9]{8}$' AND relkind = 'r'";
    assert_eq!(world.count(today).await, 4, "the schema has the partitions of today and two more days");
    let mut url = url::Url::parse(&world.database_url).unwrap();
    url.set_username("modest").unwrap();
    url.set_password(Some("modest")).unwrap();
    world.nodes.push(world.start_node_with(&[("DATABASE_URL", url.as_str())]).await);
    // The first pass prunes them all: the next pass is ten minutes later.
    let others = "SELECT count(*) FROM delivery_track_other";
    eventually("the old fixes are pruned", SOON, || async { (world.count(others).await == 25_000).then_some(()) })
        .await;
    assert_eq!(
        world.count("SELECT count(*) FROM delivery_track").await,
        50_000,
        "fixes in partitions that the role may not drop stay"
    );
    assert!(world.node().log_lines().iter().any(|line| line.contains("could not be dropped")));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_fix_is_one_point_in_any_spelling_of_its_time_and_two_positions_of_one_second_are_two() {
    let world = World::start().await;
    let mut driver = world.on_duty(RESTAURANT).await;
    driver.stop_heartbeats();
    let answer = world.post_order(&Order::new("spelled")).await.expect(201);
    let id = answer["deliveryId"].as_str().unwrap();
    driver.session.take_where("the interval of busy drivers", SOON, |frame| frame["heartbeatIntervalMs"] == 500).await;
    let place = |east_m: f64| RESTAURANT.offset(0.0, east_m);
    let fix = |time: String, east_m: f64| json!({"fixTime": time, "lat": place(east_m).lat, "lon": place(east_m).lon});
    let stored = async |count: i64, what: &str| {
        eventually(what, SOON, || async {
            (world.count("SELECT count(*) FROM delivery_track").await == count).then_some(())
        })
        .await;
    };
    // A time after the assignment, in the middle of a millisecond that rounds up.
    let time = DateTime::from_timestamp_millis(Utc::now().timestamp_millis()).unwrap() + TimeDelta::microseconds(600);
    let mut live = fix(time.to_rfc3339_opts(SecondsFormat::Micros, true), 1.0);
    (live["type"], live["seq"]) = (json!("heartbeat"), json!(9000));
    driver.session.send(&live);
    driver.session.wait_for_ack(9000).await;
    stored(1, "the live fix is stored").await;
    let rounded = time + TimeDelta::microseconds(400);
    let again = [
        fix(text(time), 1.0),
        fix(text(rounded), 1.0),
        fix(time.to_rfc3339_opts(SecondsFormat::Nanos, false), 1.0),
        fix(time.format("%Y-%m-%dt%H:%M:%S%.3f+0000").to_string(), 1.0),
        // Two other positions of that millisecond, and one of a later millisecond, which shows that all fixes
        // were processed.
        fix(text(time), 2.0),
        fix(text(time), 3.0),
    ];
    let mark = |n: i64| fix(text(time + TimeDelta::milliseconds(10 * n)), 10.0 * n as f64);
    for n in 1..3 {
        let fixes: Vec<Value> = again.iter().cloned().chain([mark(n)]).collect();
        let response = driver.session.send_request(json!({"type": "batch", "fixes": fixes})).await;
        assert_eq!(response["accepted"], 7, "{response}");
        stored(3 + n, "the batch is stored and no fix is stored twice").await;
    }
    let found = track(&world, id).await;
    let lons: Vec<f64> = found["features"][0]["geometry"]["coordinates"]
        .as_array()
        .unwrap()
        .iter()
        .map(|at| at[0].as_f64().unwrap())
        .collect();
    assert_eq!(
        lons,
        [1.0, 2.0, 3.0, 10.0, 20.0].map(|east_m| place(east_m).lon),
        "the points of one time are in the order of arrival"
    );
    let times = found["features"][0]["properties"]["times"].as_array().unwrap().clone();
    assert_eq!(times[..3], [json!(text(time)), json!(text(time)), json!(text(time))]);

    // Of live fixes with one time, the later arrival is the position, in Redis and in PostgreSQL.
    let second = text(time + TimeDelta::milliseconds(900));
    for (seq, east_m) in [(9001, 30.0), (9002, 35.0)] {
        let mut live = fix(second.clone(), east_m);
        (live["type"], live["seq"]) = (json!("heartbeat"), json!(seq));
        driver.session.send(&live);
        driver.session.wait_for_ack(seq).await;
    }
    stored(7, "both positions of one time are stored").await;
    eventually("PostgreSQL has the position of the later arrival", SOON, || async {
        let lon: f64 = sqlx::query_scalar("SELECT lon FROM driver_positions").fetch_one(&world.pool).await.unwrap();
        ((lon - place(35.0).lon).abs() < 1e-9).then_some(())
    })
    .await;
    let shown = world.driver(&driver.id).await;
    assert!((shown["position"]["lon"].as_f64().unwrap() - place(35.0).lon).abs() < 1e-5, "{shown}");
    world.finish().await;
}
