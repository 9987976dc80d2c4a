//! Drivers on WebSockets, any number of them in one thread.
//!
//! Each frame is built once and then patched, so that the generator costs less than the service that it measures. The latency
//! of a heartbeat counts from the moment at which it was due.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use chrono::{SecondsFormat, Utc};
use futures_util::{StreamExt, stream};
use hdrhistogram::Histogram;
use rand::{SeedableRng, rngs::StdRng};
use serde_json::Value;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::city;

/// `seq` always has ten digits, so that it can be patched in place.
const FIRST_SEQ: u64 = 1_000_000_000;
const SEQ: &str = "1000000000";
const TIME: &str = "2026-01-01T00:00:00.000Z";
/// The maximum number of sockets that open concurrently.
const OPENING: usize = 32;

/// What all sockets received.
#[derive(Default)]
struct Received {
    latency_us: Option<Histogram<u64>>,
    acked: u64,
    closed: u64,
    errors: u64,
    /// When the assignment of each seller order arrived.
    assigned: HashMap<String, Instant>,
}

struct Driver {
    stream: TcpStream,
    frame: RefCell<Frame>,
    /// Unacknowledged heartbeats: `seq` and due time, oldest first.
    waiting: RefCell<VecDeque<(u64, Instant)>>,
    received: Rc<RefCell<Received>>,
}

/// The bytes of a heartbeat frame and the offsets of its changing parts.
struct Frame {
    bytes: Vec<u8>,
    seq: u64,
    seq_at: usize,
    time_at: usize,
    lat_at: usize,
}

/// The result of a run of heartbeats.
pub struct Report {
    pub sent: u64,
    pub acked: u64,
    pub p50: Duration,
    pub p99: Duration,
    /// The sum of frames that a full socket did not accept, error frames, and closed sockets.
    pub failed: u64,
}

/// Connected drivers.
pub struct Fleet {
    drivers: Vec<Rc<Driver>>,
    received: Rc<RefCell<Received>>,
}

impl Fleet {
    /// Opens a socket for each token, spread over the addresses. Must run inside a `LocalSet`.
    pub async fn connect(addresses: &[SocketAddr], tokens: &[String]) -> Self {
        let received: Rc<RefCell<Received>> = Rc::default();
        let mut random = StdRng::seed_from_u64(1);
        let places: Vec<(f64, f64)> = tokens.iter().map(|_| city(&mut random)).collect();
        let opening = tokens.iter().zip(places).enumerate().map(|(number, (token, place))| {
            let (address, received) = (addresses[number % addresses.len()], received.clone());
            async move {
                let (stream, rest) = upgrade(address, token).await;
                let driver = Rc::new(Driver {
                    stream,
                    frame: RefCell::new(Frame::new(place)),
                    waiting: RefCell::default(),
                    received,
                });
                tokio::task::spawn_local(read(driver.clone(), rest));
                driver
            }
        });
        let drivers = stream::iter(opening).buffer_unordered(OPENING).collect().await;
        Self { drivers, received }
    }

    /// Sends `rate` heartbeats per second, from one driver after the other, and waits for the last acknowledgements.
    pub async fn run(&self, rate: f64, duration: Duration) -> Report {
        let assigned = self.take_assigned();
        let latency_us = Some(Histogram::new(3).expect("a histogram"));
        *self.received.borrow_mut() = Received { latency_us, assigned, ..Received::default() };
        for driver in &self.drivers {
            driver.waiting.borrow_mut().clear();
        }
        let began = Instant::now();
        let (mut sent, mut unsent) = (0_u64, 0_u64);
        let mut next_driver = self.drivers.iter().cycle();
        while began.elapsed() < duration {
            let due = (began.elapsed().as_secs_f64() * rate) as u64;
            let time = Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true);
            while sent + unsent < due {
                let due_at = began + Duration::from_secs_f64((sent + unsent) as f64 / rate);
                match next_driver.next().expect("a driver").send(&time, due_at) {
                    true => sent += 1,
                    false => unsent += 1,
                }
                if (sent + unsent).is_multiple_of(256) {
                    tokio::task::yield_now().await;
                }
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let deadline = Instant::now() + Duration::from_secs(3);
        while self.received.borrow().acked < sent && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let received = self.received.borrow();
        let latency = received.latency_us.as_ref().expect("a histogram");
        let at = |quantile| Duration::from_micros(latency.value_at_quantile(quantile));
        Report {
            sent,
            acked: received.acked,
            p50: at(0.5),
            p99: at(0.99),
            failed: unsent + received.errors + received.closed,
        }
    }

    /// Takes the arrival times of the assignments, by seller order.
    pub fn take_assigned(&self) -> HashMap<String, Instant> {
        std::mem::take(&mut self.received.borrow_mut().assigned)
    }

    /// Returns the number of assignments since the last [`Self::take_assigned`].
    pub fn assigned(&self) -> usize {
        self.received.borrow().assigned.len()
    }
}

impl Frame {
    fn new((lat, lon): (f64, f64)) -> Self {
        let text = format!(
            r#"{{"type":"heartbeat","seq":{SEQ},"fixTime":"{TIME}","lat":{lat:.6},"lon":{lon:.6},"accuracyM":8,"speedMps":4}}"#
        );
        let mut bytes = client_frame(1, text.as_bytes());
        let at = |part: &str| bytes.windows(part.len()).position(|window| window == part.as_bytes()).expect("the part");
        let (seq_at, time_at) = (at(SEQ), at(TIME));
        let lat_at = at(&format!("{lat:.6}")) + format!("{lat:.6}").len() - 2;
        bytes.shrink_to_fit();
        Self { bytes, seq: FIRST_SEQ, seq_at, time_at, lat_at }
    }

    /// Patches the frame into the next heartbeat, some metres or less from the last one.
    fn next(&mut self, time: &str) {
        self.seq += 1;
        self.bytes[self.seq_at..self.seq_at + SEQ.len()].copy_from_slice(self.seq.to_string().as_bytes());
        self.bytes[self.time_at..self.time_at + TIME.len()].copy_from_slice(time.as_bytes());
        let moved = format!("{:02}", self.seq % 100);
        self.bytes[self.lat_at..self.lat_at + 2].copy_from_slice(moved.as_bytes());
    }
}

impl Driver {
    /// Sends the next heartbeat. Returns whether the socket accepted it.
    fn send(&self, time: &str, due: Instant) -> bool {
        let mut frame = self.frame.borrow_mut();
        frame.next(time);
        match self.stream.try_write(&frame.bytes) {
            Ok(written) if written == frame.bytes.len() => {
                self.waiting.borrow_mut().push_back((frame.seq, due));
                true
            }
            _ => false,
        }
    }

    fn on_text(&self, text: &[u8]) {
        let mut received = self.received.borrow_mut();
        if let Some(seq) = acknowledged(text) {
            let mut waiting = self.waiting.borrow_mut();
            while let Some((_, due)) = waiting.pop_front_if(|(waiting, _)| *waiting <= seq) {
                received.acked += 1;
                if let Some(latency) = &mut received.latency_us {
                    let _ = latency.record(due.elapsed().as_micros() as u64);
                }
            }
            return;
        }
        let Ok(frame) = serde_json::from_slice::<Value>(text) else { return };
        match frame["type"].as_str() {
            Some("assignment") => {
                let order = frame["delivery"]["sellerOrderId"].as_str().unwrap_or_default().to_owned();
                received.assigned.entry(order).or_insert_with(Instant::now);
                let ack = format!(r#"{{"type":"ack","messageId":{}}}"#, frame["messageId"]);
                let _ = self.stream.try_write(&client_frame(1, ack.as_bytes()));
            }
            Some("error") => received.errors += 1,
            _ => {}
        }
    }
}

/// Returns the `seq` of an acknowledgement. Does not parse the JSON, because acknowledgements are half of all frames.
fn acknowledged(text: &[u8]) -> Option<u64> {
    if text.len() > 48 || !text.windows(5).any(|window| window == b"\"ack\"") {
        return None;
    }
    let digits = text.iter().skip_while(|byte| !byte.is_ascii_digit()).take_while(|byte| byte.is_ascii_digit());
    Some(digits.fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
}

/// Builds a client frame. Its mask is zero, which leaves the payload unchanged.
fn client_frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x80 | opcode];
    match payload.len() {
        short @ 0..126 => bytes.push(0x80 | short as u8),
        long => {
            bytes.push(0x80 | 126);
            bytes.extend((long as u16).to_be_bytes());
        }
    }
    bytes.extend([0; 4]);
    bytes.extend(payload);
    bytes
}

async fn upgrade(address: SocketAddr, token: &str) -> (TcpStream, Vec<u8>) {
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    stream.set_nodelay(true).expect("a socket");
    let request = format!(
        "GET /ws/driver HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: driver-tracker.v1\r\nAuthorization: Bearer {token}\r\n\r\n"
    );
    tokio::io::AsyncWriteExt::write_all(&mut stream, request.as_bytes()).await.expect("the request to be sent");
    let mut bytes = Vec::new();
    let (head, body) = loop {
        let mut piece = [0; 2048];
        let read = stream.read(&mut piece).await.expect("an answer");
        assert!(read > 0, "the socket was refused");
        bytes.extend(&piece[..read]);
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break (end, end + 4);
        }
    };
    let status = String::from_utf8_lossy(&bytes[..head]).into_owned();
    assert!(status.starts_with("HTTP/1.1 101"), "the upgrade was refused: {status}");
    // A driver counts as connected only after the welcome arrived.
    while bytes.len() <= body {
        let mut piece = [0; 2048];
        let read = stream.read(&mut piece).await.expect("the welcome");
        assert!(read > 0, "the socket was closed");
        bytes.extend(&piece[..read]);
    }
    (stream, bytes.split_off(body))
}

async fn read(driver: Rc<Driver>, mut bytes: Vec<u8>) {
    let mut piece = [0; 4096];
    loop {
        let mut at = 0;
        while let Some((opcode, start, end)) = server_frame(&bytes[at..]) {
            let payload = &bytes[at + start..at + end];
            match opcode {
                1 => driver.on_text(payload),
                9 => drop(driver.stream.try_write(&client_frame(10, payload))),
                8 => {
                    driver.received.borrow_mut().closed += 1;
                    return;
                }
                _ => {}
            }
            at += end;
        }
        bytes.drain(..at);
        if bytes.is_empty() {
            bytes = Vec::new();
        }
        if driver.stream.readable().await.is_err() {
            return;
        }
        match driver.stream.try_read(&mut piece) {
            Ok(0) => {
                driver.received.borrow_mut().closed += 1;
                return;
            }
            Ok(read) => bytes.extend(&piece[..read]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => {
                driver.received.borrow_mut().closed += 1;
                return;
            }
        }
    }
}

/// Returns the opcode of the first frame in `bytes` and the range of its payload, or `None` if the frame is incomplete.
fn server_frame(bytes: &[u8]) -> Option<(u8, usize, usize)> {
    let (first, second) = (*bytes.first()?, *bytes.get(1)?);
    let (start, length) = match second & 0x7f {
        126 => (4, usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?]))),
        127 => (10, u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?) as usize),
        short => (2, usize::from(short)),
    };
    (bytes.len() >= start + length).then_some((first & 0x0f, start, start + length))
}
