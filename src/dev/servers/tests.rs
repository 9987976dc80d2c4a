//! Tests of the private servers with real servers: they start, break, restart and leave nothing behind.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::account::Accounts;
use super::process::{self, wait_until};
use super::{PostgresOptions, PrivatePostgres, PrivateRedis, ServerError, next_free_port};

/// A directory of one test, removed at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        let path = env::temp_dir().join(format!("driver-tracker-test-{}", uuid::Uuid::new_v4()));
        fs::create_dir(&path).expect("scratch directory");
        Self(path)
    }

    fn postgres(&self) -> PrivatePostgres {
        start_postgres(&self.0.join("postgres"))
    }

    fn redis(&self) -> PrivateRedis {
        PrivateRedis::start(&self.0.join("redis"), None).expect("Redis starts")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn start_postgres(dir: &Path) -> PrivatePostgres {
    let options = PostgresOptions { remove_on_drop: false, ..PostgresOptions::for_tests() };
    PrivatePostgres::start_with(dir, None, options).expect("PostgreSQL starts")
}

fn is_gone(pid: u32) -> bool {
    process::stat(pid).is_none()
}

#[test]
fn the_next_free_port_is_not_in_use() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = taken.local_addr().expect("its address").port();
    assert!(next_free_port(port).expect("a port") > port);
}

#[test]
fn postgres_keeps_its_data_and_port_however_it_ends() {
    let scratch = Scratch::new();
    let server = scratch.postgres();
    let port = server.port();
    server.create_database("shop").expect("made");
    server.create_database("shop").expect("there already");
    assert!(matches!(server.create_database("x; drop"), Err(ServerError::BadName)));
    server.query("shop", "CREATE TABLE kept AS SELECT 7 AS n").expect("table");
    let kept = |server: &PrivatePostgres| server.query("shop", "SELECT n FROM kept").expect("read");

    server.kill();
    assert_eq!(server.pid(), None);
    server.start_again().expect("after a crash");
    assert_eq!(kept(&server), "7");
    assert!(matches!(server.start_again(), Err(ServerError::Running { .. })));
    server.stop();
    server.start_again().expect("after a stop");
    assert_eq!((server.port(), kept(&server)), (port, "7".to_owned()));

    let leftover = server.abandon();
    let server = scratch.postgres();
    assert!(is_gone(leftover), "the leftover was ended");
    assert_eq!((server.port(), kept(&server)), (port, "7".to_owned()));
    assert!(server.url("shop").ends_with(&format!("@127.0.0.1:{port}/shop")));
    let password = fs::read_to_string(scratch.0.join("postgres/password")).expect("password");
    assert!(!format!("{server:?}").contains(&password));
}

#[test]
fn a_frozen_postgres_hangs_and_can_be_stopped() {
    let scratch = Scratch::new();
    let server = scratch.postgres();
    std::thread::scope(|scope| {
        server.freeze().expect("frozen");
        let asking = scope.spawn(|| server.query("postgres", "SELECT 1"));
        std::thread::sleep(Duration::from_millis(500));
        assert!(!asking.is_finished(), "a frozen server does not answer");
        server.thaw();
        assert_eq!(asking.join().expect("no panic").expect("answered"), "1");
    });
    let pid = server.pid().expect("running");
    server.freeze().expect("frozen");
    server.stop();
    assert!(is_gone(pid));
}

#[test]
fn a_taken_port_is_skipped_and_a_locked_directory_is_refused() {
    let scratch = Scratch::new();
    let dir = scratch.0.join("redis");
    let first = scratch.redis();
    let second = PrivateRedis::start(&scratch.0.join("second"), Some(first.port())).expect("starts beside it");
    assert!(second.port() > first.port());
    assert!(matches!(PrivateRedis::start(&dir, None), Err(ServerError::InUse { .. })));
}

#[test]
fn redis_restarts_on_its_port_and_can_be_emptied_and_frozen() {
    let scratch = Scratch::new();
    let server = scratch.redis();
    let (port, pid) = (server.port(), server.pid().expect("running"));
    server.flush_all().expect("emptied");
    server.freeze().expect("frozen");
    server.thaw();
    server.flush_all().expect("answers again");
    server.kill();
    assert!(is_gone(pid));
    assert!(server.flush_all().is_err());
    server.start_again().expect("again");
    let leftover = server.abandon();
    let server = scratch.redis();
    assert!(is_gone(leftover), "the leftover was ended");
    assert_eq!(server.port(), port);
    server.stop();
    assert_eq!(server.pid(), None);
}

#[test]
fn data_is_stored_elsewhere_when_the_account_cannot_reach_the_directory() {
    let accounts = Accounts::find().expect("the accounts");
    let Some(account) = accounts.unprivileged else { return };
    let scratch = Scratch::new();
    fs::set_permissions(&scratch.0, fs::Permissions::from_mode(0o700)).expect("closed to others");
    let dir = scratch.0.join("postgres");
    drop(start_postgres(&dir));
    let data = fs::canonicalize(dir.join("cluster")).expect("a link to the data");
    assert!(data.starts_with("/var/tmp"));
    let found = fs::metadata(&data).expect("data");
    assert_eq!((found.uid(), found.mode() & 0o777), (account.uid, 0o700));
    let again = PrivatePostgres::start_with(&dir, None, PostgresOptions::for_tests()).expect("the same data");
    drop(again);
    assert!(!data.exists() && !dir.exists(), "the drop removes the data and the directory");
}

#[test]
fn the_error_of_a_server_that_cannot_start_says_why() {
    let scratch = Scratch::new();
    let dir = scratch.0.join("postgres");
    drop(start_postgres(&dir));
    fs::remove_file(dir.join("cluster/data/global/pg_control")).expect("broken");
    let said = PrivatePostgres::start(&dir, None).expect_err("broken").to_string();
    assert!(said.contains("did not start") && said.contains("pg_control"), "{said}");
    fs::write(dir.join("cluster/data/PG_VERSION"), "7\n").expect("old");
    assert!(matches!(PrivatePostgres::start(&dir, None), Err(ServerError::OtherVersion { .. })));
}

const HELPER_DIR: &str = "DRIVER_TRACKER_TEST_HELPER_DIR";

/// The process that `no_server_outlives_a_killed_process` starts and kills. It is not a test by itself.
#[test]
#[ignore = "started by another test"]
fn helper_that_waits_to_be_killed() {
    let Some(dir) = env::var_os(HELPER_DIR) else { return };
    // A thread that ends starts the servers, because they must not end with it.
    let start = move || {
        let scratch = Scratch(dir.into());
        let servers = (scratch.postgres(), scratch.redis());
        std::mem::forget(scratch);
        servers
    };
    let (postgres, redis) = std::thread::spawn(start).join().expect("started");
    println!("\npids {} {}", postgres.pid().expect("running"), redis.pid().expect("running"));
    std::thread::sleep(Duration::from_secs(120));
}

#[test]
fn no_server_outlives_a_killed_process() {
    let scratch = Scratch::new();
    let mut helper = Command::new(env::current_exe().expect("this program"))
        .args(["dev::servers::tests::helper_that_waits_to_be_killed", "--exact", "--ignored", "--nocapture"])
        .env(HELPER_DIR, &scratch.0)
        .stdout(Stdio::piped())
        .spawn()
        .expect("helper");
    let lines = BufReader::new(helper.stdout.take().expect("piped")).lines();
    let pids = lines.map_while(Result::ok).find_map(|line| line.strip_prefix("pids ").map(str::to_owned));
    let pids = pids.expect("the helper prints the ids of its servers");
    let pids: Vec<u32> = pids.split_whitespace().map(|pid| pid.parse().expect("a pid")).collect();
    assert!(pids.iter().all(|pid| !is_gone(*pid)), "the servers outlive the thread that started them");
    helper.kill().expect("killed");
    helper.wait().expect("ended");
    assert!(wait_until(Duration::from_secs(15), || pids.iter().all(|pid| is_gone(*pid))));
}
