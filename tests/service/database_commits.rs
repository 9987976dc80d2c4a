//! Tests of commits that wait for a synchronous standby that died: the order is refused in time, and reads continue.

use std::time::{Duration, Instant};

use sqlx::PgConnection;
use tokio::task::block_in_place;

use super::support::plan::WEBHOOK_SECRET;
use super::support::standby::Pair;
use super::support::*;

/// Returns the number of server processes that wait for a standby.
async fn waiting_for_standby(conn: &mut PgConnection) -> i64 {
    let count = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    sqlx::query_scalar(count).fetch_one(conn).await.expect("the processes are counted")
}

/// Posts orders concurrently and asserts that each is refused within the documented time.
async fn assert_refused_in_time(world: &World, names: &[String]) {
    let posts = join_all(names.iter().map(|name| async move {
        let started = Instant::now();
        let reply = orders::post_order(world.node(), &Order::new(name), WEBHOOK_SECRET).await;
        assert!(started.elapsed() < Duration::from_millis(5_500), "{name}: {:?}", started.elapsed());
        reply.problem(503);
    }));
    posts.await;
}

/// Asserts what must hold while commits wait: reads succeed, `/health` reports the outage, and the server has free
/// connections.
async fn assert_reads_succeed(world: &World, known: &str, conn: &mut PgConnection) {
    world.admin().get(&format!("/api/v1/deliveries/{known}")).await.expect(200);
    world.admin().get("/api/v1/drivers").await.expect(200);
    let started = Instant::now();
    let health = world.node().api().get("/health").await;
    assert!(started.elapsed() < Duration::from_secs(3), "/health responds in time: {:?}", started.elapsed());
    assert_eq!((health.status, health.body["status"].as_str()), (503, Some("down")));
    assert_eq!(world.node().metric("driver_tracker_database_up").await, 0.0);
    // The pool has ten connections. Each waiting server process belongs to one of them.
    let waiting = waiting_for_standby(conn).await;
    assert!((1..=10).contains(&waiting), "{waiting} server processes wait for the standby");
}

/// Waits until each order that was refused is accepted when it is posted again.
async fn assert_accepted_after_retry(world: &World, names: &[String]) {
    for name in names {
        eventually(&format!("the order {name} is accepted"), Duration::from_secs(10), || async {
            let reply = orders::post_order(world.node(), &Order::new(name), WEBHOOK_SECRET).await;
            matches!(reply.status, 200..=202).then_some(())
        })
        .await;
    }
    world.node().wait_for_health("ok").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orders_are_refused_in_time_and_reads_continue_while_commits_wait_for_a_standby() {
    let (mut world, pair) = Pair::start(World::with().set("ASSIGNMENT_WAIT_MS", 0)).await;
    let node = world.start_node().await;
    world.nodes.push(node);
    world.node().wait_for_health("ok").await;
    let known = world.post_order(&Order::new("known")).await.expect(202)["deliveryId"].as_str().unwrap().to_owned();
    let mut conn = servers::connect(&pair.primary.url("postgres")).await;

    block_in_place(|| pair.standby.stop());
    let mut refused: Vec<String> = Vec::new();
    for round in 0..3 {
        let names: Vec<String> = (0..20).map(|n| format!("hung-{round}-{n}")).collect();
        assert_refused_in_time(&world, &names).await;
        assert_reads_succeed(&world, &known, &mut conn).await;
        refused.extend(names);
    }
    block_in_place(|| pair.standby.start_again()).expect("the standby restarts");
    assert_accepted_after_retry(&world, &refused).await;
    assert_eq!(waiting_for_standby(&mut conn).await, 0);

    // The other recovery: an operator turns synchronous replication off.
    block_in_place(|| pair.standby.stop());
    let names: Vec<String> = (0..20).map(|n| format!("without-{n}")).collect();
    assert_refused_in_time(&world, &names).await;
    assert_reads_succeed(&world, &known, &mut conn).await;
    pair.wait_for_standby(false).await;
    assert_accepted_after_retry(&world, &names).await;
    let orders = world.count("SELECT count(*) FROM deliveries").await;
    assert_eq!(orders as usize, 1 + refused.len() + names.len(), "each order has one delivery");
    world.finish().await;
}
