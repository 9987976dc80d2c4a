//! The health of this node, for people and load balancers. `/health` answers within two seconds, whatever hangs.

use std::time::{Duration, Instant};

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::http::idempotency::Answer;
use crate::http::problem::Problem;
use crate::http::routes::{get, resource};
use crate::presence::{Presence, RedisHealth, RedisState};
use crate::process::{Lifecycle, NodeInfo};
use crate::protocol::outbound::put;
use crate::store::outbox::{self, OutboxStats};
use crate::store::{Database, StoreError};

/// The time limit of each probe. Both run at once.
const PROBE_TIMEOUT: Duration = Duration::from_millis(1500);

/// Registers the routes.
pub fn configure(cfg: &mut web::ServiceConfig) {
    cfg.service(resource("/health", "GET").route(get().to(health)))
        .service(resource("/health/live", "GET").route(get().to(live)))
        .service(resource("/health/ready", "GET").route(get().to(ready)));
}

/// The process runs.
async fn live() -> HttpResponse {
    Answer::ok(json!({"status": "ok"})).into_response()
}

/// 503 only while the node starts or drains. An outage of PostgreSQL must not make balancers drop sockets.
async fn ready(lifecycle: web::Data<Lifecycle>) -> Result<HttpResponse, Problem> {
    if lifecycle.is_ready() {
        Ok(Answer::ok(json!({"status": "ok"})).into_response())
    } else {
        Err(Problem::not_ready())
    }
}

async fn health(
    node: web::Data<NodeInfo>,
    database: web::Data<Database>,
    presence: web::Data<Presence>,
) -> HttpResponse {
    let (database, redis) = tokio::join!(probe_database(&database), probe_redis(&presence));
    let (status, mut body) = report(database, redis);
    body["version"] = json!(env!("CARGO_PKG_VERSION"));
    body["node"] = json!(node.node_id);
    body["listen"] = json!(node.http_addr.to_string());
    body["metricsListen"] = json!(node.metrics_addr.to_string());
    Answer { status, location: None, body }.into_response()
}

/// The outbox statistics and how long they took, in milliseconds. `None` when PostgreSQL does not answer or accepts no
/// writes.
async fn probe_database(database: &Database) -> Option<(OutboxStats, f64)> {
    let started = Instant::now();
    let counting = database.transact(|conn| Box::pin(async move { outbox::stats(conn).await }));
    let probing = async { tokio::try_join!(counting, database.prove_writable()) };
    let probed: Result<(OutboxStats, ()), StoreError> = timeout(PROBE_TIMEOUT, probing).await.ok()?;
    let counted = probed.map(|(stats, ())| stats);
    match counted {
        Ok(stats) => Some((stats, started.elapsed().as_secs_f64() * 1000.0)),
        Err(error) => {
            tracing::debug!(error = %error, "PostgreSQL did not pass a health probe");
            None
        }
    }
}

async fn probe_redis(presence: &Presence) -> Option<RedisHealth> {
    timeout(PROBE_TIMEOUT, presence.health()).await.ok()
}

/// `down` without PostgreSQL, `degraded` without a trusted Redis. Dead letters do not degrade the node.
fn report(database: Option<(OutboxStats, f64)>, redis: Option<RedisHealth>) -> (StatusCode, Value) {
    let redis_up = redis.as_ref().is_some_and(|redis| redis.state == RedisState::Up);
    let warm = redis.as_ref().is_some_and(|redis| redis.warm);
    let (code, status) = match (&database, redis_up && warm) {
        (None, _) => (StatusCode::SERVICE_UNAVAILABLE, "down"),
        (Some(_), false) => (StatusCode::OK, "degraded"),
        (Some(_), true) => (StatusCode::OK, "ok"),
    };
    let word = |up: bool| if up { "up" } else { "down" };
    let mut body = json!({
        "status": status,
        "database": {"status": word(database.is_some())},
        "redis": {"status": word(redis_up), "warm": warm},
    });
    put(&mut body["redis"], "latencyMs", redis.and_then(|redis| redis.latency_ms).map(in_tenths));
    if let Some((outbox, latency_ms)) = database {
        body["database"]["latencyMs"] = json!(in_tenths(latency_ms));
        body["outbox"] = json!({"pending": outbox.pending, "dead": outbox.dead});
        put(&mut body["outbox"], "oldestPendingMs", outbox.oldest_pending_ms.map(|ms| ms.max(0)));
    }
    (code, body)
}

fn in_tenths(ms: f64) -> f64 {
    (ms * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redis(state: RedisState, warm: bool) -> Option<RedisHealth> {
        Some(RedisHealth { state, warm, latency_ms: Some(0.25) })
    }

    #[test]
    fn postgresql_decides_and_redis_degrades() {
        let full = Some((OutboxStats { pending: 3, dead: 7, oldest_pending_ms: Some(12) }, 1.0));
        let (code, body) = report(full, redis(RedisState::Up, true));
        assert_eq!((code, &body["status"]), (StatusCode::OK, &json!("ok")));
        assert_eq!(body["outbox"], json!({"pending": 3, "dead": 7, "oldestPendingMs": 12}));
        for out in [None, redis(RedisState::Down, false), redis(RedisState::Up, false)] {
            let (code, body) = report(full, out);
            assert_eq!((code, &body["status"]), (StatusCode::OK, &json!("degraded")));
        }
        let (code, body) = report(None, redis(RedisState::Up, true));
        assert_eq!((code, &body["status"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("down")));
        assert!(body.get("outbox").is_none());
    }
}
