//! Tests of rules for every path: HEAD is GET without the body, and a trailing slash changes nothing.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::support::plan::WEBHOOK_SECRET;
use super::support::raw_http::{self, RawReply};
use super::support::session::{SUBPROTOCOL, upgrade};
use super::support::*;

/// Who may request a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum By {
    Anyone,
    Operator,
    Driver,
    /// A client of the metrics listener.
    Scraper,
}

/// Every path that accepts GET, as the sources register it, with its caller and a request path.
const GETS: &[(&str, By, &str)] = &[
    ("/health", By::Anyone, "/health"),
    ("/health/live", By::Anyone, "/health/live"),
    ("/health/ready", By::Anyone, "/health/ready"),
    ("/metrics", By::Scraper, "/metrics"),
    ("/ws/driver", By::Anyone, "/ws/driver"),
    ("/state", By::Driver, "/api/v1/driver/state"),
    ("/deliveries", By::Operator, "/api/v1/deliveries?limit=5&status=ASSIGNED"),
    ("/deliveries/{id}", By::Operator, "/api/v1/deliveries/{delivery}"),
    ("/deliveries/{id}/events", By::Operator, "/api/v1/deliveries/{delivery}/events"),
    ("/deliveries/{id}/track", By::Operator, "/api/v1/deliveries/{delivery}/track"),
    ("/drivers", By::Operator, "/api/v1/drivers"),
    ("/drivers/nearby", By::Operator, "/api/v1/drivers/nearby?lat=12.9&lon=77.6"),
    ("/drivers/{id}", By::Operator, "/api/v1/drivers/{driver}"),
    ("/drivers/{id}/tokens", By::Operator, "/api/v1/drivers/{driver}/tokens"),
    ("/outbound-events", By::Operator, "/api/v1/outbound-events"),
    ("/outbound-events/{id}", By::Operator, "/api/v1/outbound-events/{event}"),
    ("/shops", By::Operator, "/api/v1/shops"),
    ("/shops/{shop}", By::Operator, "/api/v1/shops/vendure"),
];

/// Returns the paths that accept GET, as `src/http` registers them by `resource("path", "methods")`.
fn registered() -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http")];
    while let Some(path) = folders.pop() {
        if path.is_dir() {
            folders.extend(
                fs::read_dir(path)
                    .expect("the directory is readable")
                    .map(|entry| entry.expect("the entry is readable").path()),
            );
            continue;
        }
        let source = fs::read_to_string(path).expect("the source file is readable");
        for after in source.split("resource(").skip(1) {
            let mut texts = after.trim_start().split('"');
            if let (Some(""), Some(path), Some(_), Some(methods)) =
                (texts.next(), texts.next(), texts.next(), texts.next())
                && methods.split(", ").any(|method| method == "GET")
            {
                found.push(path.to_owned());
            }
        }
    }
    found.sort();
    found
}

#[test]
fn the_list_of_paths_equals_that_of_the_sources() {
    let mut listed: Vec<_> = GETS.iter().map(|(path, ..)| (*path).to_owned()).collect();
    listed.sort();
    assert_eq!(listed, registered(), "GETS has every path that accepts GET");
}

/// A world in which each of these paths has content.
struct PopulatedWorld {
    world: World,
    driver: Driver,
    delivery: String,
    event: String,
}

impl PopulatedWorld {
    async fn start() -> PopulatedWorld {
        let world = World::start().await;
        let mut driver = world.on_duty(RESTAURANT).await;
        let delivery =
            world.post_order(&Order::new("shown")).await.expect(201)["deliveryId"].as_str().unwrap().to_owned();
        driver.wait_for_assignment(&delivery).await;
        driver.stop_heartbeats();
        let event = eventually("an event exists", SOON, || async {
            let events = world.admin().get("/api/v1/outbound-events?state=delivered").await;
            events.body["items"][0]["id"].as_str().map(str::to_owned)
        })
        .await;
        PopulatedWorld { world, driver, delivery, event }
    }

    fn path(&self, template: &str) -> String {
        let path = template.replace("{delivery}", &self.delivery).replace("{driver}", &self.driver.id);
        path.replace("{event}", &self.event)
    }

    async fn send_request(&self, method: &str, by: By, path: &str) -> RawReply {
        let node = self.world.node();
        let (address, key) = match by {
            By::Scraper => (&node.metrics_address, None),
            By::Anyone => (&node.address, None),
            By::Operator => (&node.address, Some(&self.world.admin_key)),
            By::Driver => (&node.address, Some(&self.driver.token)),
        };
        let key = key.map_or(String::new(), |key| format!("Authorization: Bearer {key}\r\n"));
        let head =
            format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nX-Request-Id: x\r\nConnection: close\r\n{key}\r\n");
        raw_http::send(address, &head).await
    }
}

/// Returns the headers of a response without those that differ between two requests.
fn stable_headers(reply: &RawReply) -> Vec<(String, String)> {
    let changes = ["date", "content-length"];
    reply.headers.iter().filter(|(name, _)| !changes.contains(&name.as_str())).cloned().collect()
}

fn length(reply: &RawReply) -> usize {
    reply.header("content-length").expect("the response has a length").parse().expect("the length is a number")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn head_responds_as_get_does_without_the_body() {
    let shown = PopulatedWorld::start().await;
    let unknown = "/api/v1/deliveries/0190a0b0-0000-7000-8000-000000000000";
    let more = [
        (By::Operator, unknown),
        (By::Operator, "/api/v1/deliveries?limit=none"),
        (By::Anyone, "/api/v1/deliveries"),
        (By::Anyone, "/nowhere"),
        (By::Scraper, "/nowhere"),
    ];
    for (by, template) in GETS.iter().map(|(_, by, path)| (*by, *path)).chain(more) {
        let path = shown.path(template);
        let (get, head) = (shown.send_request("GET", by, &path).await, shown.send_request("HEAD", by, &path).await);
        assert_eq!((head.status, stable_headers(&head)), (get.status, stable_headers(&get)), "{path}");
        assert_eq!(length(&get), get.body.len(), "{path}");
        assert!(length(&head) > 0 && head.body.is_empty(), "{path}: {head:?}");
        let is_good = get.status == 200 || template == "/ws/driver" || more.contains(&(by, template));
        assert!(is_good, "{path} has content: {get:?}");
    }
    let live = "/health/live";
    let (get, head) =
        (shown.send_request("GET", By::Anyone, live).await, shown.send_request("HEAD", By::Anyone, live).await);
    assert_eq!(length(&head), length(&get));
    shown.world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trailing_slash_is_the_same_path() {
    let shown = PopulatedWorld::start().await;
    for (_, by, template) in GETS {
        let path = shown.path(template);
        let slashed = match path.split_once('?') {
            Some((path, query)) => format!("{path}/?{query}"),
            None => format!("{path}/"),
        };
        let (with, without) =
            (shown.send_request("GET", *by, &slashed).await, shown.send_request("GET", *by, &path).await);
        assert_eq!((with.status, stable_headers(&with)), (without.status, stable_headers(&without)), "{slashed}");
    }
    let (world, driver) = (&shown.world, &shown.driver);
    let post = async |path: &str, body: Value| {
        http::send(orders::signed(world.node(), path, body.to_string().as_bytes(), WEBHOOK_SECRET)).await
    };
    for (n, path) in ["/webhooks/vendure/seller-order-ready/", "/events/seller-order-ready/"].iter().enumerate() {
        post(path, Order::new(&format!("slashed-{n}")).0).await.expect(202);
        let cancelled = path.replace("ready", "cancelled");
        let reply = post(&cancelled, json!({"sellerOrderId": format!("slashed-{n}"), "channelId": "2"})).await;
        assert_eq!(reply.expect(200)["status"], "CANCELLED");
    }
    post("/webhooks/elsewhere/seller-order-ready/", Order::new("slashed").0).await.problem(401);

    let make = |path: &str| {
        let request = world.admin().request("POST", path).header("idempotency-key", "one driver");
        http::send(request.json(&json!({"name": "Asha", "phone": "+91 80 5550 1000"})))
    };
    let made = make("/api/v1/drivers/").await.expect(201);
    assert_eq!(
        make("/api/v1/drivers").await.expect(201)["id"],
        made["id"],
        "both spellings share the route and its idempotency keys"
    );
    let path = format!("/api/v1/drivers/{}/", made["id"].as_str().unwrap());
    assert_eq!(world.admin().patch(&path, &json!({"name": "Usha"})).await.expect(200)["name"], "Usha");
    world.admin().delete(&path).await.expect(204);

    let app = world.node().api().keyed(Some(&driver.token));
    app.post("/api/v1/driver/messages/", &json!({"frames": []})).await.expect(200);
    let authorization = format!("Bearer {}", driver.token);
    let headers = [("authorization", authorization.as_str()), ("sec-websocket-protocol", SUBPROTOCOL)];
    let session = Session::open(upgrade(&world.node().address, "/ws/driver/", &headers)).await;
    let session = session.unwrap_or_else(|status| panic!("the upgrade was refused with {status}"));
    assert_eq!(session.take_first().await["type"], "welcome");
    world.node().api().get("/nowhere/").await.problem(404);
    shown.world.finish().await;
}
