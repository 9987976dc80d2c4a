//! Tests with ten thousand drivers on one node, which take minutes.
//!
//! Each test prints its figures. `make soak` runs them one after the other with the release build.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::support::crowd::CrowdStats;
use super::support::plan::{Plan, WEBHOOK_SECRET};
use super::support::*;

/// The number of drivers on one node.
const MANY: usize = 10_000;
/// The heartbeat interval of each driver.
const IDLE: Duration = Duration::from_secs(5);
/// The limit of the process's memory for each connected driver.
const BYTES_A_DRIVER: u64 = 20 * 1024;
/// The number of clients that do not read.
const STUCK: usize = 100;
/// How long the latency of heartbeats is measured.
const WATCHED: Duration = Duration::from_secs(20);

/// Returns a plan with production settings: limits on, few logs, the default intervals.
fn production_plan() -> Plan {
    World::with()
        .set("RUST_LOG", "warn,driver_tracker::app=info")
        .set("DATABASE_MAX_CONNECTIONS", 16)
        .set("FRAMES_PER_SECOND", 20)
        .set("HEARTBEAT_INTERVAL_MS", 5000)
        .set("HEARTBEAT_TTL_MS", 30_000)
        .set("POSITION_FLUSH_MS", 10_000)
}

async fn wait_for_all_acks(crowd: &Crowd) {
    crowd.stop_heartbeats();
    eventually("every heartbeat is acknowledged", SOON, || async {
        (CrowdStats::get(&crowd.stats.acked) == CrowdStats::get(&crowd.stats.sent)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes: make soak"]
async fn soak_ten_thousand_drivers_fit_the_memory_target_and_a_hundred_stuck_clients_delay_no_one() {
    let world = production_plan().start().await;
    let (_, tokens) = world.insert_drivers(MANY, false).await;
    let (_, bad) = world.insert_drivers(STUCK, false).await;
    let node = world.node();
    let empty = node.resident_bytes();
    let began = Instant::now();
    let crowd = Crowd::connect(&node.address, &tokens, RESTAURANT, IDLE).await;
    let connecting = began.elapsed();
    world::let_time_pass("every driver has sent two heartbeats", IDLE * 2).await;
    crowd.stats.ack_latency_ms(&[]);
    world::let_time_pass("the latency is measured before", WATCHED).await;
    let (full, before) = (node.resident_bytes(), crowd.stats.ack_latency_ms(&[50, 99]));
    println!(
        "{MANY} drivers connected in {:.1} s; memory {:.0} MB → {:.0} MB: {} bytes a driver, {} with the whole process",
        connecting.as_secs_f64(),
        empty as f64 / 1e6,
        full as f64 / 1e6,
        (full - empty) / MANY as u64,
        full / MANY as u64
    );

    let began = Instant::now();
    let stuck = join_all(bad.iter().map(|token| Stuck::connect(&node.address, token, 2048))).await;
    let asking = stuck.into_iter().map(|mut client| {
        tokio::spawn(async move {
            // Each stuck client sends as fast as the limit allows and never reads.
            loop {
                client.request_bytes(9000).await;
                tokio::time::sleep(Duration::from_millis(150)).await;
            }
        })
    });
    let asking: Vec<_> = asking.collect();
    let mut most = full;
    while began.elapsed() < WATCHED {
        most = most.max(node.resident_bytes());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let during = crowd.stats.ack_latency_ms(&[50, 99]);
    asking.iter().for_each(|client| client.abort());
    let too_slow = node.metric(r#"driver_tracker_sessions_closed_total{code="4003"}"#).await;
    println!(
        "{STUCK} stuck clients: the others' heartbeats p50 {:.1} → {:.1} ms, p99 {:.1} → {:.1} ms; {too_slow} closed as too \
         slow; at most {:.1} MB more",
        before[0],
        during[0],
        before[1],
        during[1],
        (most - full) as f64 / 1e6
    );
    assert!(
        full / (MANY as u64) < BYTES_A_DRIVER,
        "the memory for each driver is within the limit: {} bytes",
        full / MANY as u64
    );
    assert_eq!(too_slow as usize, STUCK);
    wait_for_all_acks(&crowd).await;
    assert_eq!((CrowdStats::get(&crowd.stats.ended), CrowdStats::get(&crowd.stats.connected)), (0, MANY as u64));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes: make soak"]
async fn soak_ten_thousand_drivers_move_to_another_node_without_loss_of_orders_or_duty() {
    let mut world = production_plan().set("SHUTDOWN_DELAY_MS", 2000).set("SHUTDOWN_GRACE_MS", 20_000).start().await;
    let (_, tokens) = world.insert_drivers(MANY, true).await;
    let crowd = Crowd::connect(&world.node().address, &tokens, RESTAURANT, IDLE).await;
    world::let_time_pass("every driver has sent two heartbeats", IDLE * 2).await;
    let new = world.start_node().await;
    new.wait_for_health("ok").await;
    // Orders are posted during the whole time: to the old node until it refuses them, then to the new one, as a
    // load balancer does.
    let (done, addresses) = (AtomicBool::new(false), [world.nodes[0].address.clone(), new.address.clone()]);
    let posting_orders = async {
        let (mut accepted, mut n) = (Vec::new(), 0);
        while !done.load(Ordering::Relaxed) {
            n += 1;
            let order = Order::new(&format!("rolling-{n}"));
            for node in [&world.nodes[0], &new] {
                let reply = orders::try_post_order(node, &order, WEBHOOK_SECRET).await;
                if reply.is_some_and(|reply| matches!(reply.status, 200..=202)) {
                    accepted.push(order.id().to_owned());
                    break;
                }
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        accepted
    };
    let moving_fleet = async {
        world::let_time_pass("orders are posted before the restart", Duration::from_secs(3)).await;
        crowd.set_reconnect_address(&addresses[1]);
        let began = Instant::now();
        world.nodes[0].send_sigterm();
        eventually("every driver is on the new node", Duration::from_secs(240), || async {
            (new.metric("driver_tracker_sessions").await == MANY as f64).then_some(())
        })
        .await;
        let took = began.elapsed();
        world::let_time_pass("orders are posted after the restart", Duration::from_secs(5)).await;
        done.store(true, Ordering::Relaxed);
        took
    };
    let (accepted, took) = tokio::join!(posting_orders, moving_fleet);
    println!(
        "{MANY} sockets moved {:.1} s after SIGTERM ({} closed with 1012); heartbeats p50, p99 {:?} ms; {} orders accepted",
        took.as_secs_f64(),
        CrowdStats::get(&crowd.stats.closed_for_restart),
        crowd.stats.ack_latency_ms(&[50, 99]),
        accepted.len()
    );
    assert_eq!(CrowdStats::get(&crowd.stats.closed_for_restart), MANY as u64, "every socket is closed with 1012");
    assert_eq!(world.nodes[0].wait_for_exit(Duration::from_secs(25)).await.code(), Some(0));
    world.nodes[0] = new;
    let offline = "SELECT count(*) FROM driver_events WHERE status = 'OFFLINE'";
    assert_eq!(world.count(offline).await, 0, "no driver goes off duty");
    let known: Vec<String> =
        sqlx::query_scalar("SELECT seller_order_id FROM deliveries").fetch_all(&world.pool).await.unwrap();
    assert!(accepted.len() > 50 && accepted.iter().all(|name| known.contains(name)), "no accepted order is lost");
    eventually("every order has a driver who has acknowledged the assignment", SOON, || async {
        let open = "SELECT count(*) FROM deliveries d WHERE status <> 'ASSIGNED' OR NOT EXISTS (SELECT 1 FROM driver_commands c
            WHERE c.delivery_id = d.id AND c.assignment_id = d.assignment_id AND c.acked_at IS NOT NULL)";
        (world.count(open).await == 0).then_some(())
    })
    .await;
    wait_for_all_acks(&crowd).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes: make soak"]
async fn soak_a_thousand_deliveries_reach_a_shop_that_fails_from_nodes_that_die() {
    super::outbox::storm(1000, 20).await;
}
