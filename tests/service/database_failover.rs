//! Tests of PostgreSQL failovers: a name that moves, a list of hosts, and a server that becomes read-only.

use std::time::Duration;

use serde_json::json;
use tokio::task::block_in_place;

use super::support::node::Env;
use super::support::plan::{Plan, WEBHOOK_SECRET};
use super::support::standby::Pair;
use super::support::world::let_time_pass;
use super::support::*;

/// The limit for a node to recover.
const RECOVERY_LIMIT: Duration = Duration::from_secs(10);

/// A plan in which orders get a response without a wait for an assignment.
fn without_assignment_wait() -> Plan {
    World::with().set("ASSIGNMENT_WAIT_MS", 0)
}

/// Posts an order. Returns the status, and the order's name when it was accepted.
async fn post(world: &World, name: &str) -> (u16, Option<String>) {
    let reply = orders::post_order(world.node(), &Order::new(name), WEBHOOK_SECRET).await;
    (reply.status, matches!(reply.status, 200..=202).then(|| name.to_owned()))
}

/// Waits until an order is accepted. Then posts forty more, asserts that all are accepted, and returns all names.
async fn assert_orders_accepted_after(world: &World, what: &str) -> Vec<String> {
    let first = format!("{what}-first");
    let mut accepted = vec![
        eventually(&format!("orders are accepted after {what}"), RECOVERY_LIMIT, || async {
            post(world, &first).await.1
        })
        .await,
    ];
    for round in 0..5 {
        let posts = join_all((0..8).map(|n| {
            let name = format!("{what}-{round}-{n}");
            async move { post(world, &name).await }
        }));
        for (status, name) in posts.await {
            accepted.push(name.unwrap_or_else(|| panic!("an order was refused with {status} after {what}")));
        }
    }
    accepted
}

/// Asserts that orders are refused while no writable server is reachable.
async fn assert_orders_refused(world: &World, what: &str) {
    let refused = eventually("orders are refused", RECOVERY_LIMIT, || async {
        let (status, accepted) = post(world, what).await;
        accepted.is_none().then_some(status)
    });
    assert_eq!(refused.await, 503);
    world.node().wait_for_health("down").await;
    eventually("the metric reports the outage", SOON, || async {
        (world.node().metric("driver_tracker_database_up").await == 0.0).then_some(())
    })
    .await;
}

async fn wait_for_recovery(world: &World) {
    world.node().wait_for_health("ok").await;
    eventually("the metric reports the recovery", SOON, || async {
        (world.node().metric("driver_tracker_database_up").await == 1.0).then_some(())
    })
    .await;
}

/// Asserts that every accepted order is in the database that the world reads from.
async fn assert_stored(world: &World, accepted: &[String]) {
    let kept: Vec<String> = sqlx::query_scalar("SELECT seller_order_id FROM deliveries")
        .fetch_all(&world.pool)
        .await
        .expect("the deliveries are read");
    for name in accepted {
        assert!(kept.contains(name), "the surviving database has the accepted order {name}");
    }
}

/// Asserts that orders are accepted after a failover, and that the promoted standby has these and those accepted before.
/// The world reads from the standby from now on.
async fn assert_recovered_on_the_standby(world: &mut World, pair: &Pair, mut accepted: Vec<String>) {
    accepted.extend(assert_orders_accepted_after(world, "the failover").await);
    world.read_from(&pair.standby.url("test")).await;
    assert_stored(world, &accepted).await;
    wait_for_recovery(world).await;
}

/// Returns the identity of a database. Redis is bound to it.
async fn identity(url: &str) -> String {
    let mut conn = servers::connect(url).await;
    driver_tracker::store::schema::identity(&mut conn).await.expect("the database has an identity")
}

fn count_lines(node: &Node, message: &str) -> usize {
    node.log_lines().iter().filter(|line| line.contains(&format!("\"{message}\""))).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_order_is_lost_when_the_name_moves_to_a_standby_and_back_and_to_the_promoted_standby() {
    let (mut world, pair) = Pair::start(without_assignment_wait().set("HEARTBEAT_TTL_MS", 20_000)).await;
    let node = world.start_node_with(&[("DATABASE_URL", pair.url_by_name().as_str())]).await;
    world.nodes.push(node);
    wait_for_recovery(&world).await;
    let driver = world.on_duty(RESTAURANT.offset(100.0, 0.0)).await;
    let mut accepted = assert_orders_accepted_after(&world, "start").await;
    let began = count_lines(world.node(), "PostgreSQL takes no writes");

    pair.name.set_target(pair.standby.port());
    pair.name.close_connections();
    assert_orders_refused(&world, "astray").await;
    holds("orders are refused while the name leads to a standby", Duration::from_secs(8), || async {
        post(&world, "astray").await.0 == 503
    })
    .await;
    pair.name.set_target(pair.primary.port());
    accepted.extend(assert_orders_accepted_after(&world, "the name was back").await);
    wait_for_recovery(&world).await;
    assert_eq!(driver.session.ended(), None, "the session stays open");
    let logged = count_lines(world.node(), "PostgreSQL takes no writes") - began;
    assert_eq!(logged, 1, "each state change logs one line");

    let rebuilt = count_lines(world.node(), "Redis rebuilt from PostgreSQL");
    let before = identity(&pair.primary.url("test")).await;
    pair.fail_over().await;
    assert_ne!(identity(&pair.standby.url("test")).await, before, "a promotion changes the identity of the database");
    pair.name.set_target(pair.standby.port());
    assert_recovered_on_the_standby(&mut world, &pair, accepted).await;
    assert_eq!(driver.session.ended(), None, "the session stays open");
    eventually("Redis is rebuilt from the promoted server", SOON, || async {
        (count_lines(world.node(), "Redis rebuilt from PostgreSQL") > rebuilt).then_some(())
    })
    .await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_connection_to_the_old_server_stays_in_use_after_the_name_moved_silently() {
    let (mut world, pair) = Pair::start(without_assignment_wait()).await;
    let node = world.start_node_with(&[("DATABASE_URL", pair.url_by_name().as_str())]).await;
    world.nodes.push(node);
    wait_for_recovery(&world).await;
    let accepted = assert_orders_accepted_after(&world, "start").await;
    // Many connections are open and idle now. The proxy drops their bytes from here on: none is closed, none gets
    // a response.
    pair.name.set(proxy::ProxyMode::Discard);
    pair.fail_over().await;
    pair.name.set_target(pair.standby.port());
    pair.name.set(proxy::ProxyMode::Forward);
    assert_recovered_on_the_standby(&mut world, &pair, accepted).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_writable_one_of_several_hosts_is_used_before_and_after_a_failover() {
    let (mut world, pair) = Pair::start(without_assignment_wait()).await;
    let parameters = "?target_session_attrs=read-write";
    // The standby is first in the list, so that the order of the list does not select the right host.
    let list = pair.url_at(&[pair.standby.port(), pair.primary.port()]) + parameters;
    let env: Env = servers::minimal_env(&list);
    for arguments in [["migrate"].as_slice(), &["api-key", "list"], &["events", "list"]] {
        let done = node::run(arguments, &env).await;
        assert_eq!(done.status.code(), Some(0), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    }
    let node = world.start_node_with(&[("DATABASE_URL", list.as_str())]).await;
    world.nodes.push(node);
    let accepted = assert_orders_accepted_after(&world, "start").await;
    pair.fail_over().await;
    assert_recovered_on_the_standby(&mut world, &pair, accepted).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_on_which_the_server_was_read_only_are_closed() {
    let world = without_assignment_wait().own_postgres().start().await;
    assert_orders_accepted_after(&world, "start").await;
    let admin = world.own_postgres.as_ref().expect("the world has its own PostgreSQL").url("postgres");
    let read_only = async |yes: bool| {
        let mut conn = servers::connect(&admin).await;
        servers::execute(&mut conn, "SET default_transaction_read_only = off".to_owned()).await;
        let value = if yes { "on" } else { "off" };
        servers::execute(&mut conn, format!("ALTER SYSTEM SET default_transaction_read_only = {value}")).await;
        servers::execute(&mut conn, "SELECT pg_reload_conf()".to_owned()).await;
    };
    // Open sessions become read-only too, as behind a pooler whose target changed.
    read_only(true).await;
    let switched_at: chrono::DateTime<chrono::Utc> =
        sqlx::query_scalar("SELECT clock_timestamp()").fetch_one(&world.pool).await.expect("the database has a time");
    assert_orders_refused(&world, "read-only").await;
    read_only(false).await;
    assert_orders_accepted_after(&world, "it takes writes again").await;
    let older =
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'driver-tracker' AND backend_start < $1";
    // A closed connection's process may take a moment to end.
    eventually("no connection from before the switch is open", SOON, || async {
        let open: i64 = sqlx::query_scalar(older).bind(switched_at).fetch_one(&world.pool).await.expect("a count");
        (open == 0).then_some(())
    })
    .await;
    wait_for_recovery(&world).await;
    for message in ["PostgreSQL takes no writes", "PostgreSQL takes writes again"] {
        assert_eq!(count_lines(world.node(), message), 1, "{message}");
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_starts_against_a_standby_waits_for_the_primary() {
    let (mut world, pair) = Pair::start(without_assignment_wait()).await;
    pair.name.set_target(pair.standby.port());
    let url = pair.url_by_name();
    let refused = node::run(&["migrate"], &servers::minimal_env(&url)).await;
    let stderr_text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        refused.status.code() == Some(1) && stderr_text.contains("takes no writes: it is a standby"),
        "{stderr_text}"
    );
    let settings = [("DATABASE_URL", url.as_str())];
    let (node, ()) = tokio::join!(world.start_node_with(&settings), async {
        let_time_pass("the service connects to the standby first", Duration::from_secs(2)).await;
        pair.name.set_target(pair.primary.port());
    });
    world.nodes.push(node);
    wait_for_recovery(&world).await;
    let reply = world.post_order(&Order::new("first")).await;
    assert_eq!(reply.expect(202)["status"], json!("PENDING"));
    block_in_place(|| pair.standby.stop());
    pair.wait_for_standby(false).await;
    world.finish().await;
}
