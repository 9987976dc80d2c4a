//! The walk-throughs of `docs/architecture.md`, held against the trace spans of a real heartbeat and a real order.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::support::*;

/// The functions of a walk-through, in order: each as the target and the name of its span.
fn walkthrough(heading: &str) -> Vec<(String, String)> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/architecture.md");
    let page = fs::read_to_string(page).expect("the page");
    let (_, after) = page.split_once(&format!("### {heading}\n")).expect("the walk-through");
    let section = after.split("\n#").next().unwrap_or_default();
    let steps = section.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_digit()));
    let names = steps.map(|line| line.split('`').nth(1).expect("each step names a function in backticks"));
    let hop = |name: &str| {
        let (file, function) = name.split_once("::").expect("file::function");
        let module = file.trim_end_matches(".rs").trim_end_matches("/mod").replace('/', "::");
        (format!("driver_tracker::{module}"), function.to_owned())
    };
    names.map(hop).collect()
}

/// The spans that the node has opened so far, in order.
fn spans(lines: &[String]) -> Vec<(String, String)> {
    let opened = lines.iter().filter_map(|line| {
        let line: Value = serde_json::from_str(line).ok()?;
        let is_new = line["message"] == "new" && line["level"] == "TRACE";
        let name = line["span"]["name"].as_str().filter(|_| is_new)?.to_owned();
        Some((line["target"].as_str()?.to_owned(), name))
    });
    opened.collect()
}

/// How many functions of the walk-through the spans went through, in its order.
fn passed(hops: &[(String, String)], spans: &[(String, String)]) -> usize {
    let mut passed = 0;
    for span in spans {
        if hops.get(passed) == Some(span) {
            passed += 1;
        }
    }
    passed
}

async fn follow(world: &World, heading: &str, from: usize) {
    let hops = walkthrough(heading);
    assert!(hops.len() >= 8 && hops.iter().collect::<HashSet<_>>().len() > 5, "{hops:?}");
    let followed = || {
        let lines = world.node().log_lines();
        passed(&hops, &spans(&lines[from..]))
    };
    let deadline = Instant::now() + SOON;
    while followed() < hops.len() {
        assert!(
            Instant::now() < deadline,
            "{heading}: nothing passed {:?} after the functions before it",
            hops[followed()]
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_heartbeat_and_a_real_order_pass_the_functions_of_the_walk_throughs_in_their_order() {
    let world = World::with().set("RUST_LOG", "info,driver_tracker=trace").set("LOG_FORMAT", "json").start().await;
    let _driver = world.on_duty(RESTAURANT.offset(100.0, 0.0)).await;
    follow(&world, "One heartbeat", 0).await;
    let before_the_order = world.node().log_lines().len();
    world.post_order(&Order::new("followed")).await.expect(201);
    follow(&world, "One order", before_the_order).await;
    world.finish().await;
}
