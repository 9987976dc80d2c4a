use super::*;
use serde_json::json;

const START: &str = concat!(
    r#""version":1,"eventId":"018f0000-0000-7000-8000-000000000001","sequence":2,"#,
    r#""timestamp":"2026-01-27T10:00:00.120Z","shop":"vendure","sellerOrderId":"4711","channelId":"2","#,
);
const FULL: &str = concat!(
    r#""orderCode":"T3XK","externalId":"x","metadata":{"a":{"y":[1,null],"z":2.5},"b":"é"},"#,
    r#""deliveryId":"018f0000-0000-7000-8000-000000000002","#,
);
const DRIVER: &str = concat!(
    r#""driverId":"018f0000-0000-7000-8000-000000000003","assignmentId":"018f0000-0000-7000-8000-000000000004","#,
    r#""driver":{"name":"Ravi","phone":"+91 2"},"#,
);

fn id<T: std::str::FromStr<Err = uuid::Error>>(last: u8) -> T {
    format!("018f0000-0000-7000-8000-00000000000{last}").parse().unwrap()
}

fn at() -> DateTime<Utc> {
    DateTime::from_timestamp_nanos(1_769_508_000_120_456_789)
}

fn event(details: OutboundDetails) -> OutboundEvent {
    OutboundEvent {
        event_id: id(1),
        sequence: 2,
        timestamp: at(),
        shop: ShopName::vendure(),
        seller_order_id: ExternalId::parse("4711").unwrap(),
        channel_id: ExternalId::parse("2").unwrap(),
        order_code: Some("T3XK".into()),
        external_id: ExternalId::parse("x").ok(),
        metadata: Some(json!({"b": "é", "a": {"z": 2.5, "y": [1, null]}})),
        delivery_id: id(2),
        attempt: 1,
        tracking_url: Some("https://t.example/1".into()),
        driver: Some(EventDriver { id: id(3), assignment_id: id(4), name: "Ravi".into(), phone: "+91 2".into() }),
        details,
    }
}

fn encoded(event: &OutboundEvent) -> String {
    assert_eq!(event.encode(), event.clone().encode());
    String::from_utf8(event.encode()).unwrap()
}

/// The body of a full event of that name and state, with the fields that are its own.
fn full(name: &str, status: &str, own: &str) -> String {
    format!(
        r#"{{"event":"{name}",{START}{FULL}"status":"{status}","attempt":1,"trackingUrl":"https://t.example/1",{DRIVER}{own}}}"#
    )
}

#[test]
fn every_event_in_the_contracts_words_and_order() {
    let (proof_url, reason) = (Some("https://p.example/1".to_owned()), "because".to_owned());
    for (details, name, status, own) in [
        (
            OutboundDetails::Assigned { assigned_at: at() },
            "DELIVERY_ASSIGNED_V1",
            "ASSIGNED",
            r#""assignedAt":"2026-01-27T10:00:00.120Z""#,
        ),
        (
            OutboundDetails::PickedUp { proof_url: proof_url.clone(), picked_up_at: at() },
            "DELIVERY_PICKED_UP_V1",
            "PICKED_UP",
            r#""pickupProofUrl":"https://p.example/1","pickedUpAt":"2026-01-27T10:00:00.120Z""#,
        ),
        (
            OutboundDetails::Delivered { proof_url, position: Position::new(12.5, -0.25).ok(), delivered_at: at() },
            "DELIVERY_DELIVERED_V1",
            "DELIVERED",
            r#""deliveryProofUrl":"https://p.example/1","deliveryLat":12.5,"deliveryLon":-0.25,"deliveredAt":"2026-01-27T10:00:00.120Z""#,
        ),
        (
            OutboundDetails::Failed { code: FailureCode::PickupFailed, reason: reason.clone(), occurred_at: at() },
            "DELIVERY_FAILED_V1",
            "FAILED",
            r#""failure":{"code":"PICKUP_FAILED","reason":"because","occurredAt":"2026-01-27T10:00:00.120Z"}"#,
        ),
        (
            OutboundDetails::Cancelled { reason, cancelled_at: at() },
            "DELIVERY_CANCELLED_V1",
            "CANCELLED",
            r#""reason":"because","cancelledAt":"2026-01-27T10:00:00.120Z""#,
        ),
    ] {
        assert_eq!(details.outbound_type().as_str(), name);
        assert_eq!(encoded(&event(details)), full(name, status, own));
    }
}

#[test]
fn what_is_absent_is_left_out() {
    let details = OutboundDetails::Unassigned { previous_driver_id: id(3), reason: "lost \"it\"\n".into() };
    let bare = OutboundEvent {
        order_code: None,
        external_id: None,
        metadata: None,
        tracking_url: None,
        driver: None,
        ..event(details)
    };
    assert_eq!(
        encoded(&bare),
        format!(
            r#"{{"event":"DELIVERY_UNASSIGNED_V1",{START}"deliveryId":"018f0000-0000-7000-8000-000000000002","status":"PENDING","attempt":1,"previousDriverId":"018f0000-0000-7000-8000-000000000003","reason":"lost \"it\"\n"}}"#
        )
    );
    let details = OutboundDetails::Delivered { proof_url: None, position: None, delivered_at: at() };
    let own = r#""deliveredAt":"2026-01-27T10:00:00.120Z""#;
    assert_eq!(encoded(&event(details)), full("DELIVERY_DELIVERED_V1", "DELIVERED", own));
}
