//! What Redis holds, read past the service.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use redis::FromRedisValue;

/// One test's keys in a Redis.
#[derive(Clone, Debug)]
pub struct Redis {
    url: String,
    prefix: String,
}

impl Redis {
    pub fn new(url: &str, prefix: &str) -> Self {
        Self { url: url.to_owned(), prefix: prefix.to_owned() }
    }

    /// The name of a key as the server has it.
    pub fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Runs one command; `None` when Redis does not answer within two seconds.
    pub async fn ask<T: FromRedisValue>(&self, command: &redis::Cmd) -> Option<T> {
        let work = async {
            let client = redis::Client::open(self.url.as_str()).ok()?;
            let mut connection = client.get_multiplexed_async_connection().await.ok()?;
            command.query_async(&mut connection).await.ok()
        };
        tokio::time::timeout(Duration::from_secs(2), work).await.ok()?
    }

    /// Runs one command, given word by word, that Redis must answer.
    pub async fn say<T: FromRedisValue>(&self, words: &[&str]) -> T {
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        self.ask(&command).await.unwrap_or_else(|| panic!("no answer to {words:?}"))
    }

    /// The drivers in `drivers:geo`, by id.
    pub async fn findable(&self) -> Option<BTreeSet<String>> {
        let mut command = redis::cmd("ZRANGE");
        command.arg(self.key("drivers:geo")).arg(0).arg(-1);
        let members: Vec<String> = self.ask(&command).await?;
        Some(members.iter().map(|m| m.strip_prefix("driver:").unwrap_or(m).to_owned()).collect())
    }

    /// `drivers:status`: id → `STATUS:epoch`.
    pub async fn statuses(&self) -> Option<BTreeMap<String, String>> {
        let mut command = redis::cmd("HGETALL");
        command.arg(self.key("drivers:status"));
        self.ask(&command).await
    }

    /// The milliseconds that `driver:online:<id>` still has; `None` without the key.
    pub async fn online_ttl_ms(&self, driver: &str) -> Option<i64> {
        let mut command = redis::cmd("PTTL");
        command.arg(self.key(&format!("driver:online:{driver}")));
        self.ask::<i64>(&command).await.filter(|ms| *ms >= 0)
    }
}
