//! The frames of the driver's WebSocket, as a client reads them. Unknown frames and fields are ignored.

use serde::Deserialize;

use crate::domain::position::Position;

/// A frame from the service.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all_fields = "camelCase")]
pub(super) enum Incoming {
    #[serde(rename = "welcome")]
    Welcome {
        driver: WelcomeDriver,
        #[serde(default)]
        deliveries: Vec<Delivery>,
        heartbeat_interval_ms: u64,
        ttl_ms: u64,
    },
    #[serde(rename = "ack")]
    Ack { seq: u64 },
    #[serde(rename = "ok")]
    Ok { r#ref: Option<String>, on_duty: Option<bool> },
    #[serde(rename = "error")]
    Error {
        r#ref: Option<String>,
        seq: Option<u64>,
        code: String,
        #[serde(default)]
        retryable: bool,
        retry_after_ms: Option<u64>,
    },
    #[serde(rename = "assignment")]
    Assignment { message_id: String, delivery: Delivery },
    #[serde(rename = "assignment.cancelled")]
    AssignmentCancelled { message_id: String, delivery_id: String, assignment_id: String },
    #[serde(rename = "delivery")]
    Delivery { message_id: String, delivery: Delivery },
    #[serde(rename = "status")]
    Status { on_duty: bool },
    #[serde(rename = "config")]
    Config { heartbeat_interval_ms: u64, ttl_ms: u64 },
    #[serde(rename = "reconnect")]
    Reconnect { after_ms: u64 },
    #[serde(other)]
    Unknown,
}

/// The fields of the driver in `welcome` that a client needs.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct WelcomeDriver {
    pub(super) on_duty: bool,
    pub(super) capacity: Option<usize>,
}

/// A delivery in `welcome`, `assignment` and `delivery`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Delivery {
    pub(super) id: String,
    /// Absent in `delivery` once the driver no longer has the delivery.
    pub(super) assignment_id: Option<String>,
    pub(super) status: Stage,
    pub(super) seller_order_id: String,
    pub(super) pickup: Position,
    pub(super) drop: Position,
}

/// The progress of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(super) enum Stage {
    Assigned,
    PickedUp,
    InTransit,
    Delivered,
    /// FAILED, CANCELLED, PENDING, or a status of a later version. This driver has nothing to do for it.
    #[serde(other)]
    NotOurs,
}

impl Stage {
    /// Returns the wire name of a stage that a driver reports.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Assigned => "ASSIGNED",
            Self::PickedUp => "PICKED_UP",
            Self::InTransit => "IN_TRANSIT",
            Self::Delivered => "DELIVERED",
            Self::NotOurs => "FAILED",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Incoming {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn frames_of_the_contract_are_parsed_and_unknown_ones_are_tolerated() {
        let welcome = read(
            r#"{"type":"welcome","sessionId":"s","driver":{"id":"d","name":"n","status":"OFFLINE","onDuty":false,"capacity":1},
               "deliveries":[{"id":"x","assignmentId":"a","status":"PICKED_UP","sellerOrderId":"1","pickup":{"lat":1,"lon":2,"address":"…"},
               "drop":{"lat":3,"lon":4}}],"offers":[],"heartbeatIntervalMs":5000,"ttlMs":30000,"serverTime":"2026-01-27T10:00:00Z"}"#,
        );
        let Incoming::Welcome { driver, deliveries, heartbeat_interval_ms: 5000, ttl_ms: 30000 } = welcome else {
            panic!("{welcome:?}")
        };
        assert!(!driver.on_duty && deliveries[0].status == Stage::PickedUp && deliveries[0].pickup.lon() == 2.0);
        assert!(matches!(read(r#"{"type":"offer","offerId":"o","delivery":{}}"#), Incoming::Unknown));
        assert!(matches!(read(r#"{"type":"ack","seq":7,"more":[]}"#), Incoming::Ack { seq: 7 }));
        let refused = read(r#"{"type":"error","seq":3,"code":"fix_too_fast","message":"…","retryable":false}"#);
        assert!(matches!(refused, Incoming::Error { seq: Some(3), r#ref: None, .. }));
        let ok = read(r#"{"type":"ok","ref":"s-1","status":"BUSY","onDuty":true}"#);
        assert!(matches!(ok, Incoming::Ok { on_duty: Some(true), .. }));
    }
}
