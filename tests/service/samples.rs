//! Runs the samples of `docs/other-shops.md` unchanged against the service.
//!
//! A sample is skipped when a program that it needs is not installed. With `CI` set, a missing program fails the
//! test.

use std::path::PathBuf;
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use super::support::*;

fn sample(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/examples").join(name)
}

async fn has(program: &str, argument: &str) -> bool {
    let found = Command::new(program).arg(argument).stdout(Stdio::null()).stderr(Stdio::null()).status().await;
    let found = found.is_ok_and(|status| status.success());
    if !found {
        assert!(std::env::var_os("CI").is_none(), "{program} is installed when CI is set");
        println!("skipped: {program} is not installed");
    }
    found
}

async fn next_line(lines: &mut Lines<BufReader<ChildStdout>>) -> String {
    let line = tokio::time::timeout(SOON, lines.next_line()).await.expect("a line arrives in time");
    line.expect("the output is readable").expect("there is another line")
}

/// Starts the receiver of the page. Returns the process, its output and its port.
async fn receiver(secret: &str) -> (Child, Lines<BufReader<ChildStdout>>, String) {
    let mut child = Command::new("node")
        .arg(sample("receive-events.mjs"))
        .envs([("EVENTS_SECRET", secret), ("PORT", "0")])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("node starts");
    let mut lines = BufReader::new(child.stdout.take().expect("standard output is piped")).lines();
    let port = next_line(&mut lines).await.trim_start_matches("listening on ").to_owned();
    (child, lines, port)
}

/// Posts a body by the sample. Returns its output and whether it succeeded.
async fn post(world: &World, shop: &OtherShop, secret: &str, body: &Value) -> (String, bool) {
    let file = std::env::temp_dir().join(format!("order-{}.json", uuid::Uuid::now_v7()));
    std::fs::write(&file, body.to_string()).expect("the file is written");
    let url = format!("http://{}", world.node().address);
    let done = Command::new("node")
        .arg(sample("post-order.mjs"))
        .arg(&file)
        .envs([("TRACKER_URL", url.as_str()), ("SHOP", shop.name.as_str()), ("ORDERS_SECRET", secret)])
        .output()
        .await
        .expect("node runs");
    std::fs::remove_file(&file).expect("the file is removed");
    (String::from_utf8(done.stdout).expect("the output is UTF-8"), done.status.success())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_node_samples_post_orders_and_verify_events() {
    if !has("node", "--version").await {
        return;
    }
    let world = World::with().set("ASSIGNMENT_WAIT_MS", 0).start().await;
    let shop = OtherShop::make(&world, "bakery", json!({})).await;
    let (_receiver, mut lines, port) = receiver(&shop.events_secret).await;
    let address = format!("http://127.0.0.1:{port}/");
    world.admin().patch("/api/v1/shops/bakery", &json!({"eventsUrl": address})).await.expect(200);

    let order = Order::new("sample").with("metadata", json!({"note": "crème brûlée"}));
    let (printed, ended_well) = post(&world, &shop, &shop.orders_secret, &order.0).await;
    assert!(ended_well && printed.starts_with("202 "), "{printed}");
    let (printed, ended_well) = post(&world, &shop, &shop.events_secret, &order.0).await;
    assert!(!ended_well && printed.starts_with("401 "), "an order with another secret is refused: {printed}");
    let (printed, _) =
        post(&world, &shop, &shop.orders_secret, &json!({"sellerOrderId": "sample", "channelId": "2"})).await;
    assert!(printed.starts_with("200 "), "{printed}");
    let notification: Value = serde_json::from_str(&next_line(&mut lines).await).unwrap();
    assert_eq!(notification, json!({"order": "sample", "event": "DELIVERY_CANCELLED_V1", "status": "CANCELLED"}));

    // A post without a signature, or with one of another body or of an old time, is refused and not applied.
    let client = http::client();
    let now = chrono::Utc::now().timestamp();
    let body = br#"{"eventId":"x","deliveryId":"y","sequence":1}"#;
    for (at, signed_body) in [(now, &b"another"[..]), (now - 600, body)] {
        let headers = orders::sign(&shop.events_secret, "x", at, signed_body);
        let request =
            headers.into_iter().fold(client.post(&address), |request, (name, value)| request.header(name, value));
        assert_eq!(http::send(request.body(body.to_vec())).await.status, 401);
    }
    assert_eq!(http::send(client.post(&address).body(body.to_vec())).await.status, 401);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_commands_for_curl_post_an_order() {
    if !has("curl", "--version").await || !has("openssl", "version").await {
        return;
    }
    const PAGE: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/other-shops.md"));
    let block = |kind: &str, holds: &str| {
        let fence = format!("```{kind}\n");
        let mut blocks = PAGE.split(&fence).skip(1).filter_map(|rest| rest.split("```").next());
        blocks.find(|text| text.contains(holds)).expect("the page has the block")
    };
    let world = World::with().set("ASSIGNMENT_WAIT_MS", 0).start().await;
    let shop = OtherShop::make(&world, "bakery", json!({})).await;
    let folder = std::env::temp_dir().join(format!("page-{}", uuid::Uuid::now_v7()));
    std::fs::create_dir(&folder).expect("the directory is created");
    std::fs::write(folder.join("order.json"), block("json", "sellerOrderId")).expect("the file is written");
    let done = Command::new("sh")
        .args(["-euc", block("sh", "openssl dgst")])
        .current_dir(&folder)
        .env("URL", format!("http://{}", world.node().address))
        .env("ORDERS_SECRET", &shop.orders_secret)
        .output()
        .await
        .expect("the shell runs");
    std::fs::remove_dir_all(&folder).expect("the directory is removed");
    let (stdout_text, stderr_text) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    let response: Value = serde_json::from_str(&stdout_text).unwrap_or_else(|_| panic!("{stdout_text}{stderr_text}"));
    assert_eq!((&response["shop"], &response["status"]), (&json!("bakery"), &json!("PENDING")), "{response}");
    world.finish().await;
}
