//! The environment of a benchmark: a private PostgreSQL, a private Redis, and the service as a process.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use driver_tracker::dev::servers::usage;
use driver_tracker::dev::servers::{PostgresOptions, PrivatePostgres, PrivateRedis};
use sqlx::{Connection, PgConnection};

/// The secret that signs the orders of a run.
pub const WEBHOOK_SECRET: &str = "whsec_YmVuY2htYXJrLWJlbmNobWFyay1iZW5jaG1hcms=";

/// Private servers, removed when the value is dropped. Commits reach the disk, as in production.
pub struct World {
    pub postgres: PrivatePostgres,
    pub redis: PrivateRedis,
    pub database_url: String,
    _dir: tempfile::TempDir,
}

impl World {
    pub fn start() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let options = PostgresOptions { remove_on_drop: true, ..PostgresOptions::default() };
        let postgres = PrivatePostgres::start_with(&dir.path().join("postgres"), None, options).expect("PostgreSQL");
        let redis = PrivateRedis::start(&dir.path().join("redis"), None).expect("Redis");
        postgres.create_database("bench").expect("a database");
        let database_url = postgres.url("bench");
        let world = Self { postgres, redis, database_url, _dir: dir };
        let migrated = world.program("migrate").status().expect("the program");
        assert!(migrated.success(), "the database was not migrated");
        world
    }

    fn program(&self, command: &str) -> Command {
        let mut program = Command::new(env!("CARGO_BIN_EXE_driver-tracker"));
        program
            .arg(command)
            .env_clear()
            .env("DATABASE_URL", &self.database_url)
            .env("DATABASE_PREPARED_STATEMENTS", "true")
            .env("REDIS_URL", self.redis.url())
            .env("VENDURE_WEBHOOK_SECRET", WEBHOOK_SECRET)
            .env("LISTEN_ADDR", "127.0.0.1:0")
            .env("METRICS_ADDR", "127.0.0.1:0")
            .env("LOG_FORMAT", "json")
            .env("RUST_LOG", "info")
            // The whole fleet connects from one address, so the limits per address are off.
            .envs(["ORDERS_PER_SECOND", "FRAMES_PER_SECOND", "CONNECTIONS_PER_ADDRESS"].map(|name| (name, "0")))
            .env("SHUTDOWN_DELAY_MS", "0")
            .env("SHUTDOWN_GRACE_MS", "2000")
            .stdin(Stdio::null());
        program
    }

    /// Starts the service with additional settings and waits until it listens.
    pub fn serve(&self, settings: &[(&str, &str)]) -> Service {
        let mut command = self.program("serve");
        command.envs(settings.iter().copied()).stdout(Stdio::piped());
        Service::start(command, |line| {
            let line: serde_json::Value = serde_json::from_str(line).ok()?;
            line.pointer("/http.addr").or_else(|| line.pointer("/fields/http.addr"))?.as_str()?.parse().ok()
        })
    }

    /// Creates `count` drivers who have been on duty for an hour. Returns their tokens.
    pub async fn drivers(&self, count: usize, capacity: i32) -> Vec<String> {
        let mut conn = self.connect().await;
        sqlx::raw_sql("TRUNCATE drivers CASCADE").execute(&mut conn).await.expect("an empty table");
        let insert = "WITH made AS (
                INSERT INTO drivers (id, name, phone, on_duty, capacity, changed_at)
                SELECT gen_random_uuid(), n::text, '+0', true, $2, now() - interval '1 hour' FROM generate_series(1, $1) AS n RETURNING id, name)
            INSERT INTO driver_tokens (id, driver_id, token_hash)
            SELECT gen_random_uuid(), id, sha256(('dt_drv_bench-' || name)::bytea) FROM made";
        sqlx::query(insert).bind(count as i32).bind(capacity).execute(&mut conn).await.expect("drivers");
        (1..=count).map(|number| format!("dt_drv_bench-{number}")).collect()
    }

    pub async fn connect(&self) -> PgConnection {
        PgConnection::connect(&self.database_url).await.expect("a connection to PostgreSQL")
    }

    pub fn redis_pid(&self) -> u32 {
        self.redis.pid().expect("Redis runs")
    }

    pub fn postgres_pid(&self) -> u32 {
        self.postgres.pid().expect("PostgreSQL runs")
    }
}

/// A process that serves drivers: the service or a peer.
pub struct Service {
    child: Child,
    pub address: SocketAddr,
}

impl Service {
    /// Starts the process and reads its output until `listening` finds the address in a line.
    pub fn start(mut command: Command, listening: impl Fn(&str) -> Option<SocketAddr>) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the service to start");
        let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        let address = lines.by_ref().map_while(Result::ok).find_map(|line| listening(&line));
        // The output is read to its end, because a full pipe would block the process.
        std::thread::spawn(move || lines.for_each(drop));
        Self { address: address.expect("the service to listen"), child }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn cpu(&self) -> Duration {
        usage::cpu(self.pid()).expect("the service runs")
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
