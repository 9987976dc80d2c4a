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

/// A silent connection is tested this often: a cut cable tells nobody.
const PING_EVERY: Duration = Duration::from_secs(5);

const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const MAX_BACKOFF: Duration = Duration::from_secs(3);

/// Where to look.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Hint {
    /// There is a command for this driver.
    Commands {
        /// Whose commands.
        driver_id: DriverId,
    },
    /// This driver's session was replaced, or their token revoked.
    Session {
        /// Whose session.
        driver_id: DriverId,
    },
}

impl Hint {
    fn encode(self) -> String {
        match self {
            Self::Commands { driver_id } => format!("commands:{driver_id}"),
            Self::Session { driver_id } => format!("session:{driver_id}"),
        }
    }

    /// `None` for a hint of a later version.
    fn decode(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        match text.split_once(':') {
            Some(("commands", id)) => Some(Self::Commands { driver_id: DriverId::from_str(id).ok()? }),
            Some(("session", id)) => Some(Self::Session { driver_id: DriverId::from_str(id).ok()? }),
            _ => None,
        }
    }
}

impl Presence {
    /// Tells every node, this one too.
    pub async fn publish(&self, hint: &Hint) -> Result<(), PresenceError> {
        let mut command = redis::cmd("PUBLISH");
        command.arg(&self.inner.keys.hints).arg(hint.encode());
        self.inner.link.batch("publish", vec![command]).await.map(drop)
    }

    /// The hints of every node, from now until the receiver is dropped, over a connection that is made again for ever.
    pub fn subscribe(&self) -> mpsc::Receiver<Hint> {
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
    async fn listen(&self, sender: &mpsc::Sender<Hint>) -> Result<(), Outage> {
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

fn forward(sender: &mpsc::Sender<Hint>, payload: &[u8]) {
    let dropped = Hint::decode(payload).is_some_and(|hint| sender.try_send(hint).is_err());
    if dropped {
        metrics::counter!("driver_tracker_redis_hints_dropped_total").increment(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_are_read_back_and_unknown_ones_borne() {
        let driver_id = DriverId::new();
        for hint in [Hint::Commands { driver_id }, Hint::Session { driver_id }] {
            assert_eq!(Hint::decode(hint.encode().as_bytes()), Some(hint));
        }
        for text in ["", "commands", "commands:7", "relay", "weather:rain"] {
            assert_eq!(Hint::decode(text.as_bytes()), None, "{text}");
        }
    }
}
