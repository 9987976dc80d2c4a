//! Measures orders through the signed webhook: how many are assigned per second, and the latency to the driver in a burst.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use chrono::Utc;
use driver_tracker::webhooks::signature::{SigningSecret, sign};
use futures_util::{StreamExt, stream};
use rand::{SeedableRng, rngs::StdRng};
use serde_json::json;

use crate::block_on;
use crate::city;
use crate::fleet::Fleet;
use crate::table::{Row, Target};
use crate::world::{WEBHOOK_SECRET, World};

const DRIVERS: usize = 3_000;
/// The orders of the burst, and of the run at full speed.
const ORDERS: usize = 2_500;
const BURST_PER_SECOND: f64 = 500.0;
/// The maximum number of concurrent requests in the run at full speed.
const CONCURRENCY: usize = 64;
/// The clients of pgbench, as many as the service's pool has connections.
const CLIENTS: &str = "16";
/// The time limit for the last assignments.
const ASSIGN_LIMIT: Duration = Duration::from_secs(60);

/// Writes the same rows as the service: one transaction inserts an order and claims a driver for it.
const PGBENCH: &str = r"
\set n random(1, 3000)
BEGIN;
INSERT INTO deliveries (id, shop, seller_order_id, channel_id, pickup_lat, pickup_lon, pickup_details, drop_lat, drop_lon,
    drop_details, region, status) VALUES (gen_random_uuid(), 'vendure', gen_random_uuid()::text, '1', 37.7, -122.4, '{}', 37.8, -122.3,
    '{}', 1, 'PENDING') RETURNING id AS delivery \gset
WITH driver AS MATERIALIZED (
    SELECT id, used_slots FROM drivers WHERE id = (SELECT id FROM bench_drivers WHERE n = :n) AND status = 'AVAILABLE'
    FOR NO KEY UPDATE SKIP LOCKED
), claimed AS (
    UPDATE drivers d SET used_slots = d.used_slots + 1, epoch = d.epoch + 1 FROM driver WHERE d.id = driver.id
    RETURNING d.id, d.used_slots - 1 AS slot
), assigned AS (
    INSERT INTO assignments (id, delivery_id, driver_id, attempt, slot, state)
    SELECT gen_random_uuid(), :delivery, id, 1, slot, 'ACTIVE' FROM claimed RETURNING id, driver_id
), command AS (
    INSERT INTO driver_commands (message_id, driver_id, kind, delivery_id, assignment_id)
    SELECT gen_random_uuid(), driver_id, 'assignment', :delivery, id FROM assigned
), trail AS (
    INSERT INTO delivery_events (delivery_id, sequence, type, at, actor_kind, data, hash)
    SELECT :delivery, n, CASE n WHEN 1 THEN 'CREATED' ELSE 'ASSIGNED' END, now(), 'system', '{}', '\x00'
    FROM generate_series(1, 2) AS n
)
UPDATE deliveries SET status = 'ASSIGNED', driver_id = assigned.driver_id, assignment_id = assigned.id, last_sequence = 2
FROM assigned WHERE deliveries.id = :delivery;
COMMIT;
";

struct Shop {
    client: reqwest::Client,
    url: String,
    secrets: Vec<SigningSecret>,
    random: std::cell::RefCell<StdRng>,
}

impl Shop {
    fn new(address: SocketAddr) -> Self {
        Self {
            client: reqwest::Client::new(),
            url: format!("http://{address}/webhooks/vendure/seller-order-ready"),
            secrets: SigningSecret::parse_list(WEBHOOK_SECRET).expect("a secret"),
            random: StdRng::seed_from_u64(2).into(),
        }
    }

    /// Posts one order. Returns the time at which it was sent.
    async fn post(&self, order: &str) -> Instant {
        let ((lat, lon), (drop_lat, drop_lon)) = {
            let random = &mut *self.random.borrow_mut();
            (city(random), city(random))
        };
        let body = json!({"sellerOrderId": order, "channelId": "1", "pickup": {"lat": lat, "lon": lon},
            "drop": {"lat": drop_lat, "lon": drop_lon}})
        .to_string();
        let at = Utc::now().timestamp();
        let signature = sign(&self.secrets, order, at, body.as_bytes());
        let request = self
            .client
            .post(&self.url)
            .header("content-type", "application/json")
            .header("webhook-id", order)
            .header("webhook-timestamp", at.to_string())
            .header("webhook-signature", signature)
            .body(body);
        let sent = Instant::now();
        let answer = request.send().await.expect("an answer");
        assert!(answer.status().is_success(), "the order was refused: {}", answer.status());
        sent
    }
}

async fn all_assigned(fleet: &Fleet, orders: usize) {
    let deadline = Instant::now() + ASSIGN_LIMIT;
    while fleet.assigned() < orders {
        assert!(Instant::now() < deadline, "{} of {orders} orders were assigned", fleet.assigned());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Sends heartbeats, so that the drivers stay available, while `work` runs.
async fn with_heartbeats<T>(fleet: &Fleet, work: impl Future<Output = T>) -> T {
    let heartbeats = async {
        loop {
            fleet.run(DRIVERS as f64 / 5.0, Duration::from_secs(5)).await;
        }
    };
    tokio::select! {
        done = work => done,
        () = heartbeats => unreachable!("the heartbeats never end"),
    }
}

/// Posts orders at full speed. Returns the orders assigned per second.
async fn full_speed(fleet: &Fleet, shop: &Shop) -> f64 {
    let began = Instant::now();
    let posts = (0..ORDERS).map(|number| async move { shop.post(&format!("flat-{number}")).await });
    with_heartbeats(fleet, async {
        stream::iter(posts).buffer_unordered(CONCURRENCY).collect::<Vec<_>>().await;
        all_assigned(fleet, ORDERS).await;
    })
    .await;
    ORDERS as f64 / began.elapsed().as_secs_f64()
}

/// Posts orders at a steady rate. Returns p50 and p99 of the latency from the webhook to the driver's socket.
async fn burst(fleet: &Fleet, shop: &Shop) -> (Duration, Duration) {
    let began = Instant::now();
    let posts = (0..ORDERS).map(|number| async move {
        tokio::time::sleep_until((began + Duration::from_secs_f64(number as f64 / BURST_PER_SECOND)).into()).await;
        let order = format!("burst-{number}");
        let sent = shop.post(&order).await;
        (order, sent)
    });
    let sent: HashMap<String, Instant> = with_heartbeats(fleet, async {
        let sent = futures_util::future::join_all(posts).await;
        all_assigned(fleet, ORDERS).await;
        sent.into_iter().collect()
    })
    .await;
    let assigned = fleet.take_assigned();
    let mut waits: Vec<Duration> =
        assigned.iter().map(|(order, at)| at.saturating_duration_since(sent[order])).collect();
    waits.sort();
    (waits[waits.len() / 2], waits[waits.len() * 99 / 100])
}

async fn with_fleet<T>(world: &World, work: impl AsyncFnOnce(&Fleet, &Shop) -> T) -> T {
    let service = world.serve(&[]);
    let tokens = world.drivers(DRIVERS, 1).await;
    let fleet = Fleet::connect(&[service.address], &tokens).await;
    fleet.run(DRIVERS as f64, Duration::from_secs(2)).await;
    work(&fleet, &Shop::new(service.address)).await
}

fn pgbench(world: &World) -> f64 {
    block_on(async {
        world.drivers(DRIVERS, 10_000).await;
        let rows = "DROP TABLE IF EXISTS bench_drivers; CREATE TABLE bench_drivers AS
            SELECT id, row_number() OVER () AS n FROM drivers; CREATE INDEX ON bench_drivers (n); ANALYZE";
        sqlx::raw_sql(rows).execute(&mut world.connect().await).await.expect("the table");
    });
    let script = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(script.path(), PGBENCH).expect("the script");
    let output = Command::new("pgbench")
        .args(["-n", "-M", "prepared", "-T", "10", "-j", "2", "-c", CLIENTS, "-f"])
        .arg(script.path())
        .arg(&world.database_url)
        .output()
        .expect("pgbench, which comes with PostgreSQL");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let tps = text.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok());
    tps.unwrap_or_else(|| panic!("pgbench failed: {text}{}", String::from_utf8_lossy(&output.stderr)))
}

pub fn measure() -> Vec<Row> {
    let world = World::start();
    let rate = block_on(with_fleet(&world, full_speed));
    let (p50, p99) = block_on(with_fleet(&world, burst));
    let reference = pgbench(&world);
    vec![
        Row {
            name: "orders",
            what: "orders assigned a second through the signed webhook ÷ pgbench, one order a transaction".to_owned(),
            ratio: rate / reference,
            target: None,
            detail: format!(
                "{rate:.0} ÷ {reference:.0} a second, {ORDERS} orders, {DRIVERS} drivers on sockets, {CLIENTS} connections"
            ),
        },
        Row {
            name: "orders",
            what: format!("webhook → the driver's socket at {BURST_PER_SECOND} orders a second: p99 ÷ p50"),
            ratio: p99.as_secs_f64() / p50.as_secs_f64(),
            target: Some(Target::AtMost(20.0, 5.0)),
            detail: format!("{:.1} ÷ {:.1} ms, {ORDERS} orders", p99.as_secs_f64() * 1e3, p50.as_secs_f64() * 1e3),
        },
    ]
}
