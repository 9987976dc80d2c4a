//! Tests of a transaction pooler between the service and PostgreSQL.
//!
//! Each transaction may run in another database session, so the service must not leave any state in one.

use std::process::Stdio;
use std::time::Duration;

use driver_tracker::dev::servers::free_port;
use tokio::process::{Child, Command};
use url::Url;

use super::support::{Order, RESTAURANT, World, eventually};

/// A PgBouncer in transaction mode. It is killed on drop.
struct Pooler {
    _child: Child,
    _dir: tempfile::TempDir,
    url: String,
}

impl Pooler {
    async fn start(database_url: &str) -> Pooler {
        let url = Url::parse(database_url).expect("the database URL is valid");
        let name = url.path().trim_start_matches('/');
        let port = free_port().expect("a port is free");
        let dir = tempfile::tempdir().expect("the directory is created");
        let settings = format!(
            "[databases]\n{name} = host=127.0.0.1 port={} dbname={name} user={} password={}\n\
             [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n\
             pool_mode = transaction\ndefault_pool_size = 3\nserver_round_robin = 1\nlogfile = /dev/null\n",
            url.port().expect("the URL has a port"),
            url.username(),
            url.password().unwrap_or_default(),
        );
        let file = dir.path().join("pgbouncer.ini");
        std::fs::write(&file, settings).expect("the settings are written");
        // PgBouncer refuses to run as root.
        let mut command = if is_root() {
            open_to_all(dir.path());
            open_to_all(&file);
            let mut command = Command::new("setpriv");
            command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--", "pgbouncer"]);
            command
        } else {
            Command::new("pgbouncer")
        };
        let path = format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default());
        let child = command
            .arg(&file)
            .env("PATH", path)
            .kill_on_drop(true)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("pgbouncer starts (Debian: apt-get install pgbouncer)");
        let through = format!("postgres://{}@127.0.0.1:{port}/{name}", url.username());
        eventually("the pooler listens", Duration::from_secs(10), || async {
            tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok().map(drop)
        })
        .await;
        Pooler { _child: child, _dir: dir, url: through }
    }
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
}

fn open_to_all(path: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("the permissions are set");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deliveries_succeed_through_a_transaction_pooler() {
    let world = World::start().await;
    let pooler = Pooler::start(&world.database_url).await;
    let node = world.start_node_with(&[("DATABASE_URL", pooler.url.as_str())]).await;
    node.wait_for_health("ok").await;
    for round in 0..4 {
        let driver = world.on_duty_at(&node, RESTAURANT.offset(100.0 + f64::from(round), 0.0)).await;
        let answer = world.post_order_at(&node, &Order::new(&format!("pooled-{round}"))).await.expect(201);
        let id = answer["deliveryId"].as_str().expect("the response has an id").to_owned();
        let assignment_frame = driver.wait_for_assignment(&id).await;
        let assignment =
            assignment_frame["delivery"]["assignmentId"].as_str().expect("the frame has an assignment").to_owned();
        driver.deliver(&id, &assignment).await;
        world.wait_for_delivery(&id, "DELIVERED").await;
        assert_eq!(driver.request_duty("OFFLINE").await["type"], "ok");
    }
    world.finish().await;
}
