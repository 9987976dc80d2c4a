//! Tests of clients that do not read: they are closed in time, cost little, and affect no other client.

use std::time::{Duration, Instant};

use super::support::crowd::CrowdStats;
use super::support::session::Closed;
use super::support::*;

const TOO_SLOW: &str = r#"driver_tracker_sessions_closed_total{code="4003"}"#;
/// The limit for the close of a client that accepts no bytes for 15 s, with slack for a busy machine.
const CLOSE_LIMIT: Duration = Duration::from_secs(20);
/// A time without reads that the service tolerates.
const TOLERATED_PAUSE: Duration = Duration::from_secs(12);
/// The receive buffer of a client's kernel in bytes, the minimum on Linux.
const MIN_RECEIVE_BUFFER: u32 = 2048;
/// More bytes than the service buffers for one client.
const MORE_THAN_BUFFERED: usize = 4 * 1024 * 1024;

async fn wait_for_slow_closes(world: &World, count: f64) {
    eventually("the clients that do not read are closed", CLOSE_LIMIT, || async {
        let node = world.node();
        (node.metric(TOO_SLOW).await == count && node.metric("driver_tracker_sessions").await == 0.0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_accepts_no_bytes_is_closed_although_its_session_is_blocked() {
    let world = World::start().await;
    let (_, token) = world.new_driver().await;
    let mut stuck = Stuck::connect(&world.node().address, &token, MIN_RECEIVE_BUFFER).await;
    stuck.request_bytes(MORE_THAN_BUFFERED).await;
    wait_for_slow_closes(&world, 1.0).await;
    assert_eq!(stuck.read_to_the_end().await, Closed::Abruptly, "the connection ends without a close frame");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_reads_a_few_bytes_now_and_then_is_closed_too() {
    let world = World::start().await;
    let (_, token) = world.new_driver().await;
    let mut stuck = Stuck::connect(&world.node().address, &token, 4096).await;
    stuck.request_bytes(MORE_THAN_BUFFERED).await;
    let reading_slowly = tokio::spawn(async move {
        while stuck.read_some(600).await {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    });
    wait_for_slow_closes(&world, 1.0).await;
    reading_slowly.await.unwrap();
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_whose_kernel_accepts_the_bytes_is_closed_with_the_code_for_slow_clients() {
    let world = World::start().await;
    let (_, token) = world.new_driver().await;
    let mut stuck = Stuck::connect(&world.node().address, &token, 4 * 1024 * 1024).await;
    stuck.request_bytes(400 * 1024).await;
    wait_for_slow_closes(&world, 1.0).await;
    assert_eq!(
        stuck.read_to_the_end().await,
        Closed::With(4003),
        "the client reads the sent bytes and then the close frame"
    );
    // A client that continues to send is closed without a wait.
    let began = Instant::now();
    let mut asking = Stuck::connect(&world.node().address, &token, 4 * 1024 * 1024).await;
    asking.request_bytes(MORE_THAN_BUFFERED).await;
    wait_for_slow_closes(&world, 2.0).await;
    assert!(began.elapsed() < Duration::from_secs(8), "the close takes less than 8 s: {:?}", began.elapsed());
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_reads_late_is_served() {
    let world = World::start().await;
    let (_, token) = world.new_driver().await;
    let mut late = Stuck::connect(&world.node().address, &token, MIN_RECEIVE_BUFFER).await;
    late.request_bytes(300 * 1024).await;
    world::let_time_pass("the client does not read for a while", TOLERATED_PAUSE).await;
    let reading = tokio::time::timeout(CLOSE_LIMIT, late.read_to_the_end()).await;
    assert!(reading.is_err(), "the connection stays open: {reading:?}");
    assert_eq!(world.node().metric(TOO_SLOW).await, 0.0);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_stuck_clients_cost_little_and_delay_no_other_client() {
    const GOOD: usize = 300;
    const STUCK: usize = 100;
    /// The limit of the process's memory for one stuck client. The kernel's buffers are bounded by the sizes of
    /// the socket buffers.
    const EACH: u64 = 384 * 1024;
    let world = World::with().set("DATABASE_MAX_CONNECTIONS", 16).start().await;
    let (_, good) = world.insert_drivers(GOOD, false).await;
    let (ids, bad) = world.insert_drivers(STUCK, false).await;
    let crowd = Crowd::connect(&world.node().address, &good, RESTAURANT, Duration::from_millis(1000)).await;
    world::let_time_pass("the latency is measured before", Duration::from_secs(5)).await;
    let before = crowd.stats.ack_latency_ms(&[50, 99]);
    let memory = world.node().resident_bytes();

    let began = Instant::now();
    let mut stuck =
        join_all(bad.iter().map(|token| Stuck::connect(&world.node().address, token, MIN_RECEIVE_BUFFER))).await;
    // Commands, which repeat until they are acknowledged, and responses that no client reads.
    for (n, id) in ids.iter().enumerate().take(20) {
        let order = Order::new(&format!("stuck-{n}"));
        let delivery = world.post_order(&order).await.expect(202)["deliveryId"].as_str().unwrap().to_owned();
        let body = serde_json::json!({"driverId": id, "reason": "to one who does not read"});
        world.admin().post(&format!("/api/v1/deliveries/{delivery}/assign"), &body).await.expect(200);
    }
    join_all(stuck.iter_mut().map(|client| client.request_bytes(400 * 1024))).await;
    let mut most = 0;
    eventually("the clients that do not read are closed", CLOSE_LIMIT + Duration::from_secs(10), || {
        most = most.max(world.node().resident_bytes());
        async { (world.node().metric(TOO_SLOW).await == STUCK as f64).then_some(()) }
    })
    .await;
    let (during, took) = (crowd.stats.ack_latency_ms(&[50, 99]), began.elapsed());
    let grew = most.saturating_sub(memory);
    println!(
        "{STUCK} stuck among {GOOD}: the others' heartbeats p50 {:.1} → {:.1} ms, p99 {:.1} → {:.1} ms; memory {:.1} MB, \
         + {:.1} MB ({} KB each); all closed after {:.1} s",
        before[0],
        during[0],
        before[1],
        during[1],
        memory as f64 / 1e6,
        grew as f64 / 1e6,
        grew / STUCK as u64 / 1024,
        took.as_secs_f64()
    );
    assert!(grew < STUCK as u64 * EACH, "the memory of {STUCK} stuck clients is within the limit: {grew} bytes");
    crowd.stop_heartbeats();
    eventually("every heartbeat of the other drivers is acknowledged", SOON, || async {
        (CrowdStats::get(&crowd.stats.acked) == CrowdStats::get(&crowd.stats.sent)).then_some(())
    })
    .await;
    assert_eq!((CrowdStats::get(&crowd.stats.ended), CrowdStats::get(&crowd.stats.connected)), (0, GOOD as u64));
    world.finish().await;
}
