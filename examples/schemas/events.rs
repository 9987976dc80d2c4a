//! Builds examples of events with the encoder of the service.

use chrono::{DateTime, Utc};
use driver_tracker::domain::delivery::FailureCode;
use driver_tracker::domain::ids::{AssignmentId, DeliveryId, DriverId, EventId, ExternalId, ShopName};
use driver_tracker::domain::position::Position;
use driver_tracker::webhooks::event::{EventDriver, OutboundDetails, OutboundEvent};
use serde_json::{Value, json};
use uuid::Uuid;

/// Returns every example with its file name.
pub fn all() -> Vec<(String, String)> {
    let complete = details().into_iter().map(|(name, details, has_driver)| (name, event(details, has_driver, true)));
    let bare = OutboundDetails::PickedUp { proof_url: None, picked_up_at: at() };
    complete
        .chain([("least", event(bare, true, false))])
        .map(|(name, event)| {
            let value: Value = serde_json::from_slice(&event.encode()).expect("an event is JSON");
            (format!("delivery-event.{name}.json"), format!("{value:#}\n"))
        })
        .collect()
}

fn at() -> DateTime<Utc> {
    DateTime::from_timestamp_millis(1_769_508_000_123).expect("a time")
}

fn id(last: u128) -> Uuid {
    Uuid::from_u128(0x0190_f5a2_7c1e_7b3a_9d42_5f0c_6b1e_2a00 + last)
}

/// Returns each kind of event: its name, its details, and whether it names a driver.
fn details() -> Vec<(&'static str, OutboundDetails, bool)> {
    let proof = || Some("https://cdn.example.com/p/1.jpg".to_owned());
    let position = Position::new(12.9352, 77.6245).ok();
    let (code, why) = (FailureCode::DeliveryFailed, "nobody there".to_owned());
    let cancelled = "the customer changed their mind".to_owned();
    let unassigned = OutboundDetails::Unassigned { previous_driver_id: DriverId(id(4)), reason: "offline".to_owned() };
    vec![
        ("assigned", OutboundDetails::Assigned { assigned_at: at() }, true),
        ("unassigned", unassigned, false),
        ("picked-up", OutboundDetails::PickedUp { proof_url: proof(), picked_up_at: at() }, true),
        ("delivered", OutboundDetails::Delivered { proof_url: proof(), position, delivered_at: at() }, true),
        ("failed", OutboundDetails::Failed { code, reason: why, occurred_at: at() }, true),
        ("cancelled", OutboundDetails::Cancelled { reason: cancelled, cancelled_at: at() }, false),
    ]
}

fn event(details: OutboundDetails, has_driver: bool, whole: bool) -> OutboundEvent {
    let text = |text: &str| ExternalId::parse(text).expect("an id");
    let driver = EventDriver {
        id: DriverId(id(4)),
        assignment_id: AssignmentId(id(5)),
        name: "Asha".to_owned(),
        phone: "+91 80 5550 1000".to_owned(),
    };
    OutboundEvent {
        event_id: EventId(id(1)),
        sequence: 2,
        timestamp: at(),
        shop: ShopName::vendure(),
        seller_order_id: text("4711"),
        channel_id: text("2"),
        order_code: whole.then(|| "T3XKQ2".to_owned()),
        external_id: whole.then(|| text("T3XKQ2")),
        metadata: whole.then(|| json!({"gift": true})),
        delivery_id: DeliveryId(id(2)),
        attempt: 1,
        tracking_url: whole.then(|| "https://tracker.example.com/track/x".to_owned()),
        driver: has_driver.then_some(driver),
        details,
    }
}
