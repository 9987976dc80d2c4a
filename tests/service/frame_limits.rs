//! Frames that claim too much, and too many of them: what a client costs is bounded by its limits, not by what it sends.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio_tungstenite::tungstenite::Message;

use super::support::session::Closed;
use super::support::socket::{Socket, open};
use super::support::*;

const KIB: usize = 1024;
/// The largest frame.
const FRAME_LIMIT: usize = 64 * KIB;
/// What a connection reads ahead of its session.
const READ_AHEAD: usize = 128 * KIB;
/// The frames of a client that were over `FRAMES_PER_SECOND`.
const LIMITED: &str = r#"driver_tracker_rate_limited_total{limit="frames"}"#;

/// A text frame's header that claims 1 GiB, as bytes in hex.
const CLAIMS_A_GIB: &str = include_str!("cases/frame-1gib.hex");

fn claims_a_gib() -> Vec<u8> {
    CLAIMS_A_GIB.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).expect("a byte in hex")).collect()
}

/// A frame of zeros, masked with zeros.
fn frame(first: u8, payload_bytes: usize) -> Vec<u8> {
    let mut bytes = vec![first, 0xFF];
    bytes.extend_from_slice(&(payload_bytes as u64).to_be_bytes());
    bytes.resize(bytes.len() + 4 + payload_bytes, 0);
    bytes
}

/// A socket whose session is open.
async fn connect(world: &World, token: &str) -> Socket {
    let mut socket = open(&world.node().address, token, None).await.expect("an upgrade");
    let welcome = socket.next().await.expect("a frame").expect("a frame");
    assert!(welcome.to_text().is_ok_and(|text| text.contains("welcome")), "{welcome:?}");
    socket
}

/// Reads to the end: how the socket ended, and the frames before that.
async fn ended(socket: &mut Socket) -> (Closed, Vec<Value>) {
    let mut frames = Vec::new();
    let reading = async {
        loop {
            match socket.next().await {
                Some(Ok(Message::Close(frame))) => {
                    break frame.map_or(Closed::Abruptly, |f| Closed::With(f.code.into()));
                }
                Some(Ok(Message::Text(text))) => frames.push(serde_json::from_str(&text).expect("JSON")),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => break Closed::Abruptly,
            }
        }
    };
    let closed = tokio::time::timeout(SOON, reading).await.expect("the socket to end");
    (closed, frames)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_over_the_limit_ends_the_session_from_its_header_and_nothing_of_it_is_kept() {
    const SENT: usize = 32 * 1024 * KIB;
    /// What the process may use more than before: one connection, and what its allocator rounds up.
    const MAY_GROW: u64 = 8 * 1024 * 1024;
    let world = World::with().set("FRAMES_PER_SECOND", 0).start().await;
    let gib = |first: u8| [&[first], &claims_a_gib()[1..]].concat();
    let cases = [
        ("a text", gib(0x81), 1009),
        ("the first part of a text", gib(0x01), 1009),
        ("a binary message", gib(0x82), 1008),
        ("a binary message of no bytes", frame(0x82, 0), 1008),
        ("a continuation", [frame(0x01, 10), gib(0x80)].concat(), 1009),
        ("a ping", gib(0x89), 1009),
        ("a pong", gib(0x8A), 1009),
        ("a close", gib(0x88), 1009),
        ("a text, one byte over", frame(0x81, FRAME_LIMIT + 1), 1009),
        ("parts, one byte over", [frame(0x01, FRAME_LIMIT), frame(0x00, 1)].concat(), 1009),
        ("parts without end", [frame(0x01, 0), frame(0x00, 4 * KIB).repeat(100)].concat(), 1009),
        ("small parts without end", [frame(0x01, 0), frame(0x00, 1).repeat(100_000)].concat(), 1009),
        ("a frame without a mask", vec![0x81, 0x00], 1002),
        ("a continuation of nothing", frame(0x80, 10), 1002),
    ];
    let (_, token) = world.new_driver().await;
    for (what, bytes, code) in cases {
        let mut socket = connect(&world, &token).await;
        let before = world.node().resident_bytes();
        let mut most = before;
        let zeros = vec![0; 256 * KIB];
        if socket.get_mut().write_all(&bytes).await.is_ok() {
            for _ in 0..SENT / zeros.len() {
                if socket.get_mut().write_all(&zeros).await.is_err() {
                    break;
                }
                most = most.max(world.node().resident_bytes());
            }
        }
        let grew = most - before;
        assert!(grew < MAY_GROW, "{what}: the service kept {} KiB", grew / 1024);
        assert_eq!(ended(&mut socket).await.0, Closed::With(code), "{what}");
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_clients_that_claim_too_much_cost_a_frame_and_a_buffer_each() {
    const CLIENTS: usize = 1000;
    const EACH: usize = 1024 * KIB;
    let world = World::with().set("DATABASE_MAX_CONNECTIONS", 16).start().await;
    let (_, tokens) = world.many_drivers(CLIENTS, false).await;
    let mut sockets = Vec::new();
    for chunk in tokens.chunks(50) {
        sockets.extend(together(chunk.iter().map(|token| connect(&world, token))).await);
    }
    let before = world.node().resident_bytes();
    let zeros = vec![0; 64 * KIB];
    let sending = sockets.iter_mut().enumerate().map(|(n, socket)| {
        let zeros = &zeros;
        async move {
            let stream = socket.get_mut();
            if n % 2 == 0 {
                // As much as may be, and then nothing: what a client can make the service keep.
                let almost = &frame(0x81, FRAME_LIMIT)[..];
                stream.write_all(&almost[..almost.len() - 1]).await.expect("within the limit");
                return;
            }
            let mut sent = stream.write_all(&claims_a_gib()).await;
            for _ in 0..EACH / zeros.len() {
                if sent.is_err() {
                    break;
                }
                sent = stream.write_all(zeros).await;
            }
        }
    });
    let mut most = before;
    let mut sending = Box::pin(together(sending));
    while tokio::time::timeout(Duration::from_millis(20), sending.as_mut()).await.is_err() {
        most = most.max(world.node().resident_bytes());
    }
    drop(sending);
    most = most.max(world.node().resident_bytes());
    let each = (most - before) / CLIENTS as u64;
    println!("{CLIENTS} clients: + {} KiB each", each / 1024);
    assert!(each < (FRAME_LIMIT + READ_AHEAD) as u64, "each of {CLIENTS} clients costs {} KiB", each / 1024);
    let closed = r#"driver_tracker_sessions_closed_total{code="1009"}"#;
    eventually("all that claimed too much are closed", SOON, || async {
        (world.node().metric(closed).await == (CLIENTS / 2) as f64).then_some(())
    })
    .await;
    for (n, socket) in sockets.iter_mut().enumerate() {
        if n % 2 == 0 {
            // The last byte: the frame is whole, and is no batch.
            socket.get_mut().write_all(&[0]).await.expect("the session is there");
        }
        assert_eq!(ended(socket).await.0, Closed::With(1009), "client {n}");
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_frame_counts_for_the_limit_and_a_flood_of_any_kind_is_ended() {
    const FLOOD: usize = 100_000;
    let world = World::with().set("FRAMES_PER_SECOND", 5).start().await;
    let (_, token) = world.new_driver().await;
    let pong = vec![0x8A, 0x80, 0, 0, 0, 0];
    let cases = [
        ("pongs", vec![], pong.clone()),
        ("pings", vec![], vec![0x89, 0x80, 0, 0, 0, 0]),
        ("empty continuations", vec![0x01, 0x80, 0, 0, 0, 0], vec![0x00, 0x80, 0, 0, 0, 0]),
        ("pongs between parts", vec![0x01, 0x80, 0, 0, 0, 0], pong),
        ("empty texts", vec![], vec![0x81, 0x80, 0, 0, 0, 0]),
    ];
    let mut limited_before = 0.0;
    for (what, first, frame) in cases {
        let mut socket = connect(&world, &token).await;
        // The service may be done with it before all of it is sent.
        let _ = socket.get_mut().write_all(&[first, frame.repeat(FLOOD)].concat()).await;
        let (closed, frames) = ended(&mut socket).await;
        assert_eq!(closed, Closed::With(1008), "{what}");
        let refused = frames.iter().filter(|frame| frame["code"] == "rate_limited").count();
        assert!(refused > 0, "{what}: nothing says why: {frames:?}");
        let limited = world.node().metric(LIMITED).await;
        // Ten seconds' worth over the limit end it, whatever more was sent.
        let counted = limited - limited_before;
        assert!((51.0..200.0).contains(&counted), "{what}: {counted} frames were dealt with");
        limited_before = limited;
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_answers_pings_may_send_as_much_as_any() {
    /// Two seconds' worth, which may come at once.
    const BURST: usize = 40;
    let world = World::with().set("FRAMES_PER_SECOND", BURST / 2).start().await;
    let (_, token) = world.new_driver().await;
    let mut socket = connect(&world, &token).await;
    // Five KB of answer to each: the service pings after every 32 KiB.
    let ask = json!({"type": "batch", "ref": "x", "fixes": vec![7; 100]}).to_string();
    let (mut answers, mut pings) = (0, 0);
    for _ in 0..BURST {
        socket.feed(Message::text(ask.clone())).await.expect("a socket");
    }
    socket.flush().await.expect("a socket");
    while answers < BURST {
        match tokio::time::timeout(SOON, socket.next()).await.expect("an answer").expect("a frame").expect("a frame") {
            Message::Text(text) => {
                let answer: Value = serde_json::from_str(&text).expect("JSON");
                assert_eq!(answer["type"], "ok", "{answer}");
                answers += 1;
            }
            Message::Ping(_) => pings += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(pings >= 3, "only {pings} pings came");
    // The client's library answers a ping with its next write; then the service has dealt with all of them.
    socket.flush().await.expect("a socket");
    tokio::time::timeout(SOON, async {
        socket.send(Message::text(r#"{"type":"heartbeat","seq":1}"#)).await.expect("a socket");
        while let Some(Ok(message)) = socket.next().await {
            if message.to_text().is_ok_and(|text| text.contains(r#""ack""#) || text.contains("rate_limited")) {
                return;
            }
        }
        panic!("the socket ended");
    })
    .await
    .expect("the heartbeat is answered");
    assert!(world.node().metric(LIMITED).await <= 1.0, "the pongs were counted");
    world.finish().await;
}
