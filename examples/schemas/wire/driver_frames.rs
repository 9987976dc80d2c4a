//! The frames that drivers send.

use super::*;

/// Requires both coordinates with the time of the fix, or no coordinates.
fn whole_fix(schema: &mut Schema) {
    schema.insert(
        "anyOf".to_owned(),
        serde_json::json!([
            {"properties": {"lat": {"type": "number"}, "lon": {"type": "number"}, "fixTime": {"type": "string"}},
             "required": ["lat", "lon", "fixTime"]},
            {"properties": {"lat": {"type": "null"}, "lon": {"type": "null"}}},
        ]),
    );
}

/// Requires both coordinates or neither, and a failure with FAILED.
fn whole_update(schema: &mut Schema) {
    schema.insert(
        "allOf".to_owned(),
        serde_json::json!([
            {"anyOf": [
                {"properties": {"lat": {"type": "number"}, "lon": {"type": "number"}}, "required": ["lat", "lon"]},
                {"properties": {"lat": {"type": "null"}, "lon": {"type": "null"}}},
            ]},
            {"if": {"properties": {"status": {"const": "FAILED"}}},
             "then": {"properties": {"failure": {"type": "object"}}, "required": ["failure"]}},
        ]),
    );
}

/// The requested duty of a driver.
#[derive(JsonSchema)]
#[schemars(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum RequestedDuty {
    Available,
    Offline,
}

/// The progress of a delivery, as its driver reports it.
#[derive(JsonSchema)]
#[schemars(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum DriverUpdateStatus {
    PickedUp,
    InTransit,
    Delivered,
    Failed,
    Rejected,
}

/// An answer to an offer.
#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
pub enum OfferAnswer {
    Accept,
    Decline,
}

/// The codes that a driver may give with FAILED.
#[derive(JsonSchema)]
#[schemars(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum DriversFailureCode {
    PickupFailed,
    DeliveryFailed,
    DriverRejected,
}

/// The reason for a failed delivery, as its driver reports it.
#[derive(JsonSchema)]
pub struct DriversFailure {
    code: DriversFailureCode,
    reason: Option<Reason>,
}

/// A fix of a batch. An invalid fix is refused alone, and the other fixes of the batch are accepted. This schema describes a
/// valid fix.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
pub struct BatchFix {
    fix_time: Moment,
    lat: Latitude,
    lon: Longitude,
    accuracy_m: Option<f64>,
    speed_mps: Option<f64>,
    heading_deg: Option<f64>,
    battery_pct: Option<f64>,
}

/// A frame from a driver to the service.
#[derive(JsonSchema)]
#[schemars(tag = "type", rename_all_fields = "camelCase")]
pub enum DriverFrame {
    /// The position of the driver. Without coordinates: a sign of life.
    #[schemars(rename = "heartbeat", transform = whole_fix)]
    Heartbeat {
        r#ref: Option<Reference>,
        /// The sequence number. It rises within a session.
        seq: i64,
        fix_time: Option<Moment>,
        lat: Option<Latitude>,
        lon: Option<Longitude>,
        accuracy_m: Option<f64>,
        /// A negative value means absent, here and in the next two fields.
        speed_mps: Option<f64>,
        heading_deg: Option<f64>,
        battery_pct: Option<f64>,
    },
    /// Fixes that were stored while there was no connection.
    #[schemars(rename = "batch")]
    Batch {
        r#ref: Option<Reference>,
        #[schemars(length(max = MAX_BATCH_FIXES))]
        fixes: Vec<BatchFix>,
    },
    /// Requests a duty.
    #[schemars(rename = "status")]
    Status { r#ref: Option<Reference>, status: RequestedDuty },
    /// An answer to an offer. There are no offers yet.
    #[schemars(rename = "offer.answer")]
    OfferAnswer { r#ref: Option<Reference>, offer_id: OfferId, answer: OfferAnswer, reason: Option<Reason> },
    /// Reports the progress of a delivery.
    #[schemars(rename = "delivery.update", transform = whole_update)]
    DeliveryUpdate {
        r#ref: Option<Reference>,
        delivery_id: Id,
        assignment_id: Id,
        status: DriverUpdateStatus,
        occurred_at: Option<Moment>,
        lat: Option<Latitude>,
        lon: Option<Longitude>,
        proof_url: Option<ProofLink>,
        failure: Option<DriversFailure>,
    },
    /// Acknowledges a command.
    #[schemars(rename = "ack")]
    Ack { r#ref: Option<Reference>, message_id: Id },
}
