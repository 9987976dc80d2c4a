//! Tests of limits on frames: the cost of a client is bounded by the limits and not by what the client sends.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio_tungstenite::tungstenite::Message;

use super::support::session::Closed;
use super::support::socket::{Socket, open};
use super::support::*;

const KIB: usize = 1024;
/// The largest frame in bytes.
const FRAME_LIMIT: usize = 64 * KIB;
/// The number of bytes that a connection buffers before its session reads them.
const READ_AHEAD: usize = 128 * KIB;
/// The metric of frames over `FRAMES_PER_SECOND`.
const LIMITED: &str = r#"driver_tracker_rate_limited_total{limit="frames"}"#;

/// The header of a text frame with a length of 1 GiB, as bytes in hexadecimal.
const CLAIMS_A_GIB: &str = include_str!("cases/frame-1gib.hex");

fn claims_a_gib() -> Vec<u8> {
    CLAIMS_A_GIB
        .split_whitespace()
        .map(|byte| u8::from_str_radix(byte, 16).expect("the file has bytes in hexadecimal"))
        .collect()
}

/// Returns a frame with a payload of zeros and a mask of zeros.
fn frame(first: u8, payload_bytes: usize) -> Vec<u8> {
    let mut bytes = vec![first, 0xFF];
    bytes.extend_from_slice(&(payload_bytes as u64).to_be_bytes());
    bytes.resize(bytes.len() + 4 + payload_bytes, 0);
    bytes
}

/// Opens a session and reads its welcome.
async fn connect(world: &World, token: &str) -> Socket {
    let mut socket = open(&world.node().address, token, None).await.expect("the upgrade succeeds");
    let welcome = socket.next().await.expect("the socket is open").expect("the frame is valid");
    assert!(welcome.to_text().is_ok_and(|text| text.contains("welcome")), "{welcome:?}");
    socket
}

/// Reads until the connection ends. Returns how it ended and the frames before that.
async fn ended(socket: &mut Socket) -> (Closed, Vec<Value>) {
    let mut frames = Vec::new();
    let reading = async {
        loop {
            match socket.next().await {
                Some(Ok(Message::Close(frame))) => {
                    break frame.map_or(Closed::Abruptly, |f| Closed::With(f.code.into()));
                }
                Some(Ok(Message::Text(text))) => frames.push(serde_json::from_str(&text).expect("the frame is JSON")),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => break Closed::Abruptly,
            }
        }
    };
    let closed = tokio::time::timeout(SOON, reading).await.expect("the connection ends in time");
    (closed, frames)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_header_of_a_frame_over_the_limit_ends_the_session_and_its_payload_is_not_buffered() {
    const SENT: usize = 32 * 1024 * KIB;
    /// The allowed growth of the process's memory: one connection, and the rounding of its allocator.
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
        assert!(grew < MAY_GROW, "{what}: the memory grows by less than the limit: {} KiB", grew / 1024);
        assert_eq!(ended(&mut socket).await.0, Closed::With(code), "{what}");
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_clients_with_frames_over_the_limit_cost_at_most_a_frame_and_a_buffer_each() {
    const CLIENTS: usize = 1000;
    const EACH: usize = 1024 * KIB;
    let world = World::with().set("DATABASE_MAX_CONNECTIONS", 16).start().await;
    let (_, tokens) = world.insert_drivers(CLIENTS, false).await;
    let mut sockets = Vec::new();
    for chunk in tokens.chunks(50) {
        sockets.extend(join_all(chunk.iter().map(|token| connect(&world, token))).await);
    }
    let before = world.node().resident_bytes();
    let zeros = vec![0; 64 * KIB];
    let sending = sockets.iter_mut().enumerate().map(|(n, socket)| {
        let zeros = &zeros;
        async move {
            let stream = socket.get_mut();
            if n % 2 == 0 {
                // The largest frame without its last byte: the most that a client can make the service buffer.
                let almost = &frame(0x81, FRAME_LIMIT)[..];
                stream.write_all(&almost[..almost.len() - 1]).await.expect("the bytes within the limit are sent");
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
    let mut sending = Box::pin(join_all(sending));
    while tokio::time::timeout(Duration::from_millis(20), sending.as_mut()).await.is_err() {
        most = most.max(world.node().resident_bytes());
    }
    drop(sending);
    most = most.max(world.node().resident_bytes());
    let each = (most - before) / CLIENTS as u64;
    println!("{CLIENTS} clients: + {} KiB each", each / 1024);
    assert!(
        each < (FRAME_LIMIT + READ_AHEAD) as u64,
        "each of {CLIENTS} clients costs at most a frame and a buffer: {} KiB",
        each / 1024
    );
    let closed = r#"driver_tracker_sessions_closed_total{code="1009"}"#;
    eventually("all clients with frames over the limit are closed", SOON, || async {
        (world.node().metric(closed).await == (CLIENTS / 2) as f64).then_some(())
    })
    .await;
    for (n, socket) in sockets.iter_mut().enumerate() {
        if n % 2 == 0 {
            // The last byte completes the frame, which is not a batch.
            socket.get_mut().write_all(&[0]).await.expect("the session is open");
        }
        assert_eq!(ended(socket).await.0, Closed::With(1009), "client {n}");
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_of_every_kind_count_towards_the_limit_and_a_flood_ends_the_session() {
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
        // The service may close the connection before everything is sent.
        let _ = socket.get_mut().write_all(&[first, frame.repeat(FLOOD)].concat()).await;
        let (closed, frames) = ended(&mut socket).await;
        assert_eq!(closed, Closed::With(1008), "{what}");
        let refused = frames.iter().filter(|frame| frame["code"] == "rate_limited").count();
        assert!(refused > 0, "{what}: an error says why: {frames:?}");
        let limited = world.node().metric(LIMITED).await;
        // Frames over the limit for ten seconds' worth end the session, regardless of what follows.
        let counted = limited - limited_before;
        assert!(
            (51.0..200.0).contains(&counted),
            "{what}: the session ends after a bounded number of frames: {counted}"
        );
        limited_before = limited;
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pongs_to_the_services_pings_do_not_count_towards_the_limit() {
    /// Two seconds' worth of frames, which the limit allows at once.
    const BURST: usize = 40;
    let world = World::with().set("FRAMES_PER_SECOND", BURST / 2).start().await;
    let (_, token) = world.new_driver().await;
    let mut socket = connect(&world, &token).await;
    // Each frame causes a response of 5 KB. The service sends a ping after every 32 KiB.
    let batch = json!({"type": "batch", "ref": "x", "fixes": vec![7; 100]}).to_string();
    let (mut responses, mut pings) = (0, 0);
    for _ in 0..BURST {
        socket.feed(Message::text(batch.clone())).await.expect("the socket is open");
    }
    socket.flush().await.expect("the socket is open");
    while responses < BURST {
        match tokio::time::timeout(SOON, socket.next())
            .await
            .expect("a frame arrives in time")
            .expect("the socket is open")
            .expect("the frame is valid")
        {
            Message::Text(text) => {
                let response: Value = serde_json::from_str(&text).expect("the frame is JSON");
                assert_eq!(response["type"], "ok", "{response}");
                responses += 1;
            }
            Message::Ping(_) => pings += 1,
            other => panic!("unexpected message: {other:?}"),
        }
    }
    assert!(pings >= 3, "at least 3 pings arrive: {pings}");
    // The client's library sends the pong with its next write. After that, the service has processed all pongs.
    socket.flush().await.expect("the socket is open");
    tokio::time::timeout(SOON, async {
        socket.send(Message::text(r#"{"type":"heartbeat","seq":1}"#)).await.expect("the socket is open");
        while let Some(Ok(message)) = socket.next().await {
            if message.to_text().is_ok_and(|text| text.contains(r#""ack""#) || text.contains("rate_limited")) {
                return;
            }
        }
        panic!("the socket closed before the ack");
    })
    .await
    .expect("the heartbeat is acknowledged in time");
    assert!(world.node().metric(LIMITED).await <= 1.0, "the pongs are not counted");
    world.finish().await;
}
