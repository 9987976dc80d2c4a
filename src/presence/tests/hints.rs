//! Hints over pub/sub.

use std::time::Duration;

use tokio::sync::mpsc::Receiver;
use tokio::time::timeout;

use super::server::TestRedis;
use super::*;
use crate::presence::{Hint, PresenceSettings};

/// Publishes until the subscriber, who may not be there yet, hears it.
async fn heard(from: &Presence, hint: Hint, receiver: &mut Receiver<Hint>) {
    let hearing = async {
        loop {
            let _ = from.publish(&hint).await;
            if let Ok(got) = timeout(Duration::from_millis(100), receiver.recv()).await {
                assert_eq!(got, Some(hint));
                return;
            }
        }
    };
    timeout(Duration::from_secs(20), hearing).await.expect("the hint is heard");
}

#[tokio::test]
async fn hints_reach_every_node_and_again_after_a_restart() {
    let mut redis = TestRedis::start();
    let (here, there) = (redis.presence(), redis.presence());
    let mut receiver = there.subscribe();
    let driver_id = DriverId::new();
    heard(&here, Hint::Session { driver_id }, &mut receiver).await;
    redis.kill();
    redis.start_again();
    while receiver.try_recv().is_ok() {}
    heard(&here, Hint::Commands { driver_id }, &mut receiver).await;
}

#[tokio::test]
async fn hints_keep_to_their_prefix() {
    let redis = TestRedis::start();
    let east = Presence::new(PresenceSettings { key_prefix: "east:".to_owned(), ..redis.settings() }).unwrap();
    let mut plain = redis.presence().subscribe();
    let mut eastern = east.subscribe();
    let driver_id = DriverId::new();
    heard(&redis.presence(), Hint::Commands { driver_id }, &mut plain).await;
    heard(&east, Hint::Session { driver_id }, &mut eastern).await;
    while let Ok(hint) = plain.try_recv() {
        assert_eq!(hint, Hint::Commands { driver_id });
    }
}
