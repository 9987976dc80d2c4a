//! Tests of commands to drivers: a command is repeated until it is acknowledged, and one driver's commands do not
//! delay another's.

use std::time::Duration;

use serde_json::{Value, json};

use super::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_is_repeated_with_one_message_id_until_it_is_acknowledged() {
    let world = World::start().await;
    let driver = world.on_duty(RESTAURANT.offset(100.0, 0.0)).await;
    driver.session.acknowledge_commands(false);
    let response = world.post_order(&Order::new("again")).await.expect(201);
    let id = response["deliveryId"].as_str().unwrap();
    let first = driver.wait_for_assignment(id).await;
    let second = driver.wait_for_assignment(id).await;
    assert_eq!(first["messageId"], second["messageId"]);
    driver.session.send(&json!({"type": "ack", "messageId": "00000000-0000-7000-8000-000000000000"}));
    driver.session.send(&json!({"type": "ack", "messageId": first["messageId"]}));
    // A request with a response: when the response arrives, both acks are processed.
    driver.request_duty("AVAILABLE").await;
    let unacked = "SELECT count(*) FROM driver_commands WHERE acked_at IS NULL";
    eventually("the command is acknowledged", SOON, || async { (world.count(unacked).await == 0).then_some(()) }).await;
    let before = driver.session.waiting("assignment").len();
    world::let_time_pass("a repeat would come after five seconds", Duration::from_millis(5_500)).await;
    assert_eq!(driver.session.waiting("assignment").len(), before);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_without_an_ack_is_repeated_every_five_seconds_at_any_age() {
    /// The limit between two repeats. A repeat that is skipped once would take twice as long as the interval; the
    /// rest is slack for a busy machine.
    const AT_MOST: Duration = Duration::from_secs(8);
    let world = World::start().await;
    let driver = world.on_duty(RESTAURANT.offset(100.0, 0.0)).await;
    driver.session.acknowledge_commands(false);
    let id = world.post_order(&Order::new("old")).await.expect(201)["deliveryId"].as_str().unwrap().to_owned();
    driver.wait_for_assignment(&id).await;
    // From here on only the sweep over all sessions finds the command.
    let aged = "UPDATE driver_commands SET created_at = created_at - interval '1 hour'";
    assert_eq!(sqlx::query(aged).execute(&world.pool).await.unwrap().rows_affected(), 1);
    let fits = |frame: &Value| frame["type"] == "assignment";
    driver.session.take_where("the first repeated command", AT_MOST * 2, fits).await;
    for _ in 0..4 {
        driver.session.take_where("the next repeated command", AT_MOST, fits).await;
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_unacknowledged_commands_of_one_driver_delay_no_new_command() {
    let world = World::start().await;
    let driver_with_backlog = world.on_duty(RESTAURANT.offset(100.0, 0.0)).await;
    let id = world.post_order(&Order::new("called-off")).await.expect(201)["deliveryId"].as_str().unwrap().to_owned();
    driver_with_backlog.wait_for_assignment(&id).await;
    world.admin().post(&format!("/api/v1/deliveries/{id}/cancel"), &json!({"reason": "x"})).await.expect(200);
    driver_with_backlog.session.take("assignment.cancelled").await;
    driver_with_backlog.session.acknowledge_commands(false);
    let insert_backlog = "INSERT INTO driver_commands (message_id, driver_id, kind, delivery_id, assignment_id, reason, created_at)
        SELECT ('00000000-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid, driver_id, kind, delivery_id, assignment_id,
               reason, created_at - interval '1 hour'
        FROM driver_commands, generate_series(1, 6000) AS n WHERE kind = 'assignment.cancelled'";
    assert_eq!(sqlx::query(insert_backlog).execute(&world.pool).await.unwrap().rows_affected(), 6000);
    let other = world.on_duty(RESTAURANT.offset(200.0, 0.0)).await;
    other.session.acknowledge_commands(false);
    for (name, driver) in [("near", &driver_with_backlog), ("far", &other)] {
        let id = world.post_order(&Order::new(name)).await.expect(201)["deliveryId"].as_str().unwrap().to_owned();
        driver.wait_for_assignment(&id).await;
        let aged = "UPDATE driver_commands SET created_at = created_at - interval '1 hour' WHERE kind = 'assignment'";
        sqlx::query(aged).execute(&world.pool).await.unwrap();
        driver.wait_for_assignment(&id).await;
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hints_during_a_stall_of_postgresql_use_one_connection() {
    let world = World::with().set("DATABASE_MAX_CONNECTIONS", 5).start().await;
    let driver = world.on_duty(RESTAURANT.offset(100.0, 0.0)).await;
    let mut lock = world.pool.begin().await.unwrap();
    sqlx::query("LOCK TABLE driver_commands IN ACCESS EXCLUSIVE MODE").execute(&mut *lock).await.unwrap();
    let flood = "for _ = 1, 500 do redis.call('PUBLISH', KEYS[1], ARGV[1]) end return 1";
    let hint = format!("driver:{}", driver.id);
    assert_eq!(world.redis.command::<i64>(&["EVAL", flood, "1", &world.redis.key("drivers:hints"), &hint]).await, 1);
    world::let_time_pass("the hints are received", Duration::from_millis(500)).await;
    for _ in 0..5 {
        world.admin().get("/api/v1/drivers").await.expect(200);
    }
    lock.rollback().await.unwrap();
    // The commands that the hints announced are sent afterwards.
    let id =
        world.post_order(&Order::new("after-the-stall")).await.expect(201)["deliveryId"].as_str().unwrap().to_owned();
    driver.wait_for_assignment(&id).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_that_began_before_the_ack_does_not_repeat_the_command() {
    const ORDERS: usize = 15;
    let world = World::start().await;
    let driver = world.on_duty(RESTAURANT.offset(100.0, 0.0)).await;
    let (redis, hint) = (world.redis.clone(), format!("driver:{}", driver.id));
    let publishing_hints = tokio::spawn(async move {
        let publish = "for _ = 1, 5 do redis.call('PUBLISH', KEYS[1], ARGV[1]) end return 1";
        loop {
            redis.command::<i64>(&["EVAL", publish, "1", &redis.key("drivers:hints"), &hint]).await;
        }
    });
    for n in 0..ORDERS {
        let id = world.post_order(&Order::new(&format!("once-{n}"))).await.expect(201)["deliveryId"]
            .as_str()
            .unwrap()
            .to_owned();
        let frame = driver.wait_for_assignment(&id).await;
        driver.deliver(&id, frame["delivery"]["assignmentId"].as_str().unwrap()).await;
    }
    publishing_hints.abort();
    assert_eq!(driver.session.waiting("assignment"), Vec::<Value>::new());
    world.finish().await;
}
