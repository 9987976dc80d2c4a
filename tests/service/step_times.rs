//! Tests of the times of a delivery's steps, reported by phones whose clocks are slow, fast, or set back between two
//! steps.

use chrono::{DateTime, SecondsFormat, SubsecRound, TimeDelta, Utc};
use serde_json::{Value, json};

use super::support::*;

const PHONES: &str = include_str!("cases/slow-phone.json");

fn moment(value: &Value) -> DateTime<Utc> {
    value
        .as_str()
        .unwrap_or_else(|| panic!("the value is not a time: {value}"))
        .parse()
        .expect("the time is in RFC 3339")
}

fn text(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

fn seconds(value: &Value) -> TimeDelta {
    TimeDelta::milliseconds((value.as_f64().expect("the offset is in seconds") * 1000.0).round() as i64)
}

/// Returns the database's clock in whole milliseconds.
async fn now(world: &World) -> DateTime<Utc> {
    let now: DateTime<Utc> = sqlx::query_scalar("SELECT clock_timestamp()").fetch_one(&world.pool).await.unwrap();
    now.trunc_subsecs(3)
}

/// Creates an order that was assigned to a driver at that time. Returns the ids of delivery and assignment.
async fn assigned_at(world: &World, name: &str, at: DateTime<Utc>) -> (String, String) {
    let answer = world.post_order(&Order::new(name)).await.expect(201);
    let id = |field: &str| answer[field].as_str().expect("the response has an id").to_owned();
    let (delivery, assignment) = (id("deliveryId"), id("assignmentId"));
    for statement in [
        "UPDATE deliveries SET assigned_at = $2 WHERE id = $1",
        "UPDATE assignments SET created_at = $2 WHERE delivery_id = $1",
    ] {
        let uuid: uuid::Uuid = delivery.parse().unwrap();
        sqlx::query(statement).bind(uuid).bind(at).execute(&world.pool).await.expect("the row is updated");
    }
    (delivery, assignment)
}

/// Returns the time of each step in the audit rows, oldest first.
async fn audited(world: &World, delivery: &str) -> Vec<DateTime<Utc>> {
    let page = world.admin().get(&format!("/api/v1/deliveries/{delivery}/events")).await.expect(200);
    let mut rows = page["items"].as_array().expect("the page has items").clone();
    rows.reverse();
    let ats: Vec<DateTime<Utc>> = rows.iter().map(|row| moment(&row["at"])).collect();
    assert!(ats.is_sorted(), "the times of the audit rows never decrease: {ats:?}");
    let step = |row: &Value| {
        let data = &row["data"];
        let names = ["pickedUpAt", "departedAt", "deliveredAt"];
        let at = names.iter().find_map(|name| data.get(*name)).or_else(|| data["failure"].get("occurredAt"));
        at.map(moment)
    };
    rows.iter().filter_map(step).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_clock_puts_no_step_before_the_previous_step_or_after_now() {
    let world = World::start().await;
    let driver = world.on_duty(RESTAURANT).await;
    let phones: Vec<Value> = serde_json::from_str(PHONES).unwrap();
    for (n, phone) in phones.iter().enumerate() {
        let steps = phone["steps"].as_array().unwrap();
        // `zero` is chosen so that the phone sends its first step now.
        let zero = now(&world).await - seconds(&steps[0]["sentAtS"]);
        let mut previous = zero + seconds(&phone["assignedAtS"]);
        let (delivery, assignment) = assigned_at(&world, &format!("phone-{n}"), previous).await;
        let mut expected = Vec::new();
        for step in steps {
            let occurred = zero + seconds(&step["occurredAtS"]);
            let before = now(&world).await;
            let status = step["status"].as_str().unwrap();
            let response = driver.update(&delivery, &assignment, status, json!({"occurredAt": text(occurred)})).await;
            assert_eq!(response["type"], "ok", "{response}");
            let after = now(&world).await;
            let shown = audited(&world, &delivery).await.pop().expect("the audit rows have a step");
            if occurred > after {
                assert!((before..=after).contains(&shown), "{phone}: {shown} is the time of arrival");
            } else {
                assert_eq!(shown, occurred.max(previous), "{phone}: {status}");
            }
            previous = shown;
            expected.push(shown);
        }
        assert_eq!(audited(&world, &delivery).await, expected);
        let shown = world.delivery(&delivery).await;
        assert_eq!(moment(&shown["pickedUpAt"]), expected[0]);
        assert_eq!(Some(moment(&shown["deliveredAt"])), expected.last().copied());
        assert!(moment(&shown["assignedAt"]) <= moment(&shown["pickedUpAt"]));
        let posted = world.shop().wait_for_event(&delivery, "DELIVERY_DELIVERED_V1").await;
        assert_eq!(posted.event["deliveredAt"], shown["deliveredAt"]);
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_operator_updates_and_extreme_times_are_clamped_too() {
    let world = World::start().await;
    let driver = world.on_duty(RESTAURANT).await;
    let assigned = now(&world).await - TimeDelta::seconds(60);
    let (delivery, assignment) = assigned_at(&world, "fails", assigned).await;
    let picked_up = text(assigned + TimeDelta::seconds(30));
    driver.update(&delivery, &assignment, "PICKED_UP", json!({"occurredAt": picked_up})).await;
    let failure = json!({"occurredAt": "1970-01-01T00:00:00+05:30", "failure": {"code": "DELIVERY_FAILED"}});
    let response = driver.update(&delivery, &assignment, "FAILED", failure).await;
    assert_eq!(response["type"], "ok", "an extreme time is clamped and not refused: {response}");
    let failed = world.delivery(&delivery).await;
    assert_eq!(moment(&failed["failure"]["occurredAt"]), moment(&json!(picked_up)));

    // The next attempt begins later, and an operator's step has the time of its arrival.
    let retry = json!({"reason": "again"});
    world.admin().post(&format!("/api/v1/deliveries/{delivery}/retry"), &retry).await.expect(200);
    let again = world.wait_for_delivery(&delivery, "ASSIGNED").await;
    assert!(moment(&again["assignedAt"]) > moment(&failed["failure"]["occurredAt"]));
    let body = json!({"status": "PICKED_UP", "reason": "by phone"});
    world.admin().post(&format!("/api/v1/deliveries/{delivery}/status"), &body).await.expect(200);
    let by_operator = world.delivery(&delivery).await;
    assert!(moment(&by_operator["pickedUpAt"]) >= moment(&again["assignedAt"]));
    let assignment = by_operator["assignmentId"].as_str().unwrap();
    let far = json!({"occurredAt": "9999-12-31T23:59:59-23:59"});
    let response = driver.update(&delivery, assignment, "DELIVERED", far).await;
    assert_eq!(response["type"], "ok", "{response}");
    let delivered = world.delivery(&delivery).await;
    assert!(moment(&delivered["deliveredAt"]) <= now(&world).await);
    assert!(audited(&world, &delivery).await.is_sorted());
    world.finish().await;
}
