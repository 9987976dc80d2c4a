//! A primary PostgreSQL, a synchronous standby, and a proxy that stands for their DNS name.

use std::sync::Arc;
use std::time::Duration;

use driver_tracker::dev::servers::PrivatePostgres;
use tokio::task::block_in_place;
use url::Url;

use super::plan::Plan;
use super::proxy::Proxy;
use super::servers::{self, Own};
use super::{World, eventually};

/// The limit for a server to start, to become synchronous, or to be promoted.
const SERVER_LIMIT: Duration = Duration::from_secs(30);

/// The two servers and the proxy that stands for their name.
pub struct Pair {
    pub primary: Arc<Own<PrivatePostgres>>,
    pub standby: Own<PrivatePostgres>,
    pub name: Proxy,
}

impl Pair {
    /// Starts a world without nodes on a primary whose commits wait for the standby. The name leads to the primary.
    pub async fn start(plan: Plan) -> (World, Pair) {
        let world = plan.own_primary().nodes(0).start().await;
        let primary = world.own_postgres.clone().expect("the world has a primary");
        let standby = block_in_place(|| servers::own_standby(&primary));
        let name = Proxy::start(primary.port()).await;
        let pair = Pair { primary, standby, name };
        pair.wait_for_standby(true).await;
        (world, pair)
    }

    /// Sets whether commits of the primary wait for a standby.
    pub async fn wait_for_standby(&self, yes: bool) {
        let names = if yes { "*" } else { "" };
        let mut conn = servers::connect(&self.primary.url("postgres")).await;
        servers::execute(&mut conn, format!("ALTER SYSTEM SET synchronous_standby_names = '{names}'")).await;
        servers::execute(&mut conn, "SELECT pg_reload_conf()".to_owned()).await;
        if yes {
            eventually("the standby is synchronous", SERVER_LIMIT, || async {
                let mut conn = servers::connect(&self.primary.url("postgres")).await;
                let state = "SELECT sync_state FROM pg_stat_replication";
                let state: Option<String> = sqlx::query_scalar(state).fetch_optional(&mut conn).await.ok()?;
                (state? == "sync").then_some(())
            })
            .await;
        }
    }

    /// Kills the primary and promotes the standby. The name keeps its target.
    pub async fn fail_over(&self) {
        block_in_place(|| self.primary.kill());
        let mut conn = servers::connect(&self.standby.url("postgres")).await;
        let is_promoted: bool = sqlx::query_scalar("SELECT pg_promote(true, 30)")
            .fetch_one(&mut conn)
            .await
            .expect("the promotion is requested");
        assert!(is_promoted, "the standby was not promoted in time");
    }

    /// Returns the URL of the world's database behind the name.
    pub fn url_by_name(&self) -> String {
        self.url_at(&[self.name.port])
    }

    /// Returns the URL of the world's database with several ports, in this order.
    pub fn url_at(&self, ports: &[u16]) -> String {
        let url: Url = self.primary.url("test").parse().expect("the URL is valid");
        let own = format!("127.0.0.1:{}", self.primary.port());
        let list: Vec<String> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        url.as_str().replace(&own, &list.join(","))
    }
}
