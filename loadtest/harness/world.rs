//! The environment of a scenario: private PostgreSQL and Redis, a receiving shop, and nodes of the real program, each in its
//! own process.
//!
//! Invariant: everything stops when the value is dropped, and when this process ends.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use driver_tracker::dev::servers::{PostgresOptions, PrivatePostgres, PrivateRedis, free_port};
use driver_tracker::dev::shop::ReceivingShop;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use crate::failure::{Context, Result, bail};
use crate::now_ms;
use crate::processes::{self, Group, Watched};

/// The time limit until a node is ready.
const START_LIMIT: Duration = Duration::from_secs(60);

/// The time that a node may need to end beyond its shutdown delay and grace.
const END_EXTRA: Duration = Duration::from_secs(30);

/// The servers that all scenarios of a run share.
pub struct Servers {
    pub postgres: PrivatePostgres,
    pub redis: PrivateRedis,
}

impl Servers {
    /// Starts both servers. Their data is removed at the end.
    pub fn start(dir: &Path, watched: &Watched) -> Result<Self> {
        let options = PostgresOptions { remove_on_drop: true, ..PostgresOptions::default() };
        let postgres = PrivatePostgres::start_with(&dir.join("postgres"), None, options)?;
        let redis = PrivateRedis::start(&dir.join("redis"), None)?;
        watched.set(Group::Postgres, "postgres", postgres.pid());
        watched.set(Group::Redis, "redis", redis.pid());
        Ok(Self { postgres, redis })
    }
}

/// The resources of one scenario: a database, an empty Redis, a shop and nodes.
pub struct World {
    pub servers: std::sync::Arc<Servers>,
    pub shop: ReceivingShop,
    pub database_url: String,
    pub webhook_secret: String,
    pub nodes: Vec<Node>,
    pub watched: Watched,
}

impl World {
    /// Creates an empty database, empties Redis, and starts `count` nodes with `settings`.
    pub async fn start(
        name: &str,
        servers: std::sync::Arc<Servers>,
        watched: Watched,
        launch: &Launch,
        count: usize,
        settings: &BTreeMap<&'static str, String>,
    ) -> Result<Self> {
        // The name is unique to this run, because a killed run may have left its database.
        let (again, database) = (servers.clone(), format!("load_{}_{}", name.replace('-', "_"), now_ms()));
        let database_url = tokio::task::spawn_blocking(move || {
            again.postgres.create_database(&database)?;
            again.redis.flush_all()?;
            Ok::<_, driver_tracker::dev::servers::ServerError>(again.postgres.url(&database))
        })
        .await??;
        let (webhook_secret, events_secret) = (random_secret(), random_secret());
        let shop = ReceivingShop::start(&events_secret).await?;
        let mut world = Self { servers, shop, database_url, webhook_secret, nodes: Vec::new(), watched };
        for index in 0..count {
            let mut env: BTreeMap<String, String> =
                settings.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
            let label = char::from(b'a' + index as u8).to_string();
            for (name, value) in [
                ("DATABASE_URL", world.database_url.clone()),
                ("REDIS_URL", world.servers.redis.url()),
                ("VENDURE_WEBHOOK_SECRET", world.webhook_secret.clone()),
                ("VENDURE_EVENTS_URL", world.shop.url()),
                ("VENDURE_EVENTS_SECRET", events_secret.clone()),
                ("EVENTS_ALLOWED_NETWORKS", "127.0.0.0/8".to_owned()),
                ("DATABASE_PREPARED_STATEMENTS", "true".to_owned()),
                ("MIGRATE_ON_START", "true".to_owned()),
                ("NODE_ID", format!("load-{label}")),
                ("LOG_FORMAT", "json".to_owned()),
                ("LISTEN_ADDR", format!("127.0.0.1:{}", free_port()?)),
                ("METRICS_ADDR", format!("127.0.0.1:{}", free_port()?)),
            ] {
                env.insert(name.to_owned(), value);
            }
            let log = launch.dir.join(format!("{name}-node-{label}.log"));
            let _ = std::fs::remove_file(&log);
            let mut node = Node { label, env, log, launch: launch.clone(), child: None };
            node.start(&world.watched).await?;
            world.nodes.push(node);
        }
        Ok(world)
    }

    /// Returns the URLs of the nodes, separated by commas.
    pub fn urls(&self) -> String {
        self.nodes.iter().map(Node::url).collect::<Vec<_>>().join(",")
    }

    /// Stops every running node and returns the exit status of each.
    pub async fn stop_nodes(&mut self) -> Result<Vec<(String, ExitStatus)>> {
        let mut ended = Vec::new();
        for node in &mut self.nodes {
            if node.child.is_some() {
                ended.push((node.label.clone(), node.terminate(&self.watched).await?));
            }
        }
        Ok(ended)
    }
}

/// The path of the program and the folder for its files.
#[derive(Clone)]
pub struct Launch {
    pub program: PathBuf,
    pub dir: PathBuf,
}

/// A node: a process of the program with the command `serve`.
pub struct Node {
    pub label: String,
    env: BTreeMap<String, String>,
    log: PathBuf,
    launch: Launch,
    child: Option<Child>,
}

impl Node {
    /// Returns the URL of the API.
    pub fn url(&self) -> String {
        format!("http://{}", self.env["LISTEN_ADDR"])
    }

    /// Starts the node on its fixed address and waits until it is ready.
    pub async fn start(&mut self, watched: &Watched) -> Result<()> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut command = Command::from(processes::ending_with_parent(&self.launch.program));
        command.arg("serve").env_clear().envs(&self.env).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
        let child = command.spawn().with("the service could not be started")?;
        watched.set(Group::Service, &self.label, child.id());
        self.child = Some(child);
        let (client, deadline) = (reqwest::Client::new(), Instant::now() + START_LIMIT);
        loop {
            let asked = client.get(format!("{}/health/ready", self.url())).send().await;
            if asked.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            let ended = self.child.as_mut().is_some_and(|child| !matches!(child.try_wait(), Ok(None)));
            if ended || Instant::now() > deadline {
                bail!("node {} is not ready; its log is {}", self.label, self.log.display());
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Sends SIGTERM and waits until the node has ended.
    pub async fn terminate(&mut self, watched: &Watched) -> Result<ExitStatus> {
        let Some(mut child) = self.child.take() else { bail!("node {} does not run", self.label) };
        if let Some(pid) = child.id() {
            processes::signal(pid, "TERM")?;
        }
        let setting = |name: &str| self.env.get(name).and_then(|ms| ms.parse::<u64>().ok()).unwrap_or_default();
        let limit = Duration::from_millis(setting("SHUTDOWN_DELAY_MS") + setting("SHUTDOWN_GRACE_MS")) + END_EXTRA;
        let status = tokio::time::timeout(limit, child.wait()).await;
        watched.set(Group::Service, &self.label, None);
        Ok(status.with("a node did not end within its delay and grace")??)
    }

    /// Sends SIGKILL, which cuts every socket at once.
    pub async fn kill(&mut self, watched: &Watched) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill().await?;
        }
        watched.set(Group::Service, &self.label, None);
        Ok(())
    }

    /// Returns whether the node runs.
    pub fn runs(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Returns the overall status of `/health`.
    pub async fn health(&self) -> Option<String> {
        let answer = reqwest::get(format!("{}/health", self.url())).await.ok()?;
        let body: serde_json::Value = answer.json().await.ok()?;
        Some(body["status"].as_str()?.to_owned())
    }

    /// Returns the number of open sessions from the metrics of the node.
    pub async fn sessions(&self) -> Option<usize> {
        let page =
            reqwest::get(format!("http://{}/metrics", self.env["METRICS_ADDR"])).await.ok()?.text().await.ok()?;
        let line = page.lines().find(|line| line.starts_with("driver_tracker_sessions "))?;
        line.split_whitespace().nth(1)?.parse::<f64>().ok().map(|count| count as usize)
    }
}

fn random_secret() -> String {
    use base64::prelude::{BASE64_STANDARD, Engine};
    format!("whsec_{}", BASE64_STANDARD.encode(rand::random::<[u8; 32]>()))
}
