//! Tests of the simulator against a fake service: REST, webhook and WebSocket on one port. The fake finds the nearest driver
//! by brute force.

use std::collections::HashMap;
use std::sync::Mutex;

use futures_util::SinkExt;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use super::*;

const SECRET: &str = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";
const KEY: &str = "the admin key";

#[derive(Default)]
struct FakeDriver {
    name: String,
    place: Option<Position>,
    on_duty: bool,
    active: bool,
    busy_with: Option<(String, Value)>,
    socket: Option<mpsc::UnboundedSender<Value>>,
    upgrades: usize,
}

#[derive(Default)]
struct FakeState {
    drivers: HashMap<String, FakeDriver>,
    updates: Vec<String>,
    acks: Vec<String>,
    posted: u64,
    /// The number of available drivers after each order.
    free_after: Vec<usize>,
    /// Whether the first post of an order is answered with 503.
    first_post_fails: bool,
    /// Whether orders are assigned to the farthest driver.
    chooses_farthest: bool,
    /// Close codes, last first: a session closes with one of them after a status frame.
    close_with: Vec<u16>,
}

/// The fake service. It stops when dropped.
struct Fake {
    url: String,
    state: Arc<Mutex<FakeState>>,
    _tasks: JoinSet<()>,
}

impl Fake {
    async fn start() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(FakeState::default()));
        let mut tasks = JoinSet::new();
        let own = state.clone();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, own.clone()));
            }
        });
        Self { url, state, _tasks: tasks }
    }

    fn options(&self, drivers: DriverSource) -> SimulateOptions {
        let center = Position::new(12.97, 77.59).unwrap();
        SimulateOptions {
            http_url: self.url.clone(),
            api_key: Some(KEY.to_owned()),
            webhook: WebhookAuth::Signed(SECRET.to_owned()),
            drivers,
            movement: Movement::Random { center, radius_km: 1.0 },
            orders: OrderSource::None,
            keep_free: 0,
            speed: 400.0,
            duration: Some(Duration::from_secs(30)),
            seed: 1,
        }
    }
}

async fn serve(stream: TcpStream, state: Arc<Mutex<FakeState>>) {
    let mut start = [0u8; 14];
    while stream.peek(&mut start).await.unwrap_or(0) < start.len() {
        tokio::task::yield_now().await;
    }
    if &start == b"GET /ws/driver" { socket(stream, state).await } else { http(stream, state).await }
}

// The library defines the large error type.
#[allow(clippy::result_large_err)]
async fn socket(stream: TcpStream, state: Arc<Mutex<FakeState>>) {
    let mut id = String::new();
    let upgrade = |request: &Request, mut response: Response| -> Result<Response, ErrorResponse> {
        let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        assert_eq!(header("sec-websocket-protocol"), "driver-tracker.v1");
        id = header("authorization").strip_prefix("Bearer token of ").unwrap_or_default().to_owned();
        response.headers_mut().insert("sec-websocket-protocol", "driver-tracker.v1".parse().unwrap());
        Ok(response)
    };
    let Ok(mut socket) = tokio_tungstenite::accept_hdr_async(stream, upgrade).await else { return };
    let (commands, mut to_send) = mpsc::unbounded_channel();
    let welcome = {
        let mut state = state.lock().unwrap();
        let driver = state.drivers.entry(id.clone()).or_default();
        driver.upgrades += 1;
        driver.socket = Some(commands);
        let deliveries: Vec<&Value> = driver.busy_with.iter().map(|(_, delivery)| delivery).collect();
        json!({"type": "welcome", "sessionId": "s", "driver": {"id": id, "name": "", "status": "OFFLINE",
            "onDuty": driver.on_duty, "capacity": 1}, "deliveries": deliveries, "offers": [],
            "heartbeatIntervalMs": 100, "ttlMs": 3000, "serverTime": "2026-01-27T10:00:00Z", "later": 1})
    };
    let _ = socket.send(Message::text(welcome.to_string())).await;
    let _ = socket.send(Message::text(r#"{"type":"fanfare"}"#)).await;
    loop {
        let answers = tokio::select! {
            Some(command) = to_send.recv() => vec![command],
            message = socket.next() => match message {
                Some(Ok(Message::Text(text))) => on_frame(&id, &serde_json::from_str(&text).unwrap(), &state),
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                Some(Ok(_)) => Vec::new(),
            },
        };
        for answer in answers {
            if let Some(code) = answer["close"].as_u64() {
                let frame = CloseFrame { code: u16::try_from(code).unwrap().into(), reason: "".into() };
                let _ = socket.close(Some(frame)).await;
                return;
            }
            let _ = socket.send(Message::text(answer.to_string())).await;
        }
    }
}

fn on_frame(id: &str, frame: &Value, state: &Mutex<FakeState>) -> Vec<Value> {
    let mut state = state.lock().unwrap();
    match frame["type"].as_str().unwrap() {
        "heartbeat" => {
            if frame.get("lat").is_some() {
                let place = serde_json::from_value(json!({"lat": frame["lat"], "lon": frame["lon"]})).unwrap();
                state.drivers.get_mut(id).unwrap().place = Some(place);
            }
            vec![json!({"type": "ack", "seq": frame["seq"]})]
        }
        "status" => {
            let on_duty = frame["status"] == "AVAILABLE";
            state.drivers.get_mut(id).unwrap().on_duty = on_duty;
            let ok = json!({"type": "ok", "ref": frame["ref"], "status": frame["status"], "onDuty": on_duty});
            let close = state.close_with.pop();
            let reconnect = close.filter(|code| *code == 1012).map(|_| json!({"type": "reconnect", "afterMs": 50}));
            [Some(ok), reconnect, close.map(|code| json!({"close": code}))].into_iter().flatten().collect()
        }
        "ack" => {
            state.acks.push(frame["messageId"].as_str().unwrap().to_owned());
            Vec::new()
        }
        "delivery.update" => {
            let status = frame["status"].as_str().unwrap().to_owned();
            let driver = state.drivers.get_mut(id).unwrap();
            assert_eq!(driver.busy_with.as_ref().map(|(delivery, _)| delivery.as_str()), frame["deliveryId"].as_str());
            if status == "DELIVERED" {
                driver.busy_with = None;
            }
            state.updates.push(status.clone());
            vec![json!({"type": "ok", "ref": frame["ref"], "status": status})]
        }
        other => panic!("{other}"),
    }
}

/// Serves one request per connection, which keeps the fake simple.
async fn http(mut stream: TcpStream, state: Arc<Mutex<FakeState>>) {
    let mut bytes = Vec::new();
    let (head, body) = loop {
        let mut chunk = [0u8; 4096];
        match stream.read(&mut chunk).await {
            Ok(count) if count > 0 => bytes.extend_from_slice(&chunk[..count]),
            _ => return,
        }
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.map_or(0, |length| length.parse().unwrap());
        if bytes.len() >= end + 4 + length {
            break (head, bytes[end + 4..].to_vec());
        }
    };
    let (status, answer) = answer(&head, &body, &state);
    let body = answer.to_string();
    let text = format!(
        "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    let _ = stream.write_all(text.as_bytes()).await;
}

fn answer(head: &str, body: &[u8], state: &Mutex<FakeState>) -> (u16, Value) {
    let header = |name: &str| head.lines().find_map(|line| line.strip_prefix(&format!("{name}: "))).unwrap_or_default();
    let mut request = head.split(' ');
    let (method, path) = (request.next().unwrap(), request.next().unwrap());
    let mut state = state.lock().unwrap();
    if path.starts_with("/api/v1/") {
        assert_eq!(header("authorization"), format!("Bearer {KEY}"));
    }
    match (method, path) {
        ("POST", "/api/v1/drivers") => {
            let id = format!("d{}", state.drivers.len());
            let wanted: Value = serde_json::from_slice(body).unwrap();
            let name = wanted["name"].as_str().unwrap().to_owned();
            state.drivers.insert(id.clone(), FakeDriver { name, active: true, ..FakeDriver::default() });
            (201, json!({"id": id, "name": wanted["name"]}))
        }
        ("DELETE", path) => {
            let id = path.rsplit('/').next().unwrap();
            state.drivers.get_mut(id).unwrap().active = false;
            (200, json!({}))
        }
        ("POST", "/webhooks/vendure/seller-order-ready") => {
            let oracle = standardwebhooks::Webhook::new(SECRET).unwrap();
            let signed = oracle.sign(header("webhook-id"), header("webhook-timestamp").parse().unwrap(), body).unwrap();
            assert_eq!(header("webhook-signature"), signed);
            if std::mem::take(&mut state.first_post_fails) {
                return (503, json!({"code": "unavailable"}));
            }
            take_order(&mut state, &serde_json::from_slice(body).unwrap())
        }
        ("POST", path) if path.ends_with("/tokens") => {
            let id = path.split('/').nth(4).unwrap();
            (201, json!({"tokenId": "t", "token": format!("token of {id}")}))
        }
        _ => (404, json!({"code": "not_found"})),
    }
}

fn take_order(state: &mut FakeState, order: &Value) -> (u16, Value) {
    state.posted += 1;
    let sign = if state.chooses_farthest { -1.0 } else { 1.0 };
    let delivery_id = format!("x{}", state.posted);
    let pickup: Position = serde_json::from_value(order["pickup"].clone()).unwrap();
    let free = state.drivers.iter_mut().filter(|(_, driver)| driver.on_duty && driver.busy_with.is_none());
    let mut free: Vec<_> = free
        .filter_map(|(id, driver)| driver.place.map(|place| (sign * place.distance_m(&pickup), id, driver)))
        .collect();
    free.sort_by(|a, b| a.0.total_cmp(&b.0));
    let Some((_, id, driver)) = free.into_iter().next() else {
        return (202, json!({"deliveryId": delivery_id, "status": "PENDING", "duplicate": false}));
    };
    let delivery = json!({"id": delivery_id, "assignmentId": "a", "status": "ASSIGNED",
        "sellerOrderId": order["sellerOrderId"], "pickup": order["pickup"], "drop": order["drop"]});
    driver.busy_with = Some((delivery_id.clone(), delivery.clone()));
    let command = json!({"type": "assignment", "messageId": format!("m-{delivery_id}"), "delivery": delivery});
    let _ = driver.socket.as_ref().unwrap().send(command);
    let (id, free) = (id.clone(), state.drivers.values().filter(|d| d.on_duty && d.busy_with.is_none()).count());
    state.free_after.push(free);
    (201, json!({"deliveryId": delivery_id, "status": "ASSIGNED", "driverId": id, "duplicate": false}))
}

async fn run(options: SimulateOptions) -> (Report, Vec<Progress>) {
    let (_keep, shutdown) = watch::channel(false);
    let mut seen = Vec::new();
    let report = Simulation::new(options).unwrap().run(shutdown, |progress| seen.push(progress.clone())).await.unwrap();
    (report, seen)
}

#[tokio::test]
async fn a_fleet_delivers_its_orders_and_reports_the_result() {
    let fake = Fake::start().await;
    let center = Position::new(12.97, 77.59).unwrap();
    let rate = OrderSource::Rate { per_minute: 600.0, count: Some(6), center, radius_km: 1.0 };
    let options = SimulateOptions { orders: rate, ..fake.options(DriverSource::Create(8)) };
    let (report, seen) = run(options).await;
    assert!(seen.iter().any(|progress| progress.connected == 8 && progress.heartbeats_acked_per_s > 1.0));
    assert_eq!((report.last.orders_posted, report.last.orders_assigned, report.last.orders_delivered), (6, 6, 6));
    assert_eq!((report.assigned_at_once, report.last.webhook_to_socket.count), (6, 6));
    assert_eq!(report.nearest.not_nearest, 0, "{report}");
    assert_eq!(report.nearest.nearest + report.nearest.undecidable, 6, "{report}");
    assert!(report.errors.is_empty(), "{report}");
    let state = fake.state.lock().unwrap();
    assert_eq!(state.acks.len(), 6);
    for stage in ["PICKED_UP", "IN_TRANSIT", "DELIVERED"] {
        assert_eq!(state.updates.iter().filter(|update| *update == stage).count(), 6);
    }
    assert!(
        state.drivers.values().all(|driver| !driver.active && !driver.on_duty && driver.name.contains("Simulated"))
    );
}

#[tokio::test]
async fn orders_are_posted_only_while_enough_drivers_stay_free() {
    let fake = Fake::start().await;
    let center = Position::new(12.97, 77.59).unwrap();
    // Far more orders than eight drivers can take.
    let orders = OrderSource::Rate { per_minute: 60_000.0, count: Some(30), center, radius_km: 1.0 };
    let options = SimulateOptions { orders, keep_free: 3, ..fake.options(DriverSource::Create(8)) };
    let (report, seen) = run(options).await;
    let free_after = fake.state.lock().unwrap().free_after.clone();
    assert_eq!((report.last.orders_posted, report.last.orders_delivered, free_after.len()), (30, 30, 30), "{report}");
    assert_eq!(
        free_after.iter().min(),
        Some(&3),
        "all drivers but three are used, and these three never: {free_after:?}"
    );
    assert_eq!(report.assigned_at_once, 30, "no order had to wait: {report}");
    assert!(seen.iter().any(|progress| progress.drivers_free >= 3));

    // When every driver must stay free, no order is posted.
    let orders = OrderSource::Rate { per_minute: 60_000.0, count: None, center, radius_km: 1.0 };
    let duration = Some(Duration::from_secs(3));
    let (report, _) =
        run(SimulateOptions { orders, keep_free: 2, duration, ..fake.options(DriverSource::Create(2)) }).await;
    assert_eq!(report.last.orders_posted, 0, "{report}");
}

#[tokio::test]
async fn the_report_shows_a_service_that_chooses_the_farthest_driver() {
    let fake = Fake::start().await;
    fake.state.lock().unwrap().chooses_farthest = true;
    let center = Position::new(12.97, 77.59).unwrap();
    let rate = OrderSource::Rate { per_minute: 600.0, count: Some(5), center, radius_km: 1.0 };
    // At this speed the fleet hardly moves while an order is posted.
    let duration = Some(Duration::from_secs(4));
    let options = SimulateOptions { orders: rate, speed: 1.0, duration, ..fake.options(DriverSource::Create(20)) };
    let (report, _) = run(options).await;
    assert!(report.nearest.not_nearest >= 4 && report.nearest.nearest == 0, "{report}");
}

#[tokio::test]
async fn a_post_to_a_busy_service_is_retried_and_the_order_counts_as_waiting() {
    let fake = Fake::start().await;
    fake.state.lock().unwrap().first_post_fails = true;
    let center = Position::new(12.97, 77.59).unwrap();
    let orders = OrderSource::Recorded(vec![RecordedOrder { t_s: 400.0, pickup: center, drop: center }]);
    let (report, _) = run(SimulateOptions { orders, ..fake.options(DriverSource::Create(1)) }).await;
    assert_eq!((report.assigned_at_once, report.assigned_later, report.last.orders_delivered), (0, 1, 1), "{report}");
    assert_eq!(report.errors, [("webhook: 503".to_owned(), 1)].into());
}

#[tokio::test]
async fn a_driver_reconnects_when_requested_and_never_after_4002() {
    let fake = Fake::start().await;
    fake.state.lock().unwrap().close_with = vec![4002, 1012];
    let driver = ExistingDriver { id: "d9".to_owned(), token: "token of d9".to_owned(), last_position: None };
    let existing = DriverSource::Existing(vec![driver]);
    // The fake confirms duty in the first session and closes it. It then clears the duty, so that the second session requests
    // it again.
    let state = fake.state.clone();
    let clearing_duty = async {
        loop {
            tokio::time::sleep(Duration::from_millis(5)).await;
            if let Some(driver) = state.lock().unwrap().drivers.get_mut("d9") {
                driver.on_duty = false;
            }
        }
    };
    let started = std::time::Instant::now();
    let (report, _) =
        tokio::select! { done = run(fake.options(existing)) => done, () = clearing_duty => unreachable!() };
    assert!(started.elapsed() < Duration::from_secs(20), "the run ends when every driver is refused permanently");
    assert_eq!(fake.state.lock().unwrap().drivers["d9"].upgrades, 2);
    assert_eq!(report.errors.keys().collect::<Vec<_>>(), ["closed: 1012", "closed: 4002"]);
}

#[tokio::test]
async fn a_shutdown_ends_the_run_at_once_with_every_driver_off_duty() {
    let fake = Fake::start().await;
    let (stop, shutdown) = watch::channel(false);
    let stop = std::cell::RefCell::new(Some(stop));
    let options = SimulateOptions { duration: None, ..fake.options(DriverSource::Create(2)) };
    let report = Simulation::new(options).unwrap().run(shutdown, |progress| {
        if progress.connected == 2
            && let Some(stop) = stop.take()
        {
            stop.send(true).unwrap();
        }
    });
    let report = timeout(Duration::from_secs(10), report).await.unwrap().unwrap();
    assert!(report.errors.is_empty() && report.last.heartbeats_sent > 0, "{report}");
    assert!(fake.state.lock().unwrap().drivers.values().all(|driver| !driver.on_duty));
}

#[test]
fn invalid_options_are_refused() {
    let options = |url: &str, key: Option<&str>, count, speed| {
        let center = Position::new(0.0, 0.0).unwrap();
        let _ = rustls::crypto::ring::default_provider().install_default();
        Simulation::new(SimulateOptions {
            http_url: url.to_owned(),
            api_key: key.map(str::to_owned),
            webhook: WebhookAuth::Shared("s".to_owned()),
            drivers: DriverSource::Create(count),
            movement: Movement::Random { center, radius_km: 1.0 },
            orders: OrderSource::None,
            keep_free: 0,
            speed,
            duration: None,
            seed: 1,
        })
        .err()
        .map(|error| error.to_string())
    };
    assert_eq!(options("http://h", Some("k"), 1, 1.0), None);
    for (url, key, count, speed, expected) in [
        ("https://h", Some("k"), 1, 1.0, "http://"),
        ("http://h", None, 1, 1.0, "API key"),
        ("http://h", Some("k"), 0, 1.0, "drivers"),
        ("http://h", Some("k"), 1, 0.0, "speed"),
    ] {
        assert!(options(url, key, count, speed).unwrap().contains(expected));
    }
}
