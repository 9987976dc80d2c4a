//! Tests of SIGTERM: the node drains its sockets, loses nothing, and exits in time.

use std::time::{Duration, Instant};

use tokio::task::block_in_place;

use super::support::plan::WEBHOOK_SECRET;
use super::support::session::{Closed, upgrade};
use super::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_draining_node_asks_sockets_to_reconnect_closes_them_spread_over_time_and_exits_in_time() {
    let mut world = World::with().nodes(2).set("SHUTDOWN_DELAY_MS", 300).set("SHUTDOWN_GRACE_MS", 6000).start().await;
    let places: Vec<Place> = (1..=12).map(|n| RESTAURANT.offset(f64::from(n) * 50.0, 0.0)).collect();
    let mut drivers = Vec::new();
    for place in places {
        drivers.push(world.on_duty_at(&world.nodes[1], place).await);
    }
    let started = Instant::now();
    world.nodes[1].send_sigterm();
    let ready = world.nodes[1].api();
    eventually("/health/ready responds with 503", SOON, || async {
        (http::try_send(ready.request("GET", "/health/ready")).await.ok()?.status == 503).then_some(())
    })
    .await;
    let closes = drivers.iter().map(|driver| async {
        let reconnect = driver.session.take("reconnect").await;
        assert!(reconnect["afterMs"].is_u64(), "{reconnect}");
        assert_eq!(driver.session.wait_for_close(SOON).await, Closed::With(1012));
        started.elapsed()
    });
    let mut moments = join_all(closes).await;
    moments.sort();
    assert!(*moments.last().unwrap() < Duration::from_millis(300 + 3000 + 1000), "{moments:?}");
    assert!(moments[11] - moments[0] > Duration::from_millis(400), "the closes are spread over time: {moments:?}");
    let status = world.nodes[1].wait_for_exit(Duration::from_secs(8)).await;
    assert_eq!(status.code(), Some(0));

    // Nothing is lost: the drivers reconnect to the other node and get assignments there.
    let welcome = drivers[0].reconnect(&world.nodes[0]).await;
    assert_eq!(welcome["driver"]["onDuty"], true);
    world.post_order(&Order::new("after-the-deploy")).await.expect(201);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orders_are_accepted_during_the_delay_then_refused_with_retry_after_and_none_is_lost() {
    let mut world = World::with().set("SHUTDOWN_DELAY_MS", 800).set("SHUTDOWN_GRACE_MS", 6000).start().await;
    let _drivers = world.fleet(&[100.0, 200.0, 300.0].map(|m| RESTAURANT.offset(m, 0.0))).await;
    world.nodes[0].send_sigterm();
    let (mut accepted, mut refused, mut n) = (Vec::new(), 0, 0);
    while world.nodes[0].is_running() {
        n += 1;
        let order = Order::new(&format!("late-{n}"));
        match orders::try_post_order(&world.nodes[0], &order, WEBHOOK_SECRET).await {
            Some(reply) if matches!(reply.status, 200..=202) => {
                assert_eq!(refused, 0, "no order is accepted after another was refused");
                accepted.push(order.id().to_owned());
            }
            Some(reply) => {
                assert!(reply.retry_after_s() >= 1);
                reply.refused(503, "draining");
                refused += 1;
            }
            // The listener is closed.
            None => {}
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(n < 400, "the process exits in time");
    }
    assert!(!accepted.is_empty(), "orders are accepted during the delay");
    assert!(refused > 0, "orders are refused while draining");
    let known: Vec<String> =
        sqlx::query_scalar("SELECT seller_order_id FROM deliveries").fetch_all(&world.pool).await.unwrap();
    assert_eq!(known.len(), accepted.len());
    assert!(accepted.iter().all(|name| known.contains(name)));
    assert_eq!(world.nodes[0].wait_for_exit(SOON).await.code(), Some(0));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_positions_are_in_postgresql_after_a_shutdown() {
    let mut world = World::with().set("POSITION_FLUSH_MS", 5000).start().await;
    let driver = world.connected_at(world.node(), RESTAURANT.offset(77.0, 0.0)).await;
    driver.heartbeat().await;
    let status = world.nodes[0].terminate().await;
    assert_eq!(status.code(), Some(0));
    let lat: Option<f64> = sqlx::query_scalar("SELECT lat FROM driver_positions").fetch_one(&world.pool).await.unwrap();
    assert!((lat.unwrap() - driver.place().lat).abs() < 1e-6);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_flush_of_positions_is_retried_before_the_process_exits() {
    let plan = World::with().own_postgres().set("POSITION_FLUSH_MS", 5000).set("HEARTBEAT_TTL_MS", 20_000);
    let mut world = plan.set("SHUTDOWN_DELAY_MS", 200).set("SHUTDOWN_GRACE_MS", 12_000).start().await;
    let postgres = world.own_postgres.clone().unwrap();
    let driver = world.connected_at(world.node(), RESTAURANT).await;
    driver.heartbeat().await;
    eventually("the first position is stored", SOON, || async {
        (world.count("SELECT count(*) FROM driver_positions WHERE lat IS NOT NULL").await == 1).then_some(())
    })
    .await;
    block_in_place(|| postgres.stop());
    driver.move_to(RESTAURANT.offset(40.0, 0.0));
    // The fix is acknowledged because Redis has it.
    driver.heartbeat().await;
    world.nodes[0].send_sigterm();
    assert_eq!(driver.session.wait_for_close(SOON).await, Closed::With(1012));
    world::let_time_pass("the flush begins and fails", Duration::from_millis(2500)).await;
    block_in_place(|| postgres.start_again()).expect("PostgreSQL restarts");
    assert_eq!(world.nodes[0].wait_for_exit(Duration::from_secs(20)).await.code(), Some(0));
    let lat: Option<f64> = sqlx::query_scalar("SELECT lat FROM driver_positions").fetch_one(&world.pool).await.unwrap();
    assert!((lat.unwrap() - driver.place().lat).abs() < 1e-6);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_ends_the_process_at_once() {
    let mut world = World::with().set("SHUTDOWN_DELAY_MS", 20_000).set("SHUTDOWN_GRACE_MS", 20_000).start().await;
    world.nodes[0].send_sigterm();
    let api = world.nodes[0].api();
    eventually("/health/ready responds with 503", SOON, || async {
        (http::try_send(api.request("GET", "/health/ready")).await.ok()?.status == 503).then_some(())
    })
    .await;
    // Without the second signal the delay and the grace period last 40 s.
    node::signal(world.nodes[0].pid(), "INT");
    world.nodes[0].wait_for_exit(Duration::from_secs(15)).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_and_a_frozen_postgresql_do_not_delay_the_exit() {
    let (delay, grace) = (Duration::from_millis(300), Duration::from_millis(5000));
    let plan = World::with().own_postgres().set("SHUTDOWN_DELAY_MS", delay.as_millis());
    let mut world = plan.set("SHUTDOWN_GRACE_MS", grace.as_millis()).start().await;
    let mut driver = world.on_duty(RESTAURANT).await;
    let (_, token) = world.new_driver().await;
    let mut stuck = Stuck::connect(&world.node().address, &token, 2048).await;
    stuck.request_bytes(4 * 1024 * 1024).await;
    let postgres = world.own_postgres.clone().unwrap();
    block_in_place(|| postgres.freeze()).expect("PostgreSQL is frozen");
    driver.send_heartbeat();
    let started = Instant::now();
    world.nodes[0].send_sigterm();
    assert_eq!(driver.session.wait_for_close(SOON).await, Closed::With(1012), "the other sockets are closed with 1012");
    let status = world.nodes[0].wait_for_exit(delay + grace + Duration::from_secs(3)).await;
    println!("ended after {:.1} s", started.elapsed().as_secs_f64());
    assert_eq!(status.code(), Some(0));
    driver.stop_heartbeats();
    block_in_place(|| postgres.thaw());
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_opens_during_the_drain_is_closed_as_well() {
    let mut world = World::with().set("SHUTDOWN_DELAY_MS", 200).set("SHUTDOWN_GRACE_MS", 8000).start().await;
    let driver = world.connected_at(world.node(), RESTAURANT).await;
    // Another session, so that the drain has one to wait for.
    let other = world.connected_at(world.node(), RESTAURANT).await;
    let mut lock = world.pool.begin().await.unwrap();
    let id: uuid::Uuid = driver.id.parse().unwrap();
    sqlx::query("SELECT 1 FROM driver_sessions WHERE driver_id = $1 FOR UPDATE")
        .bind(id)
        .execute(&mut *lock)
        .await
        .unwrap();
    let late = Session::connect(&world.node().address, &driver.token).await;
    world.nodes[0].send_sigterm();
    other.session.take("reconnect").await;
    lock.rollback().await.unwrap();
    assert_eq!(late.take_first().await["type"], "welcome");
    assert!(late.take("reconnect").await["afterMs"].is_u64());
    assert_eq!(late.wait_for_close(SOON).await, Closed::With(1012));
    assert_eq!(world.nodes[0].wait_for_exit(SOON).await.code(), Some(0));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_a_drain_upgrades_with_a_permit_are_closed_and_those_that_wait_for_one_are_refused() {
    /// The number of permits with two database connections.
    const PERMITS: usize = 16;
    let plan = World::with().set("DATABASE_MAX_CONNECTIONS", 2).set("SHUTDOWN_DELAY_MS", 100);
    let mut world = plan.set("SHUTDOWN_GRACE_MS", 8000).start().await;
    let (_, tokens) = world.insert_drivers(PERMITS + 1, false).await;
    let address = world.node().address.clone();
    let mut lock = world.pool.begin().await.unwrap();
    sqlx::query("LOCK TABLE driver_tokens IN ACCESS EXCLUSIVE MODE").execute(&mut *lock).await.unwrap();
    let connect = |token: &String| {
        let (address, token) = (address.clone(), token.clone());
        tokio::spawn(async move { Session::try_connect(&address, &token).await })
    };
    let let_in: Vec<_> = tokens[..PERMITS].iter().map(connect).collect();
    world::let_time_pass("all permits are in use", Duration::from_millis(300)).await;
    let waiting = connect(&tokens[PERMITS]);
    world::let_time_pass("one upgrade waits for a permit", Duration::from_millis(200)).await;
    world.nodes[0].send_sigterm();
    eventually("no other upgrade is admitted", SOON, || async {
        let without_credentials = Session::open(upgrade(&address, "/ws/driver", &[])).await;
        (without_credentials.err() == Some(503)).then_some(())
    })
    .await;
    // Long enough for a drain that finds no session.
    world::let_time_pass("the drain is in progress", Duration::from_millis(300)).await;
    lock.rollback().await.unwrap();
    assert_eq!(waiting.await.unwrap().err(), Some(503));
    for session in join_all(let_in).await {
        let session = session.unwrap().unwrap_or_else(|status| panic!("the upgrade was refused with {status}"));
        assert!(session.take("reconnect").await["afterMs"].is_u64());
        assert_eq!(session.wait_for_close(SOON).await, Closed::With(1012));
    }
    assert_eq!(world.nodes[0].wait_for_exit(SOON).await.code(), Some(0));
    world.finish().await;
}
