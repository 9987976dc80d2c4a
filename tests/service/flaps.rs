//! Tests that a driver has one session over all nodes, also when many sockets open and close concurrently.

use std::time::Duration;

use futures_util::SinkExt;
use tokio_tungstenite::tungstenite::Message;

use super::support::crowd::CrowdStats;
use super::support::session::Closed;
use super::support::*;

/// The number of concurrent phones with one driver's token, and the number of sockets that each opens.
const PHONES: usize = 8;
const FLAPS: usize = 125;

/// Opens and closes sockets on both nodes: some without a close frame, some after a heartbeat, some with a close
/// frame. Returns the last session, which stays open.
async fn flap(addresses: [String; 2], token: String, phone: usize) -> Session {
    for n in 0..FLAPS - 1 {
        let address = &addresses[(n + phone) % 2];
        let mut socket =
            socket::open(address, &token, None).await.unwrap_or_else(|e| panic!("the upgrade was refused: {e}"));
        let elsewhere = RESTAURANT.offset(1000.0 * (phone + 1) as f64, 0.0);
        if n % 3 > 0 {
            let beat = driver::heartbeat(n as i64, elsewhere).to_string();
            let _ = socket.send(Message::text(beat)).await;
        }
        if n % 3 > 1 {
            let _ = socket.close(None).await;
        }
    }
    Session::connect(&addresses[phone % 2], &token).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_reconnects_over_two_nodes_leave_one_session_and_keep_the_driver_on_duty() {
    let world = World::with().nodes(2).set("POSITION_FLUSH_MS", 300).start().await;
    let driver = world.on_duty_at(&world.nodes[0], RESTAURANT.offset(100.0, 0.0)).await;
    let (_, others) = world.insert_drivers(40, false).await;
    let crowd = Crowd::connect(&world.nodes[1].address, &others, RESTAURANT, Duration::from_millis(500)).await;
    world::let_time_pass("the latency of the other drivers is measured before", Duration::from_secs(3)).await;
    let before = crowd.stats.ack_latency_ms(&[50, 99]);

    let began = std::time::Instant::now();
    let addresses = [world.nodes[0].address.clone(), world.nodes[1].address.clone()];
    let phones = (0..PHONES).map(|phone| tokio::spawn(flap(addresses.clone(), driver.token.clone(), phone)));
    let last: Vec<Session> =
        join_all(phones).await.into_iter().map(|phone| phone.expect("the task of a phone does not panic")).collect();
    let took = began.elapsed();
    let during = crowd.stats.ack_latency_ms(&[50, 99]);
    println!(
        "{} flaps in {:.1} s; the others' heartbeats p50 {:.1} → {:.1} ms, p99 {:.1} → {:.1} ms",
        PHONES * FLAPS,
        took.as_secs_f64(),
        before[0],
        during[0],
        before[1],
        during[1]
    );

    // One socket stays open: that of the newest session in PostgreSQL.
    eventually("the two nodes together have one session", SOON, || async {
        let counts = world.nodes.iter().map(|node| node.metric("driver_tracker_sessions"));
        (join_all(counts).await.iter().sum::<f64>() == 1.0 + others.len() as f64).then_some(())
    })
    .await;
    let id: uuid::Uuid = driver.id.parse().unwrap();
    let (epoch, newest): (i64, uuid::Uuid) =
        sqlx::query_as("SELECT session_epoch, session_id FROM driver_sessions WHERE driver_id = $1")
            .bind(id)
            .fetch_one(&world.pool)
            .await
            .unwrap();
    assert!(epoch <= (PHONES * FLAPS) as i64 + 1);
    let open: Vec<&Session> = last.iter().filter(|session| session.ended().is_none()).collect();
    assert_eq!(open.len(), 1, "{:?}", last.iter().map(Session::ended).collect::<Vec<_>>());
    assert_eq!(open[0].take("welcome").await["sessionId"], newest.to_string());
    assert!(last.iter().filter_map(Session::ended).all(|end| end == Closed::With(4001)));

    // Only the newest session writes: no position of an older session is in Redis or PostgreSQL.
    let here = RESTAURANT.offset(150.0, 0.0);
    last.iter().for_each(|session| session.send(&driver::heartbeat(10_000, here)));
    open[0].wait_for_ack(10_000).await;
    let (stored, lat): (i64, f64) = eventually("the stored position is of the last session", SOON, || async {
        let row = sqlx::query_as("SELECT session_epoch, lat FROM driver_positions WHERE driver_id = $1").bind(id);
        let row: (i64, f64) = row.fetch_one(&world.pool).await.ok()?;
        (row.0 == epoch).then_some(row)
    })
    .await;
    assert_eq!(stored, epoch);
    assert!((lat - here.lat).abs() < 1e-6, "{lat}");
    let mut key = ::redis::cmd("GET");
    key.arg(world.redis.key(&format!("driver:online:{id}")));
    let online: String = world.redis.try_command(&key).await.expect("the online key exists");
    assert!(online.ends_with(&format!(",{epoch}")), "the online key {online} is of session {epoch}");

    let offline: i64 =
        world.count("SELECT count(*) FROM driver_events WHERE reason <> 'created' AND status = 'OFFLINE'").await;
    assert_eq!(offline, 0, "no end of a session takes the driver off duty");
    assert_eq!(world.driver_status(&driver.id).await, "AVAILABLE");
    crowd.stop_heartbeats();
    eventually("every heartbeat of the other drivers is acknowledged", SOON, || async {
        (CrowdStats::get(&crowd.stats.acked) == CrowdStats::get(&crowd.stats.sent)).then_some(())
    })
    .await;
    assert_eq!(CrowdStats::get(&crowd.stats.ended), 0, "no other driver loses the socket");
    let response = world.post_order(&Order::new("after-the-flaps")).await.expect(201);
    let frame = open[0].take("assignment").await;
    assert_eq!(frame["delivery"]["id"], response["deliveryId"]);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes: make soak"]
async fn soak_a_fleet_that_connects_at_once_is_admitted_and_orders_are_accepted_meanwhile() {
    const FLEET: usize = 8000;
    let world = World::with().set("DATABASE_MAX_CONNECTIONS", 4).start().await;
    let (_, tokens) = world.insert_drivers(FLEET, false).await;
    let address = tokio::sync::watch::Sender::new(world.node().address.clone());
    let present = address.subscribe();
    let began = std::time::Instant::now();
    let connecting = join_all(tokens.iter().map(|token| socket::open_with_retries(&present, token)));
    let posting_orders = async {
        // Orders are posted during the whole time.
        let mut accepted = 0;
        while world.node().metric("driver_tracker_sessions").await < FLEET as f64 {
            world.post_order(&Order::new(&format!("while-they-come-{accepted}"))).await.expect(202);
            accepted += 1;
            assert!(began.elapsed() < Duration::from_secs(120), "the fleet is admitted in time");
        }
        accepted
    };
    let (sockets, accepted) = tokio::join!(connecting, posting_orders);
    println!(
        "{FLEET} drivers connected within {:.1} s; {accepted} orders were accepted meanwhile",
        began.elapsed().as_secs_f64()
    );
    assert_eq!(world.node().metric(r#"driver_tracker_sessions_closed_total{code="1011"}"#).await, 0.0);
    let silent = world.node().log_lines().iter().filter(|line| line.contains("PostgreSQL does not answer")).count();
    assert_eq!(silent, 0, "the node reports no outage of PostgreSQL");
    drop(sockets);
    world.finish().await;
}
