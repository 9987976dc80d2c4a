//! Runs the first steps of the README as they are printed, against what `make run` starts.
//!
//! Invariant: the test takes commands and frames from the README and changes only ids, times and addresses.

use std::time::{Duration, Instant};

use chrono::{SecondsFormat, Utc};
use serde_json::{Value, json};
use tokio::process::Command;

use super::support::dev_run::{Dev, DevFolder};
use super::support::*;

const README: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md"));
const MAKEFILE: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/Makefile"));
/// The separator between the outputs of two blocks that one shell runs.
const NEXT: &str = "-- next block --";
/// The limit for a delivery. In the README it takes one or two minutes; the rest is slack for a busy machine.
const DELIVERED_WITHIN: Duration = Duration::from_secs(600);

/// Returns the text of a section of the README without its heading.
fn section(name: &str) -> &'static str {
    let heading = format!("\n## {name}\n");
    let (_, rest) = README.split_once(&heading).unwrap_or_else(|| panic!("the README has no section {name}"));
    rest.split("\n## ").next().expect("the section has text")
}

/// Returns the code blocks of a kind in a section, in order.
fn blocks(name: &str, kind: &str) -> Vec<&'static str> {
    let fence = format!("```{kind}\n");
    let mut found = Vec::new();
    let mut rest = section(name);
    while let Some((_, after)) = rest.split_once(&fence) {
        let (block, after) = after.split_once("```").expect("the block has an end");
        found.push(block);
        rest = after;
    }
    found
}

/// Parses the output of a block that calls `post`: the response and its status.
fn posted(printed: &str) -> (Value, u16) {
    let (body, status) =
        printed.trim().rsplit_once(' ').unwrap_or_else(|| panic!("the output has no status: {printed}"));
    let body = serde_json::from_str(body).unwrap_or_else(|_| panic!("the output is not JSON: {printed}"));
    (body, status.parse().expect("the status is a number"))
}

/// Posts an order by the commands of the README, with an id of the test.
async fn post(folder: &DevFolder, id: &str) -> (Value, u16) {
    let block = blocks("First steps", "sh")[1];
    let script = block.replace("ID=first-$(date +%s)", &format!("ID={id}"));
    assert_ne!(script, block, "the README sets ID as the test expects");
    let done = folder.sh(&script, SOON * 2).await;
    posted(&String::from_utf8_lossy(&done.stdout))
}

async fn has_curl() -> bool {
    let found = Command::new("curl").arg("--version").output().await.is_ok_and(|done| done.status.success());
    assert!(found || std::env::var_os("CI").is_none(), "curl is installed when CI is set");
    found
}

#[test]
fn the_first_steps_fit_one_screen() {
    let steps = section("First steps");
    assert!(steps.lines().count() <= 40, "the section has at most 40 lines: {}", steps.lines().count());
    for line in steps.lines() {
        assert!(line.chars().count() <= 100, "{line}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_steps_of_the_readme_succeed_two_minutes_after_the_start() {
    if !has_curl().await {
        return;
    }
    let steps = blocks("First steps", "sh");
    assert_eq!(steps.len(), 4, "{steps:?}");
    assert_eq!(steps[0], "make run\n");
    let (_, recipe) = MAKEFILE.split_once("\nrun: ").expect("the Makefile has the target run");
    assert!(
        recipe.split("\n\n").next().unwrap().contains("exec scripts/run.sh"),
        "make run runs the script that the test starts"
    );

    let folder = DevFolder::make();
    let started = Instant::now();
    let dev = folder.start(None).await;
    let shown = dev.lines();
    let end = shown.iter().position(|line| line.starts_with("Ctrl-C")).unwrap();
    assert!(end < 40, "the start fits one screen: {shown:#?}");
    let root = folder.root.to_str().unwrap();
    for line in &shown[..end] {
        assert!(line.replace(root, "").chars().count() <= 100, "{line}");
    }
    assert!(shown.iter().any(|line| line.contains("13 of 50 drivers are kept free for your orders")), "{shown:#?}");

    // Two minutes of simulated orders. They use drivers, but never the reserved ones.
    let mut most_busy = 0;
    while started.elapsed() < Duration::from_secs(120) {
        let available = dev.drivers("AVAILABLE").await;
        assert!(available >= 13, "at least 13 drivers are AVAILABLE: {available}: {:#?}", dev.lines());
        most_busy = most_busy.max(dev.drivers("BUSY").await);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert!(most_busy >= 5, "simulated orders use drivers: {most_busy}");

    let script = steps[1..].join(&format!("\necho '{NEXT}'\n"));
    let done = folder.sh(&script, DELIVERED_WITHIN).await;
    let printed = String::from_utf8_lossy(&done.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{printed}{complaint}");
    let parts: Vec<&str> = printed.split(NEXT).collect();
    let (first, status) = posted(parts[0]);
    assert_eq!((status, &first["status"], &first["duplicate"]), (201, &json!("ASSIGNED"), &json!(false)), "{first}");
    let fleet = dev.kept()["fleet"].as_array().unwrap().clone();
    assert!(fleet.iter().any(|driver| driver["id"] == first["driverId"]), "{first}");
    let (repeat, status) = posted(parts[1]);
    assert_eq!((status, &repeat["duplicate"]), (200, &json!(true)), "{repeat}");
    assert_eq!(repeat["deliveryId"], first["deliveryId"]);
    let (last, _) = posted(parts[2]);
    assert_eq!((&last["status"], &last["deliveryId"]), (&json!("DELIVERED"), &first["deliveryId"]));

    // The remaining commands of the page.
    let id =
        dev.admin().get(&format!("/api/v1/deliveries/{}", first["deliveryId"].as_str().unwrap())).await.expect(200);
    let around =
        format!(". .dev/env\nID={}\n{}", id["sellerOrderId"].as_str().unwrap(), blocks("A look around", "sh")[0]);
    let around = around.replace("\ncurl", &format!("\necho '{NEXT}'\ncurl"));
    let looked = String::from_utf8(folder.sh(&around, SOON * 2).await.stdout).unwrap();
    let looked: Vec<Value> = looked.split(NEXT).skip(1).map(|part| serde_json::from_str(part).expect("JSON")).collect();
    assert_eq!((looked.len(), &looked[0]["items"][0]["id"]), (3, &first["deliveryId"]), "{looked:?}");
    assert_eq!(
        (looked[1]["items"].as_array().map(Vec::len), &looked[2]["status"]),
        (Some(3), &json!("ok")),
        "{looked:?}"
    );

    let said = dev.stop().await;
    assert!(said.iter().any(|line| line.contains("(13 of 50 drivers kept free for your orders)")), "{said:#?}");
    assert!(said.iter().any(|line| line.trim() == "fixes refused    none"), "no simulated fix is a jump: {said:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orders_of_an_earlier_simulation_are_cancelled_and_orders_of_the_reader_are_kept() {
    if !has_curl().await {
        return;
    }
    let folder = DevFolder::make();
    let dev = folder.start(Some(5)).await;
    let secret = dev.text("webhookSharedSecret").to_owned();
    let simulated = async |n: usize| {
        let order = json!({"sellerOrderId": format!("sim-earlier-{n}"), "channelId": "1", "metadata": {"simulated": true},
            "pickup": RESTAURANT.json(), "drop": RESTAURANT.offset(3000.0, 3000.0).json()});
        let path = "/webhooks/vendure/seller-order-ready";
        let reply =
            http::send(dev.admin().keyed(None).request("POST", path).header("X-Webhook-Secret", &secret).json(&order));
        reply.await.status
    };
    let mut statuses = Vec::new();
    for n in 0..12 {
        statuses.push(simulated(n).await);
    }
    assert!(
        statuses.iter().filter(|status| **status == 202).count() >= 7,
        "the orders exceed the five drivers: {statuses:?}"
    );
    let (mine, status) = post(&folder, "mine").await;
    assert_eq!((status, &mine["status"]), (202, &json!("PENDING")), "{mine}");
    dev.kill9().await;

    let dev = folder.start(Some(5)).await;
    let (first, status) = post(&folder, "first").await;
    assert_eq!((status, &first["status"]), (201, &json!("ASSIGNED")), "{first} {:#?}", dev.lines());
    let admin = dev.admin();
    for status in ["PENDING", "ASSIGNED", "PICKED_UP", "IN_TRANSIT"] {
        let open = admin.get(&format!("/api/v1/deliveries?status={status}&limit=200")).await.expect(200);
        let earlier = |order: &&Value| order["sellerOrderId"].as_str().unwrap().starts_with("sim-earlier-");
        assert_eq!(open["items"].as_array().unwrap().iter().filter(earlier).count(), 0, "{open}");
    }
    eventually("the reader's order is assigned", SOON, || async {
        let now = admin.get(&format!("/api/v1/deliveries/{}", mine["deliveryId"].as_str().unwrap())).await.body;
        assert_ne!(now["status"], "CANCELLED");
        (now["status"] != "PENDING").then_some(())
    })
    .await;
    let said = dev.stop().await;
    assert!(said.iter().any(|line| line.starts_with("cancelled ")), "{said:#?}");
    // The drivers start from the places where the killed run left them.
    assert!(said.iter().any(|line| line.trim() == "fixes refused    none"), "{said:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_smallest_fleets_reserve_a_driver_for_the_first_order() {
    if !has_curl().await {
        return;
    }
    for drivers in [1, 2] {
        let folder = DevFolder::make();
        let dev = folder.start(Some(drivers)).await;
        if drivers == 2 {
            // The first simulated order is posted when the fleet is ready.
            eventually("a simulated order is assigned", SOON * 2, || async {
                (dev.drivers("BUSY").await == 1).then_some(())
            })
            .await;
        }
        let (first, status) = post(&folder, "first").await;
        assert_eq!((status, &first["status"]), (201, &json!("ASSIGNED")), "{drivers}: {first} {:#?}", dev.lines());
        dev.stop().await;
    }
}

/// Returns the frames of a block of the README, with the values that the reader fills in.
fn frames_of_block(block: usize, fill: &[(&str, &str)]) -> Vec<Value> {
    let text = blocks("A first driver", "text")[block];
    let read = |line: &str| {
        let mut frame: Value = serde_json::from_str(line).expect("the line is a frame");
        for (name, value) in fill {
            if frame.get(*name).is_some() {
                frame[*name] = json!(value);
            }
        }
        frame
    };
    text.lines().map(read).collect()
}

async fn wait_until_delivered(dev: &Dev, id: &Value) {
    let path = format!("/api/v1/deliveries/{}", id.as_str().expect("the id is a text"));
    eventually("the order is delivered", SOON * 2, || async {
        (dev.admin().get(&path).await.body["status"] == "DELIVERED").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_driver_of_the_readme_delivers_an_order_and_cannot_jump() {
    if !has_curl().await {
        return;
    }
    let folder = DevFolder::make();
    let dev = folder.start(Some(0)).await;
    let address = dev.text("httpUrl").trim_start_matches("http://").to_owned();
    let token = dev.state["driver"]["token"].as_str().unwrap().to_owned();
    let now = || Utc::now().to_rfc3339_opts(SecondsFormat::Secs, true);

    let session = Session::connect(&address, &token).await;
    session.acknowledge_commands(false);
    session.take("welcome").await;
    for frame in frames_of_block(0, &[("fixTime", &now())]) {
        session.send(&frame);
    }
    assert_eq!(session.take_response("on").await["type"], "ok");
    session.wait_for_ack(1).await;
    let (order, status) = post(&folder, "by-hand").await;
    assert!(matches!(status, 201 | 202), "{order}");
    let assignment = session.take("assignment").await;
    let again = session.take("assignment").await;
    assert_eq!(again["messageId"], assignment["messageId"], "the command is repeated until it is acknowledged");
    let text = |value: &Value| value.as_str().expect("the id is a text").to_owned();
    let delivery = &assignment["delivery"];
    let (message, id, held) = (text(&assignment["messageId"]), text(&delivery["id"]), text(&delivery["assignmentId"]));
    for frame in frames_of_block(1, &[("messageId", &message), ("deliveryId", &id), ("assignmentId", &held)]) {
        session.send(&frame);
    }
    for reference in ["1", "2"] {
        assert_eq!(session.take_response(reference).await["type"], "ok");
    }
    wait_until_delivered(&dev, &order["deliveryId"]).await;

    // `dev` refuses fixes that jump, as a service in production does.
    assert_eq!(dev.fixes_refused().await, 0.0);
    let far = RESTAURANT.offset(20_000.0, 0.0);
    session.send(&json!({"type": "heartbeat", "seq": 2, "fixTime": now(), "lat": far.lat, "lon": far.lon}));
    let refused = session.take_where("the error for the jump", SOON, |frame| frame["type"] == "error").await;
    assert_eq!(refused["code"], "fix_too_fast", "{refused}");
    drop(session);

    if node_major().await >= 22 {
        let program = folder.root.join("driver.mjs");
        std::fs::write(&program, blocks("A first driver", "js")[0]).expect("the file is written");
        let mut driver = Command::new("node")
            .arg(&program)
            .current_dir(&folder.root)
            .kill_on_drop(true)
            .spawn()
            .expect("node starts");
        let (order, status) = post(&folder, "by-program").await;
        assert!(matches!(status, 201 | 202), "{order}");
        wait_until_delivered(&dev, &order["deliveryId"]).await;
        driver.kill().await.expect("the program of the README is killed");
    } else {
        println!("skipped the program of the README: Node 22 is not installed");
    }
    dev.stop().await;
}

/// Returns the major version of Node, or 0 without Node.
async fn node_major() -> u32 {
    let Ok(done) = Command::new("node").arg("--version").output().await else { return 0 };
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    said.trim().trim_start_matches('v').split('.').next().and_then(|major| major.parse().ok()).unwrap_or(0)
}
