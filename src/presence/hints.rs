//! Hints between nodes over pub/sub: wake-ups and identities, never the truth. A lost one costs latency, because every
//! receiver also looks into PostgreSQL by itself.

use std::str::FromStr;
use std::time::Duration;

use futures_util::StreamExt;
use redis::aio::PubSub;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use super::link::CONNECT_TIMEOUT;
use super::{Outage, Presence, PresenceError};
use crate::domain::ids::DriverId;

/// Hints that may wait for their receiver; more are dropped.
const QUEUE: usize = 1_024;

/// A silent connection is tested this often: a cut cable is not reported by anything.
const PING_EVERY: Duration = Duration::from_secs(5);

const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const MAX_BACKOFF: Duration = Duration::from_secs(3);

/// What a hint looks like, before the driver's id.
const PREFIX: &str = "driver:";

/// `None` for a hint of another version.
fn decode(text: &[u8]) -> Option<DriverId> {
    DriverId::from_str(std::str::from_utf8(text).ok()?.strip_prefix(PREFIX)?).ok()
}

impl Presence {
    /// Tells every node, this one too, that there is something to tell this driver's session.
    pub async fn publish(&self, driver: DriverId) -> Result<(), PresenceError> {
        let mut command = redis::cmd("PUBLISH");
        command.arg(&self.inner.keys.hints).arg(format!("{PREFIX}{driver}"));
        self.inner.link.batch("publish", vec![command]).await.map(drop)
    }

    /// The drivers whom any node names, from now until the receiver is dropped, over a connection that is made again for ever.
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

    /// Listens until the connection breaks or nobody wants to hear.
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
