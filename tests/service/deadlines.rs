//! Tests of clients that begin a request or a session and do not continue: the service closes them within a bounded
//! time.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::support::session::{SUBPROTOCOL, upgrade};
use super::support::*;

/// The limit for the service to close a connection: ten seconds for a first head, twenty between requests, and slack
/// for a busy machine.
const CLOSE_LIMIT: Duration = Duration::from_secs(28);

/// Sends `head`, then one byte a second if `trickles`. Returns the received text when the service has closed the
/// connection.
async fn send_incomplete(address: &str, head: &str, trickles: bool) -> String {
    let mut socket = TcpStream::connect(address).await.expect("the connection opens");
    socket.write_all(head.as_bytes()).await.expect("the bytes are sent");
    let (mut from, mut to) = socket.into_split();
    let trickling = tokio::spawn(async move {
        while trickles && to.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        // Dropping the write half would signal the end of the request.
        std::future::pending::<()>().await;
    });
    let mut received = Vec::new();
    // A reset also ends the connection.
    let ended = tokio::time::timeout(CLOSE_LIMIT, from.read_to_end(&mut received)).await;
    trickling.abort();
    assert!(ended.is_ok(), "the connection is closed: {head:?}, trickles: {trickles}");
    String::from_utf8_lossy(&received).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_with_an_incomplete_request_is_closed_in_bounded_time() {
    let world = World::start().await;
    let address = world.node().address.as_str();
    let upgrading = "GET /ws/driver HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nX-Held-Back: ";
    let good = "GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n";
    let second = format!("{good}GET /health/live HTTP/1.1\r\nX-Held-Back: ");
    let body = "POST /webhooks/vendure/seller-order-ready HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{";
    let cases = [
        ("", false),
        (upgrading, false),
        (upgrading, true),
        (good, false),
        (&second, false),
        (&second, true),
        (body, false),
        (body, true),
    ];
    let received = join_all(cases.map(|(head, trickles)| send_incomplete(address, head, trickles))).await;
    for (n, status) in [(1, "408"), (2, "408"), (3, "200"), (4, "200"), (5, "200"), (6, "408"), (7, "408")] {
        assert!(received[n].starts_with(&format!("HTTP/1.1 {status}")), "case {n} received {:?}", received[n]);
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_keep_alive_connection_with_complete_requests_is_never_closed() {
    let world = World::start().await;
    let mut socket = TcpStream::connect(&world.node().address).await.unwrap();
    for n in 0..9 {
        socket.write_all(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut response = vec![0; 4096];
        let read = socket.read(&mut response).await.unwrap_or_else(|error| panic!("request {n}: {error}"));
        assert!(response[..read].starts_with(b"HTTP/1.1 200"), "request {n}");
        world::let_time_pass("the pause is shorter than the server's keep-alive timeout", Duration::from_secs(3)).await;
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_driver_who_opens_too_many_sessions_is_limited_and_others_are_not() {
    let world = World::with().set("SESSIONS_PER_MINUTE", 5).start().await;
    let (_, token) = world.new_driver().await;
    let address = &world.node().address;
    for _ in 0..5 {
        assert_eq!(Session::connect(address, &token).await.take_first().await["type"], "welcome");
    }
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str()), ("sec-websocket-protocol", SUBPROTOCOL)];
    let refused = tokio_tungstenite::connect_async(upgrade(address, "/ws/driver", &headers)).await;
    let Err(tokio_tungstenite::tungstenite::Error::Http(response)) = refused else {
        panic!("the upgrade was not refused: {refused:?}")
    };
    assert_eq!(response.status(), 429);
    let after: u64 = response.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=60).contains(&after), "{after}");
    let body: serde_json::Value = serde_json::from_slice(response.body().as_ref().unwrap()).unwrap();
    assert_eq!(body["code"], json!("too_many_sessions"));
    // Other drivers at the same address are admitted. So is this driver on another node.
    let (_, other) = world.new_driver().await;
    assert_eq!(Session::connect(address, &other).await.take_first().await["type"], "welcome");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_at_its_socket_limit_is_refused_until_a_socket_closes() {
    let world = World::with().set("CONNECTIONS_PER_ADDRESS", 3).start().await;
    let (_, tokens) = world.insert_drivers(4, false).await;
    let address = &world.node().address;
    let mut open = Vec::new();
    for token in &tokens[..3] {
        open.push(Session::connect(address, token).await);
    }
    assert_eq!(Session::try_connect(address, &tokens[3]).await.err(), Some(429));
    drop(open.pop());
    let last = eventually("a socket is admitted again", SOON, || async {
        Session::try_connect(address, &tokens[3]).await.ok()
    });
    assert_eq!(last.await.take_first().await["type"], "welcome");
    world.finish().await;
}

/// Waits one minute, which is the service's timeout.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes: make soak"]
async fn soak_a_silent_socket_is_closed_after_a_minute_and_one_that_only_pongs_is_not() {
    let world = World::start().await;
    let (_, tokens) = world.insert_drivers(3, false).await;
    let address = world.node().address.clone();
    // Three sockets: one client does not answer pings, one is behind a network that drops its bytes, one only
    // answers pings.
    let mut not_reading = Stuck::connect(&address, &tokens[0], 65_536).await;
    let relay = proxy::Proxy::start(address.rsplit(':').next().unwrap().parse().unwrap()).await;
    let half_open = Session::connect(&format!("127.0.0.1:{}", relay.port), &tokens[1]).await;
    assert_eq!(half_open.take_first().await["type"], "welcome");
    relay.set(proxy::ProxyMode::Discard);
    let idle = Session::connect(&address, &tokens[2]).await;
    let began = std::time::Instant::now();
    let closed = r#"driver_tracker_sessions_closed_total{code="4004"}"#;
    eventually("both silent sockets are closed", Duration::from_secs(75), || async {
        (world.node().metric(closed).await == 2.0).then_some(())
    })
    .await;
    println!("silent sockets were closed after {:.1} s", began.elapsed().as_secs_f64());
    assert!(began.elapsed() > Duration::from_secs(55));
    assert_eq!(not_reading.read_to_the_end().await, session::Closed::With(4004));
    assert_eq!(idle.ended(), None);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_without_plausible_credentials_is_refused_at_once_and_uses_no_admission_permit() {
    /// More upgrades than there are permits with two database connections.
    const UPGRADES: usize = 20;
    let world = World::with().set("DATABASE_MAX_CONNECTIONS", 2).start().await;
    let (_, tokens) = world.insert_drivers(UPGRADES, false).await;
    let address = world.node().address.clone();
    let mut lock = world.pool.begin().await.unwrap();
    sqlx::query("LOCK TABLE driver_tokens IN ACCESS EXCLUSIVE MODE").execute(&mut *lock).await.unwrap();
    let upgrades: Vec<_> = tokens
        .into_iter()
        .map(|token| {
            let address = address.clone();
            tokio::spawn(async move { Session::try_connect(&address, &token).await.is_ok() })
        })
        .collect();
    world::let_time_pass("all permits are in use", Duration::from_millis(500)).await;
    let (foreign, guess) = (("origin", "https://elsewhere.example"), ("authorization", "Bearer guess"));
    for (path, headers, status) in
        [("/ws/driver", &[][..], 401), ("/ws/driver", &[guess], 401), ("/ws/driver?ticket=guess", &[foreign], 403)]
    {
        let refused = Session::open(upgrade(&address, path, headers)).await;
        assert_eq!(refused.err(), Some(status), "{path} {headers:?}");
    }
    assert!(upgrades.iter().all(|task| !task.is_finished()), "the drivers' upgrades still wait for a permit");
    lock.rollback().await.unwrap();
    join_all(upgrades).await;
    world.finish().await;
}
