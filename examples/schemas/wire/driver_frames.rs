//! Frames from drivers.

use super::*;

/// Both coordinates or neither, and with them the time of the fix.
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

/// Both coordinates or neither; FAILED with its failure.
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

/// What a driver wishes.
#[derive(JsonSchema)]
#[schemars(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Wish {
    Available,
    Offline,
}

/// How a delivery goes.
#[derive(JsonSchema)]
#[schemars(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Step {
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

/// Why a delivery failed, by its driver.
#[derive(JsonSchema)]
pub struct DriversFailure {
    code: DriversFailureCode,
    reason: Option<Reason>,
}

/// A fix of a batch. Whatever is wrong with one refuses it alone, so that a batch is read whatever its fixes are; this is what
/// is taken.
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
    /// Where I am; without coordinates: still alive.
    #[schemars(rename = "heartbeat", transform = whole_fix)]
    Heartbeat {
        r#ref: Option<Reference>,
        /// Rises within a session.
        seq: i64,
        fix_time: Option<Moment>,
        lat: Option<Latitude>,
        lon: Option<Longitude>,
        accuracy_m: Option<f64>,
        /// Negative: absent; as are the two below.
        speed_mps: Option<f64>,
        heading_deg: Option<f64>,
        battery_pct: Option<f64>,
    },
    /// Fixes kept while out of coverage.
    #[schemars(rename = "batch")]
    Batch {
        r#ref: Option<Reference>,
        #[schemars(length(max = MAX_BATCH_FIXES))]
        fixes: Vec<BatchFix>,
    },
    /// The wish to work.
    #[schemars(rename = "status")]
    Status { r#ref: Option<Reference>, status: Wish },
    /// An answer to an offer; there are none yet.
    #[schemars(rename = "offer.answer")]
    OfferAnswer { r#ref: Option<Reference>, offer_id: OfferId, answer: OfferAnswer, reason: Option<Reason> },
    /// How a delivery goes.
    #[schemars(rename = "delivery.update", transform = whole_update)]
    DeliveryUpdate {
        r#ref: Option<Reference>,
        delivery_id: Id,
        assignment_id: Id,
        status: Step,
        occurred_at: Option<Moment>,
        lat: Option<Latitude>,
        lon: Option<Longitude>,
        proof_url: Option<ProofLink>,
        failure: Option<DriversFailure>,
    },
    /// A command arrived.
    #[schemars(rename = "ack")]
    Ack { r#ref: Option<Reference>, message_id: Id },
}
