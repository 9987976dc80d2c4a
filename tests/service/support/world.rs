//! The environment of one test: a database, a Redis key prefix, nodes, and a shop.
//!
//! Invariants:
//! - No two tests share a database or a key prefix.
//! - [`World::finish`] checks the invariants of the service.
//!
//! Reads and writes that bypass the service go through `pool` and `redis`. They must not replace an action that the
//! service offers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use driver_tracker::dev::servers::{PrivatePostgres, PrivateRedis};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;

use super::http::{Api, Reply};
use super::node::Env;
use super::orders::{self, Order};
use super::plan::{EVENTS_SECRET, Plan, SHOP_SECRETS_KEY, WEBHOOK_SECRET, WEBHOOK_SHARED_SECRET, settings};
use super::redis::Redis;
use super::servers::{self, Own};
use super::{Driver, Node, Place, SOON, Shop, eventually, invariants, join_all};

/// The environment of one test.
pub struct World {
    pub nodes: Vec<Node>,
    pub pool: PgPool,
    pub database_url: String,
    pub redis: Redis,
    pub admin_key: String,
    pub shop: Option<Shop>,
    pub own_redis: Option<Arc<Own<PrivateRedis>>>,
    pub own_postgres: Option<Arc<Own<PrivatePostgres>>>,
    env: Env,
    has_redis: AtomicBool,
    /// Texts that no log line may contain.
    secrets: std::sync::Mutex<Vec<String>>,
}

impl World {
    /// Starts a world with one node and a shop on the shared servers.
    pub async fn start() -> World {
        World::with().start().await
    }

    /// Returns a plan that describes a world before it starts.
    pub fn with() -> Plan {
        Plan::default()
    }

    pub(super) async fn start_as(plan: Plan) -> World {
        let own_postgres = match (plan.own_primary, plan.own_postgres) {
            (true, _) => Some(Arc::new(servers::own_primary())),
            (false, true) => Some(Arc::new(servers::own_postgres())),
            (false, false) => None,
        };
        let own_redis = plan.own_redis.then(|| Arc::new(servers::own_redis()));
        let (database_url, admin_key) = match &own_postgres {
            Some(server) => servers::fresh_database_on(server).await,
            None => {
                let (url, key) = servers::fresh_database().await;
                (url, key.to_owned())
            }
        };
        let has_redis = plan.redis_url.is_none();
        let redis_url = match (&plan.redis_url, &own_redis) {
            (Some(url), _) => url.clone(),
            (None, Some(server)) => server.url(),
            (None, None) => servers::shared_redis().url(),
        };
        let prefix = format!("t{}-{}:", std::process::id(), servers::next_number());
        let shop = if plan.without_shop { None } else { Some(Shop::open(&[EVENTS_SECRET.to_owned()]).await) };
        let mut env = settings(&database_url, &redis_url, &prefix);
        if let Some(shop) = &shop {
            env.push(("VENDURE_EVENTS_URL".to_owned(), shop.url.clone()));
            env.push(("VENDURE_EVENTS_SECRET".to_owned(), EVENTS_SECRET.to_owned()));
            env.push(("EVENTS_ALLOWED_NETWORKS".to_owned(), "127.0.0.0/8".to_owned()));
        }
        env.extend(plan.settings);
        let mut world = World {
            nodes: Vec::new(),
            pool: PgPoolOptions::new()
                .max_connections(6)
                .connect_lazy(&database_url)
                .expect("the database URL is valid"),
            redis: Redis::new(&redis_url, &prefix),
            secrets: std::sync::Mutex::new(secrets(&database_url, &admin_key)),
            database_url,
            admin_key,
            shop,
            own_redis,
            own_postgres,
            env,
            has_redis: AtomicBool::new(has_redis),
        };
        let nodes = join_all((0..plan.nodes.unwrap_or(1)).map(|_| world.start_node())).await;
        world.nodes = nodes;
        if world.has_redis() {
            join_all(world.nodes.iter().map(|node| node.wait_for_health("ok"))).await;
        }
        world
    }

    /// Starts another node of this world. The caller keeps it.
    pub async fn start_node(&self) -> Node {
        self.start_node_with(&[]).await
    }

    /// Does what `start_node` does, with additional settings.
    pub async fn start_node_with(&self, settings: &[(&str, &str)]) -> Node {
        Node::start(&self.env_with(settings)).await
    }

    /// Returns the settings of a node of this world. A later entry overrides an earlier one.
    pub fn env_with(&self, settings: &[(&str, &str)]) -> Env {
        let mut env = self.env.clone();
        env.push(("NODE_ID".to_owned(), format!("node-{}", servers::next_number())));
        env.extend(settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        env
    }

    /// Makes the harness read from another database from now on.
    pub async fn read_from(&mut self, database_url: &str) {
        self.pool.close().await;
        self.pool =
            PgPoolOptions::new().max_connections(6).connect_lazy(database_url).expect("the database URL is valid");
        self.database_url = database_url.to_owned();
    }

    /// Returns the first node.
    pub fn node(&self) -> &Node {
        &self.nodes[0]
    }

    /// Returns the shop that receives the events.
    pub fn shop(&self) -> &Shop {
        self.shop.as_ref().expect("the world has a shop")
    }

    /// Sets whether the invariants of Redis are expected to hold from now on.
    pub fn expect_redis(&self, yes: bool) {
        self.has_redis.store(yes, Ordering::Relaxed);
    }

    /// Returns whether Redis is expected to be reachable and consistent with PostgreSQL.
    pub fn has_redis(&self) -> bool {
        self.has_redis.load(Ordering::Relaxed)
    }

    /// Returns a client of the first node's API with the operator's key.
    pub fn admin(&self) -> Api {
        self.admin_at(self.node())
    }

    /// Returns a client of a node's API with the operator's key.
    pub fn admin_at(&self, node: &Node) -> Api {
        node.api().keyed(Some(&self.admin_key))
    }

    /// Registers a secret that no log line may contain.
    pub fn register_secret(&self, secret: &str) {
        self.secrets.lock().expect("the lock of the secrets is not poisoned").push(secret.to_owned());
    }

    /// Posts an order to the first node.
    pub async fn post_order(&self, order: &Order) -> Reply {
        self.post_order_at(self.node(), order).await
    }

    /// Posts an order to a node.
    pub async fn post_order_at(&self, node: &Node, order: &Order) -> Reply {
        orders::post_order(node, order, WEBHOOK_SECRET).await
    }

    /// Posts a cancellation to the first node.
    pub async fn post_cancellation(&self, id: &str, reason: Option<&str>) -> Reply {
        orders::post_cancellation(self.node(), id, reason, WEBHOOK_SECRET).await
    }

    /// Creates a driver and a token through the API. Returns the driver's id and the token.
    pub async fn new_driver(&self) -> (String, String) {
        let name = format!("Driver {}", servers::next_number());
        let body = json!({"name": name, "phone": "+91 80 5550 1000"});
        let made = self.admin().post("/api/v1/drivers", &body).await.expect(201);
        let id = made["id"].as_str().expect("the response has an id").to_owned();
        let token = self.new_token(&id).await.1;
        (id, token)
    }

    /// Inserts many drivers directly into PostgreSQL, because the API would take too long for thousands. Returns
    /// ids and tokens.
    pub async fn insert_drivers(&self, count: usize, on_duty: bool) -> (Vec<uuid::Uuid>, Vec<String>) {
        let ids: Vec<uuid::Uuid> = (0..count).map(|_| uuid::Uuid::now_v7()).collect();
        let tokens: Vec<String> = ids.iter().map(|id| format!("dt_drv_{}-{id}", rand::random::<u128>())).collect();
        let hashes: Vec<Vec<u8>> = tokens.iter().map(|token| Sha256::digest(token).to_vec()).collect();
        for statement in [
            "INSERT INTO drivers (id, name, phone, on_duty) SELECT id, 'One of many', '+91 80 5550 1000', $3
                FROM unnest($1::uuid[], $2::bytea[]) AS t (id, hash)",
            "INSERT INTO driver_events (driver_id, epoch, status, on_duty, reason, actor_kind)
                SELECT d.id, d.epoch, d.status, d.on_duty, 'created', 'system'
                FROM unnest($1::uuid[], $2::bytea[]) AS t (id, hash) JOIN drivers d ON d.id = t.id AND d.on_duty = $3",
            "INSERT INTO driver_tokens (id, driver_id, token_hash) SELECT gen_random_uuid(), id, hash
                FROM unnest($1::uuid[], $2::bytea[]) AS t (id, hash) WHERE $3::boolean IS NOT NULL",
        ] {
            let query = sqlx::query(statement).bind(&ids).bind(&hashes).bind(on_duty);
            query.execute(&self.pool).await.expect("the drivers are inserted");
        }
        (ids, tokens)
    }

    /// Creates a token of a driver through the API. Returns the token's id and the token.
    pub async fn new_token(&self, driver: &str) -> (String, String) {
        let made = self.admin().post(&format!("/api/v1/drivers/{driver}/tokens"), &json!({})).await.expect(201);
        let text = |name: &str| made[name].as_str().expect("the response has the token's fields").to_owned();
        let (id, token) = (text("tokenId"), text("token"));
        self.register_secret(&token);
        (id, token)
    }

    /// Returns a driver whose app is connected to a node, off duty, and sends no heartbeats.
    pub async fn connected_at(&self, node: &Node, place: Place) -> Driver {
        let (id, token) = self.new_driver().await;
        Driver::connect(node, &id, &token, place).await
    }

    /// Returns a driver who is a candidate: on duty at a place, and connected to the first node.
    pub async fn on_duty(&self, place: Place) -> Driver {
        self.on_duty_at(self.node(), place).await
    }

    /// Returns a driver who is a candidate: on duty at a place, and connected to a node.
    pub async fn on_duty_at(&self, node: &Node, place: Place) -> Driver {
        let mut driver = self.connected_at(node, place).await;
        driver.go_on_duty().await;
        self.wait_for_candidates(std::slice::from_ref(&driver)).await;
        driver
    }

    /// Returns candidates at the places, connected to the nodes in turn.
    pub async fn fleet(&self, places: &[Place]) -> Vec<Driver> {
        let mut fleet = Vec::new();
        for (group, chunk) in places.chunks(6).enumerate() {
            let work = chunk.iter().enumerate().map(|(n, place)| async move {
                let node = &self.nodes[(group * 6 + n) % self.nodes.len()];
                let mut driver = self.connected_at(node, *place).await;
                driver.go_on_duty().await;
                driver
            });
            fleet.extend(join_all(work).await);
        }
        self.wait_for_candidates(&fleet).await;
        fleet
    }

    /// Waits until PostgreSQL, and Redis if there is one, have the drivers' last known locations.
    pub async fn wait_for_candidates(&self, drivers: &[Driver]) {
        let ids: Vec<uuid::Uuid> = drivers.iter().map(|d| d.id.parse().expect("a driver's id is a UUID")).collect();
        eventually("PostgreSQL has the drivers' last known locations", SOON, || async {
            let known: i64 = sqlx::query_scalar(
                "SELECT count(*) FROM driver_positions WHERE driver_id = ANY($1) AND lat IS NOT NULL",
            )
            .bind(&ids)
            .fetch_one(&self.pool)
            .await
            .ok()?;
            (known == ids.len() as i64).then_some(())
        })
        .await;
        if self.has_redis() {
            eventually("the drivers with a free slot are in drivers:geo", SOON, || async {
                let free: Vec<String> =
                    sqlx::query_scalar("SELECT id::text FROM drivers WHERE id = ANY($1) AND status = 'AVAILABLE'")
                        .bind(&ids)
                        .fetch_all(&self.pool)
                        .await
                        .ok()?;
                let geo_members = self.redis.geo_members().await?;
                free.iter().all(|id| geo_members.contains(id)).then_some(())
            })
            .await;
        }
    }

    /// Returns a delivery as the operators' API shows it.
    pub async fn delivery(&self, id: &str) -> Value {
        self.admin().get(&format!("/api/v1/deliveries/{id}")).await.expect(200)
    }

    /// Waits until a delivery has a status, and returns the delivery.
    pub async fn wait_for_delivery(&self, id: &str, status: &str) -> Value {
        eventually(&format!("delivery {id} is {status}"), SOON, || async {
            let delivery = self.admin().get(&format!("/api/v1/deliveries/{id}")).await;
            (delivery.body["status"] == status).then_some(delivery.body)
        })
        .await
    }

    /// Returns a driver as the operators' API shows them.
    pub async fn driver(&self, id: &str) -> Value {
        self.admin().get(&format!("/api/v1/drivers/{id}")).await.expect(200)
    }

    /// Waits until a driver has a status.
    pub async fn wait_for_driver(&self, id: &str, status: &str) {
        eventually(&format!("driver {id} is {status}"), SOON, || async {
            (self.driver_status(id).await == status).then_some(())
        })
        .await;
    }

    /// Returns a driver's status, read directly from PostgreSQL.
    pub async fn driver_status(&self, id: &str) -> String {
        let id: uuid::Uuid = id.parse().expect("a driver's id is a UUID");
        let found = sqlx::query_scalar("SELECT status FROM drivers WHERE id = $1").bind(id).fetch_one(&self.pool);
        found.await.expect("the driver exists")
    }

    /// Returns the number that a counting statement yields.
    pub async fn count(&self, statement: &'static str) -> i64 {
        sqlx::query_scalar(statement).fetch_one(&self.pool).await.expect("the statement yields a count")
    }

    /// Returns the types of a delivery's audit rows, oldest first.
    pub async fn trail(&self, delivery: &str) -> Vec<String> {
        let id: uuid::Uuid = delivery.parse().expect("a delivery's id is a UUID");
        sqlx::query_scalar("SELECT type FROM delivery_events WHERE delivery_id = $1 ORDER BY sequence")
            .bind(id)
            .fetch_all(&self.pool)
            .await
            .expect("the audit rows are read")
    }

    /// Ends the test: checks every invariant, and stops and removes everything.
    pub async fn finish(mut self) {
        let running = self.nodes.iter_mut().map(Node::is_running).collect::<Vec<_>>().contains(&true);
        invariants::assert_invariants(&self, running).await;
        self.assert_logs_keep_secrets(&[]);
        if let Some(shop) = &self.shop {
            shop.assert_all_signed();
        }
        for node in &mut self.nodes {
            node.kill9().await;
        }
        self.pool.close().await;
        if self.own_postgres.is_none() {
            servers::drop_database(&self.database_url).await;
        }
    }

    /// Asserts that no log line of any node contains a registered secret or a text of `more`.
    pub fn assert_logs_keep_secrets(&self, more: &[String]) {
        let secrets = self.secrets.lock().expect("the lock of the secrets is not poisoned");
        for line in self.nodes.iter().flat_map(Node::log_lines) {
            for secret in secrets.iter().chain(more) {
                assert!(!line.contains(secret.as_str()), "a log line contains {secret:?}: {line}");
            }
        }
    }
}

/// Waits for a fixed time. `why` says why there is no condition to wait for.
pub async fn let_time_pass(why: &str, how_long: Duration) {
    let started = Instant::now();
    tokio::time::sleep(how_long).await;
    assert!(started.elapsed() >= how_long, "{why}");
}

fn secrets(database_url: &str, admin_key: &str) -> Vec<String> {
    let password = url::Url::parse(database_url).ok().and_then(|url| url.password().map(str::to_owned));
    let bare = |secret: &str| secret.trim_start_matches("whsec_").to_owned();
    let fixed = [WEBHOOK_SECRET, WEBHOOK_SHARED_SECRET, EVENTS_SECRET, SHOP_SECRETS_KEY, admin_key].map(bare);
    fixed.into_iter().chain(password).collect()
}
