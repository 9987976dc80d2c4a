//! A small HTTP server that receives delivery events as a shop does, and can be set to fail.
//!
//! Invariants:
//! - Every POST is recorded, also one that the shop refuses.
//! - Signatures are verified by an independent library.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;
use standardwebhooks::Webhook;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::schema::Schema;
use super::{SOON, eventually};

/// One recorded POST.
#[derive(Clone, Debug)]
pub struct Posted {
    pub at: Instant,
    pub headers: HeaderMap,
    pub raw: Vec<u8>,
    pub event: Value,
    /// Whether the independent library accepts the signature.
    pub signed: bool,
    /// The shop's reaction.
    pub reaction: Reaction,
}

/// How the shop reacts to a POST.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reaction {
    Status(u16),
    /// Responds with this status and `Retry-After` in seconds.
    RetryAfter(u16, u64),
    /// Responds with 302 and this `Location`.
    Redirect(String),
    /// Responds with this status after a delay.
    After(Duration, u16),
    /// Reads the POST and closes the connection.
    Drop,
    /// Reads the POST and never responds.
    Hang,
}

type ReactionRule = Box<dyn Fn(&Value) -> Reaction + Send + Sync>;

struct Inner {
    verifiers: Vec<Webhook>,
    posts: Mutex<Vec<Posted>>,
    rule: Mutex<ReactionRule>,
}

impl Reaction {
    /// Returns whether the shop accepts the event.
    pub fn accepts(&self) -> bool {
        matches!(self, Self::Status(200..=299) | Self::After(_, 200..=299))
    }
}

/// The shop. Its listener ends with the test's runtime.
#[derive(Clone)]
pub struct Shop {
    pub url: String,
    inner: Arc<Inner>,
}

impl Shop {
    /// Starts a shop that accepts every POST. It verifies signatures with any of the secrets.
    pub async fn open(secrets: &[String]) -> Shop {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let url = format!("http://{}/delivery-events", listener.local_addr().expect("the listener has an address"));
        let verifiers = secrets.iter().map(|s| Webhook::new(s).expect("the secret is valid")).collect();
        let rule: ReactionRule = Box::new(|_| Reaction::Status(200));
        let inner = Arc::new(Inner { verifiers, posts: Mutex::default(), rule: Mutex::new(rule) });
        let shop = Shop { url, inner: inner.clone() };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, inner.clone()));
            }
        });
        shop
    }

    /// Sets the reaction to every POST from now on, by the event.
    pub fn set_reaction(&self, rule: impl Fn(&Value) -> Reaction + Send + Sync + 'static) {
        *self.inner.rule.lock().expect("the lock of the rule is not poisoned") = Box::new(rule);
    }

    /// Responds to every POST with one status from now on.
    pub fn respond_with(&self, status: u16) {
        self.set_reaction(move |_| Reaction::Status(status));
    }

    /// Returns every POST so far.
    pub fn posts(&self) -> Vec<Posted> {
        self.inner.posts.lock().expect("the lock of the posts is not poisoned").clone()
    }

    /// Returns every POST of a delivery so far.
    pub fn posts_of(&self, delivery: &str) -> Vec<Posted> {
        self.posts().into_iter().filter(|p| p.event["deliveryId"] == delivery).collect()
    }

    /// Returns the names of a delivery's events that the shop accepted, in order of arrival.
    pub fn accepted(&self, delivery: &str) -> Vec<String> {
        let accepted = |p: &Posted| p.reaction.accepts();
        let name = |p: Posted| p.event["event"].as_str().unwrap_or("?").to_owned();
        self.posts_of(delivery).into_iter().filter(accepted).map(name).collect()
    }

    /// Waits for an accepted event of a delivery, and returns its POST.
    pub async fn wait_for_event(&self, delivery: &str, name: &str) -> Posted {
        eventually(&format!("the shop accepts {name} of {delivery}"), SOON, || async {
            let fits = |p: &Posted| p.event["event"] == name && p.reaction.accepts();
            self.posts_of(delivery).into_iter().find(fits)
        })
        .await
    }

    /// Asserts that every POST has a valid signature and matches the schema of events.
    pub fn assert_all_signed(&self) {
        let schema = Schema::of("delivery-event");
        for post in self.posts() {
            let errors = schema.strict_errors(&post.event);
            assert!(
                errors.is_empty(),
                "an event does not match docs/schemas/delivery-event.json: {}: {errors:?}",
                post.event
            );
            assert!(post.signed, "a post has no valid signature: {}", post.event);
        }
    }
}

async fn serve(stream: TcpStream, shop: Arc<Inner>) {
    let mut stream = BufReader::new(stream);
    while let Some((headers, raw)) = read_request(&mut stream).await {
        let event: Value = serde_json::from_slice(&raw).unwrap_or(Value::Null);
        let reaction = (shop.rule.lock().expect("the lock of the rule is not poisoned"))(&event);
        let signed = shop.verifiers.iter().any(|v| v.verify(&raw, &headers).is_ok());
        let post = Posted { at: Instant::now(), headers, raw, event, signed, reaction: reaction.clone() };
        shop.posts.lock().expect("the lock of the posts is not poisoned").push(post);
        let (status, extra) = match reaction {
            Reaction::Status(status) => (status, String::new()),
            Reaction::RetryAfter(status, seconds) => (status, format!("retry-after: {seconds}\r\n")),
            Reaction::Redirect(to) => (302, format!("location: {to}\r\n")),
            Reaction::After(wait, status) => {
                tokio::time::sleep(wait).await;
                (status, String::new())
            }
            Reaction::Drop => return,
            Reaction::Hang => {
                tokio::time::sleep(Duration::from_secs(600)).await;
                return;
            }
        };
        let head = format!("HTTP/1.1 {status} So\r\ncontent-length: 0\r\n{extra}\r\n");
        if stream.get_mut().write_all(head.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// Reads one request with a body of known length. Returns `None` at the end of the connection.
async fn read_request(stream: &mut BufReader<TcpStream>) -> Option<(HeaderMap, Vec<u8>)> {
    let mut line = String::new();
    stream.read_line(&mut line).await.ok().filter(|n| *n > 0)?;
    let mut headers = HeaderMap::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.ok().filter(|n| *n > 0)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        headers.append(name, HeaderValue::from_str(value.trim()).ok()?);
    }
    let length: usize = headers.get("content-length")?.to_str().ok()?.parse().ok()?;
    let mut raw = vec![0; length];
    stream.read_exact(&mut raw).await.ok()?;
    Some((headers, raw))
}
