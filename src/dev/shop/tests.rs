use serde_json::json;

use super::*;

fn secret(byte: u8) -> String {
    format!("whsec_{}", BASE64_STANDARD.encode([byte; 32]))
}

fn event(id: &str, sequence: u64) -> String {
    json!({"event": "DELIVERY_ASSIGNED_V1", "version": 1, "eventId": id, "sequence": sequence, "timestamp": "…",
        "sellerOrderId": "4711", "deliveryId": "d-1", "status": "ASSIGNED"})
    .to_string()
}

/// Posts as the sender does. An independent library signs the request.
async fn post(shop: &ReceivingShop, secret: &str, at: i64, id: &str, body: &str) -> reqwest::Result<reqwest::Response> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let signature = standardwebhooks::Webhook::new(secret).unwrap().sign(id, at, body.as_bytes()).unwrap();
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_millis(500)).build()?;
    let request = client.post(shop.url()).header("webhook-id", id).header("webhook-timestamp", at);
    request.header("webhook-signature", format!("v1,AAAA {signature}")).body(body.to_owned()).send().await
}

async fn send(shop: &ReceivingShop, id: &str, sequence: u64) -> u16 {
    let body = event(id, sequence);
    post(shop, &secret(2), Utc::now().timestamp(), id, &body).await.map_or(0, |answer| answer.status().as_u16())
}

#[tokio::test]
async fn signed_events_are_accepted_and_repeats_and_disorder_are_counted() {
    let shop = ReceivingShop::start(&format!("{},{}", secret(1), secret(2))).await.unwrap();
    let now = Utc::now().timestamp();
    let body = event("e-0", 1);
    for (secret, at, id) in [(secret(3), now, "e-0"), (secret(1), now - 400, "e-0")] {
        assert_eq!(post(&shop, &secret, at, id, &body).await.unwrap().status(), 401);
    }
    assert_eq!(post(&shop, &secret(1), now, "another id", &body).await.unwrap().status(), 400);
    for (id, sequence) in [("e-1", 2), ("e-1", 2), ("e-3", 7), ("e-2", 5)] {
        assert_eq!(send(&shop, id, sequence).await, 200);
    }
    assert_eq!(send(&shop, "e-3", 8).await, 200);
    let expected = ShopCounts {
        requests: 8,
        accepted: 5,
        duplicates: 2,
        order_violations: 1,
        changed_bodies: 1,
        bad_signatures: 2,
        unreadable: 1,
    };
    assert_eq!(shop.counts(), expected);
    let events = shop.events();
    assert_eq!(events.iter().map(|event| event.sequence).collect::<Vec<_>>(), [2, 2, 7, 5, 8]);
    assert!(events[0].accepted() && events[0].raw == event("e-1", 2));
    shop.clear();
    assert_eq!((shop.counts(), shop.events().len()), (ShopCounts::default(), 0));
}

#[tokio::test]
async fn the_shop_fails_as_configured() {
    let shop = ReceivingShop::start(&secret(2)).await.unwrap();
    shop.set_behaviour(Behaviour::FailFirst(2));
    let mut answers = Vec::new();
    for _ in 0..3 {
        answers.push(send(&shop, "e-1", 1).await);
    }
    shop.set_behaviour(Behaviour::Status(410));
    answers.push(send(&shop, "e-2", 2).await);
    shop.set_behaviour(Behaviour::Hang);
    answers.push(send(&shop, "e-2", 2).await);
    shop.set_behaviour(Behaviour::Slow(Duration::from_millis(1)));
    answers.push(send(&shop, "e-2", 2).await);
    assert_eq!(answers, [500, 500, 200, 410, 0, 200]);
    assert_eq!(shop.counts().duplicates, 0, "the repeat of a refused event is not a duplicate");
    shop.set_behaviour(Behaviour::RetryAfter(7));
    let body = event("e-3", 3);
    let answer = post(&shop, &secret(2), Utc::now().timestamp(), "e-3", &body).await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.headers()["retry-after"].to_str().unwrap()), (503, "7"));
}

#[tokio::test]
async fn waiting_for_events_ends_at_the_limit() {
    let shop = ReceivingShop::start(&secret(2)).await.unwrap();
    let two = |events: &[ShopEvent]| events.iter().filter(|event| event.accepted()).count() >= 2;
    assert!(shop.wait_for(two, Duration::from_millis(20)).await.is_none());
    let (waited, ()) = tokio::join!(shop.wait_for(two, Duration::from_secs(10)), async {
        send(&shop, "e-1", 1).await;
        send(&shop, "e-2", 2).await;
    });
    assert_eq!(waited.unwrap().len(), 2);
    let address = shop.address();
    shop.stop().await;
    ReceivingShop::start_at(&secret(2), address).await.expect("the port is free again");
    assert!(matches!(ReceivingShop::start("plain").await, Err(ShopError::BadSecret)));
}
