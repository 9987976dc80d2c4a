//! The content of Redis, read and written directly, without the service.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use redis::FromRedisValue;

/// The keys of one test in a Redis server.
#[derive(Clone, Debug)]
pub struct Redis {
    url: String,
    prefix: String,
}

impl Redis {
    pub fn new(url: &str, prefix: &str) -> Self {
        Self { url: url.to_owned(), prefix: prefix.to_owned() }
    }

    /// Returns the full name of a key, with the test's prefix.
    pub fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Runs one command. Returns `None` when Redis does not respond within two seconds.
    pub async fn try_command<T: FromRedisValue>(&self, command: &redis::Cmd) -> Option<T> {
        let work = async {
            let client = redis::Client::open(self.url.as_str()).ok()?;
            let mut connection = client.get_multiplexed_async_connection().await.ok()?;
            command.query_async(&mut connection).await.ok()
        };
        tokio::time::timeout(Duration::from_secs(2), work).await.ok()?
    }

    /// Runs one command, given as its words. Panics when Redis does not respond.
    pub async fn command<T: FromRedisValue>(&self, words: &[&str]) -> T {
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        self.try_command(&command).await.unwrap_or_else(|| panic!("Redis does not respond to {words:?}"))
    }

    /// Returns the ids of the drivers in `drivers:geo`.
    pub async fn geo_members(&self) -> Option<BTreeSet<String>> {
        let mut command = redis::cmd("ZRANGE");
        command.arg(self.key("drivers:geo")).arg(0).arg(-1);
        let members: Vec<String> = self.try_command(&command).await?;
        Some(members.iter().map(|m| m.strip_prefix("driver:").unwrap_or(m).to_owned()).collect())
    }

    /// Returns `drivers:status`: from driver id to `STATUS:epoch`.
    pub async fn statuses(&self) -> Option<BTreeMap<String, String>> {
        let mut command = redis::cmd("HGETALL");
        command.arg(self.key("drivers:status"));
        self.try_command(&command).await
    }

    /// Returns the remaining lifetime of `driver:online:<id>` in ms, or `None` without the key.
    pub async fn online_ttl_ms(&self, driver: &str) -> Option<i64> {
        let mut command = redis::cmd("PTTL");
        command.arg(self.key(&format!("driver:online:{driver}")));
        self.try_command::<i64>(&command).await.filter(|ms| *ms >= 0)
    }
}
