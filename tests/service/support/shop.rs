//! A small shop that receives delivery events, checks their signatures with a library that is not ours, and can be told
//! to fail.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;
use standardwebhooks::Webhook;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::schema::Schema;
use super::{SOON, eventually};

/// One post, as it came.
#[derive(Clone, Debug)]
pub struct Posted {
    pub at: Instant,
    pub headers: HeaderMap,
    pub raw: Vec<u8>,
    pub event: Value,
    /// Whether the signature holds, by an independent library.
    pub signed: bool,
    /// What the shop answered.
    pub answered: Reaction,
}

/// What the shop does with a post.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reaction {
    Status(u16),
    /// With a `Retry-After` in seconds.
    RetryAfter(u16, u64),
    /// With a `Location`.
    Redirect(String),
    /// After a while.
    After(Duration, u16),
    /// Takes the post and ends the connection.
    Drop,
    /// Takes the post and never answers.
    Hang,
}

type Plan = Box<dyn Fn(&Value) -> Reaction + Send + Sync>;

struct Inner {
    verifiers: Vec<Webhook>,
    posts: Mutex<Vec<Posted>>,
    plan: Mutex<Plan>,
}

impl Reaction {
    /// Whether the shop takes the event.
    pub fn accepts(&self) -> bool {
        matches!(self, Self::Status(200..=299) | Self::After(_, 200..=299))
    }
}

/// The shop; its listener goes with the test's runtime.
#[derive(Clone)]
pub struct Shop {
    pub url: String,
    inner: Arc<Inner>,
}

impl Shop {
    /// Opens a shop that accepts everything that is signed with one of the secrets.
    pub async fn open(secrets: &[String]) -> Shop {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}/delivery-events", listener.local_addr().expect("its address"));
        let verifiers = secrets.iter().map(|s| Webhook::new(s).expect("a secret")).collect();
        let plan: Plan = Box::new(|_| Reaction::Status(200));
        let inner = Arc::new(Inner { verifiers, posts: Mutex::default(), plan: Mutex::new(plan) });
        let shop = Shop { url, inner: inner.clone() };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, inner.clone()));
            }
        });
        shop
    }

    /// Decides on every post from now on, by the event.
    pub fn react(&self, plan: impl Fn(&Value) -> Reaction + Send + Sync + 'static) {
        *self.inner.plan.lock().expect("the plan") = Box::new(plan);
    }

    /// Answers every post with one status from now on.
    pub fn answer(&self, status: u16) {
        self.react(move |_| Reaction::Status(status));
    }

    /// Every post so far.
    pub fn posts(&self) -> Vec<Posted> {
        self.inner.posts.lock().expect("the posts").clone()
    }

    /// Every post of a delivery so far.
    pub fn posts_of(&self, delivery: &str) -> Vec<Posted> {
        self.posts().into_iter().filter(|p| p.event["deliveryId"] == delivery).collect()
    }

    /// The names of the events of a delivery that the shop accepted, in order of arrival.
    pub fn accepted(&self, delivery: &str) -> Vec<String> {
        let accepted = |p: &Posted| p.answered.accepts();
        let name = |p: Posted| p.event["event"].as_str().unwrap_or("?").to_owned();
        self.posts_of(delivery).into_iter().filter(accepted).map(name).collect()
    }

    /// Waits for an accepted event of a delivery.
    pub async fn event(&self, delivery: &str, name: &str) -> Posted {
        eventually(&format!("the shop got {name} of {delivery}"), SOON, || async {
            let fits = |p: &Posted| p.event["event"] == name && p.answered.accepts();
            self.posts_of(delivery).into_iter().find(fits)
        })
        .await
    }

    /// Every post was signed with a secret of the shop, and is an event by the schema.
    pub fn assert_all_signed(&self) {
        let schema = Schema::of("delivery-event");
        for post in self.posts() {
            let faults = schema.unknown_fields(&post.event);
            assert!(faults.is_empty(), "no event by docs/schemas/delivery-event.json: {}: {faults:?}", post.event);
            assert!(post.signed, "a post without a good signature: {}", post.event);
        }
    }
}

async fn serve(stream: TcpStream, shop: Arc<Inner>) {
    let mut stream = BufReader::new(stream);
    while let Some((headers, raw)) = read_request(&mut stream).await {
        let event: Value = serde_json::from_slice(&raw).unwrap_or(Value::Null);
        let answered = (shop.plan.lock().expect("the plan"))(&event);
        let signed = shop.verifiers.iter().any(|v| v.verify(&raw, &headers).is_ok());
        let post = Posted { at: Instant::now(), headers, raw, event, signed, answered: answered.clone() };
        shop.posts.lock().expect("the posts").push(post);
        let (status, extra) = match answered {
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

/// One request with a body of known length; `None` at the end of the connection.
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
