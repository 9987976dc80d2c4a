//! Hints reach other nodes over pub/sub.

use std::time::Duration;

use tokio::sync::mpsc::Receiver;
use tokio::time::timeout;

use super::server::TestRedis;
use super::*;
use crate::presence::PresenceSettings;

/// Publishes until the subscriber receives the hint. The subscriber may not be connected yet.
async fn heard(from: &Presence, driver: DriverId, receiver: &mut Receiver<DriverId>) {
    let hearing = async {
        loop {
            let _ = from.publish(driver).await;
            if let Ok(got) = timeout(Duration::from_millis(100), receiver.recv()).await {
                assert_eq!(got, Some(driver));
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
    let driver = DriverId::new();
    heard(&here, driver, &mut receiver).await;
    redis.kill();
    redis.start_again();
    while receiver.try_recv().is_ok() {}
    heard(&here, driver, &mut receiver).await;
}

#[tokio::test]
async fn hints_keep_to_their_prefix() {
    let redis = TestRedis::start();
    let east = Presence::new(PresenceSettings { key_prefix: "east:".to_owned(), ..redis.settings() }).unwrap();
    let mut plain = redis.presence().subscribe();
    let mut eastern = east.subscribe();
    let (here, there) = (DriverId::new(), DriverId::new());
    heard(&redis.presence(), here, &mut plain).await;
    heard(&east, there, &mut eastern).await;
    while let Ok(driver) = plain.try_recv() {
        assert_eq!(driver, here);
    }
}
