//! Sends hints between nodes over Redis pub/sub. A hint names a driver whose session has work to do.
//!
//! Invariants: a hint carries no state, only a driver id. A lost hint costs latency and nothing else, because every receiver
//! also polls PostgreSQL.
//!
//! Must not: be the only way by which a session learns of a change.

use std::str::FromStr;
use std::time::Duration;

use futures_util::StreamExt;
use redis::aio::PubSub;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use super::link::CONNECT_TIMEOUT;
use super::{Outage, Presence, PresenceError};
use crate::domain::ids::DriverId;

/// Hints that may wait for their receiver. Further hints are dropped and counted.
const QUEUE: usize = 1_024;

/// How often an idle connection is tested. A cut network link causes no error by itself.
const PING_EVERY: Duration = Duration::from_secs(5);

const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const MAX_BACKOFF: Duration = Duration::from_secs(3);

/// The part of a hint's text before the driver's id.
const PREFIX: &str = "driver:";

/// Returns `None` for a hint of another version.
fn decode(text: &[u8]) -> Option<DriverId> {
    DriverId::from_str(std::str::from_utf8(text).ok()?.strip_prefix(PREFIX)?).ok()
}

impl Presence {
    /// Publishes to every node, this one included, that this driver's session has something to send.
    pub async fn publish(&self, driver: DriverId) -> Result<(), PresenceError> {
        let mut command = redis::cmd("PUBLISH");
        command.arg(&self.inner.keys.hints).arg(format!("{PREFIX}{driver}"));
        self.inner.link.batch("publish", vec![command]).await.map(drop)
    }

    /// Receives the drivers that any node publishes, until the receiver is dropped. A lost connection is always opened again.
    pub fn subscribe(&self) -> mpsc::Receiver<DriverId> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let presence = self.clone();
        self.inner.link.runtime().spawn(async move {
            let mut backoff = FIRST_BACKOFF;
            while !sender.is_closed() {
                let listened_from = Instant::now();
                if let Err(outage) = presence.listen(&sender).await {
                    tracing::debug!(error = %outage, "not listening to hints");
                }
                if listened_from.elapsed() > PING_EVERY {
                    backoff = FIRST_BACKOFF;
                }
                let jittered = backoff.mul_f64(rand::random_range(0.5..1.0));
                let _ = timeout(jittered, sender.closed()).await;
                backoff = (backoff * 2).min(MAX_BACKOFF);
            }
        });
        receiver
    }

    /// Listens until the connection breaks or the receiver is dropped.
    async fn listen(&self, sender: &mpsc::Sender<DriverId>) -> Result<(), Outage> {
        let connecting = async {
            let mut connection: PubSub = self.inner.link.client().get_async_pubsub().await.map_err(Outage::Connect)?;
            connection.subscribe(&self.inner.keys.hints).await?;
            Ok::<_, Outage>(connection)
        };
        let connection =
            timeout(CONNECT_TIMEOUT, connecting).await.map_err(|_| Outage::TimedOut(CONNECT_TIMEOUT))??;
        let (mut control, mut messages) = connection.split();
        let mut pings = interval_at(Instant::now() + PING_EVERY, PING_EVERY);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                message = messages.next() => match message {
                    Some(message) => forward(sender, message.get_payload_bytes()),
                    None => return Ok(()),
                },
                _ = pings.tick() => {
                    let pong = timeout(CONNECT_TIMEOUT, control.ping::<redis::Value>()).await;
                    pong.map_err(|_| Outage::TimedOut(CONNECT_TIMEOUT))??;
                }
                () = sender.closed() => return Ok(()),
            }
        }
    }
}

fn forward(sender: &mpsc::Sender<DriverId>, payload: &[u8]) {
    let dropped = decode(payload).is_some_and(|driver| sender.try_send(driver).is_err());
    if dropped {
        metrics::counter!("driver_tracker_redis_hints_dropped_total").increment(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_names_a_driver_and_others_are_borne() {
        let driver = DriverId::new();
        assert_eq!(decode(format!("{PREFIX}{driver}").as_bytes()), Some(driver));
        for text in ["", "driver", "driver:7", "relay", "weather:rain"] {
            assert_eq!(decode(text.as_bytes()), None, "{text}");
        }
    }
}
