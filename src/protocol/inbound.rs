//! Parses the frames of drivers. No other module reads their raw JSON.

use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::MAX_BATCH_FIXES;
use crate::dispatch::progress::{DriverUpdate, UpdateDetails};
use crate::domain::delivery::FailureCode;
use crate::domain::ids::{AssignmentId, DeliveryId, MessageId};
use crate::domain::json;
use crate::domain::moment::parse_moment;
use crate::domain::plausibility::{FixRefusal, FixRules, judge_alone};
use crate::domain::position::{Fix, Position, PositionError};

/// The longest `ref`, in characters.
pub const MAX_REF_CHARS: usize = 64;
/// The longest `proofUrl`, in characters. Object stores sign their links with long parameters.
pub const MAX_URL_CHARS: usize = 8192;
/// The longest reason, in characters.
pub const MAX_REASON_CHARS: usize = 1000;

/// What is wrong with a frame, for the answer to the driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameError {
    /// The frame's own `ref`, if it could be read.
    pub reference: Option<String>,
    /// The heartbeat's `seq`, if it could be read.
    pub seq: Option<i64>,
    /// The subject of the frame, if it could be read.
    pub subject: Option<Subject>,
    /// A stable code, listed in `docs/protocol.md`.
    pub code: &'static str,
    /// The explanation, which names the field.
    pub message: String,
}

/// The subject of a frame. An error names it, so that an app identifies the frame without a `ref`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// A delivery, by `deliveryId`.
    Delivery(DeliveryId),
}

/// What identifies a frame in its answer: `ref`, `seq` and subject, as far as they can be read.
pub type FrameName = (Option<String>, Option<i64>, Option<Subject>);

/// A frame from a driver.
#[derive(Debug, Clone)]
pub struct Frame {
    /// Returned in the answer.
    pub reference: Option<String>,
    /// The content.
    pub body: FrameBody,
}

impl Frame {
    /// The subject of the frame, besides its driver.
    pub fn subject(&self) -> Option<Subject> {
        match self.body {
            FrameBody::DeliveryUpdate { delivery_id, .. } => Some(Subject::Delivery(delivery_id)),
            _ => None,
        }
    }
}

/// The content of a frame.
#[derive(Debug, Clone)]
pub enum FrameBody {
    /// A heartbeat, with or without a fix.
    Heartbeat {
        /// Increases within a session.
        seq: i64,
        /// The fix, or its refusal.
        fix: Option<Result<Fix, FixRefusal>>,
    },
    /// Fixes that the app stored while it was out of coverage.
    Batch {
        /// Each fix, or its refusal.
        fixes: Vec<Result<Fix, FixRefusal>>,
    },
    /// The requested duty.
    Status {
        /// `true` for AVAILABLE, `false` for OFFLINE.
        on_duty: bool,
    },
    /// An answer to an offer.
    OfferAnswer,
    /// Progress of a delivery.
    DeliveryUpdate {
        /// The delivery.
        delivery_id: DeliveryId,
        /// The assignment.
        assignment_id: AssignmentId,
        /// The update.
        step: DriverUpdate,
        /// Its details.
        details: UpdateDetails,
        /// The names of fields that are ignored and do not block the update.
        ignored: Vec<&'static str>,
    },
    /// The app received a command.
    Ack {
        /// Which.
        message_id: MessageId,
    },
}

type Object = Map<String, Value>;

/// The error of a part of a frame: code and explanation.
struct Fault(&'static str, String);

fn invalid(field: &str, what: &str) -> Fault {
    Fault("invalid_frame", format!("{field} {what}"))
}

/// Parses one text frame. `now` is the server's clock, by which a fix may be too far in the future for the `rules`.
#[tracing::instrument(level = "trace", skip_all)]
pub fn parse_frame(text: &str, now: DateTime<Utc>, rules: &FixRules) -> Result<Frame, FrameError> {
    if let Some(frame) = parse_plain_heartbeat(text, now, rules) {
        return Ok(frame);
    }
    parse_any_frame(text, now, rules)
}

/// A plain heartbeat, parsed without building a tree. Nearly every frame is one.
#[derive(Deserialize)]
struct PlainHeartbeat<'t> {
    #[serde(rename = "type")]
    kind: &'t str,
    seq: i64,
    #[serde(rename = "fixTime")]
    fix_time: &'t str,
    lat: f64,
    lon: f64,
    #[serde(rename = "accuracyM")]
    accuracy_m: Option<f64>,
    #[serde(rename = "speedMps", default)]
    _speed: Option<f64>,
    #[serde(rename = "headingDeg", default)]
    _heading: Option<f64>,
    #[serde(rename = "batteryPct", default)]
    _battery: Option<f64>,
    #[serde(rename = "ref")]
    reference: Option<&'t str>,
}

/// `None` for anything unusual or invalid: the general parser handles it.
fn parse_plain_heartbeat(text: &str, now: DateTime<Utc>, rules: &FixRules) -> Option<Frame> {
    let plain: PlainHeartbeat<'_> = serde_json::from_str(text).ok()?;
    if plain.kind != "heartbeat" || plain.reference.is_some() {
        return None;
    }
    let time = parse_moment(plain.fix_time)?;
    let fix = Fix { position: Position::new(plain.lat, plain.lon).ok()?, time };
    let fix = judge_alone(&fix, plain.accuracy_m, now, rules).map(|()| fix);
    Some(Frame { reference: None, body: FrameBody::Heartbeat { seq: plain.seq, fix: Some(fix) } })
}

fn parse_any_frame(text: &str, now: DateTime<Utc>, rules: &FixRules) -> Result<Frame, FrameError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let document = json::read(text).map_err(|_| FrameError {
        reference: None,
        seq: None,
        subject: None,
        code: "invalid_json",
        message: "the frame is not JSON".to_owned(),
    })?;
    parse_value(&document.value, now, rules)
}

/// Parses one frame that is already JSON. `false` replaces a value without a representation and is an error of its
/// field.
pub fn parse_value(value: &Value, now: DateTime<Utc>, rules: &FixRules) -> Result<Frame, FrameError> {
    let refuse = |Fault(code, message)| {
        let (reference, seq, subject) = name_of_value(value);
        FrameError { reference, seq, subject, code, message }
    };
    let object = value.as_object().ok_or_else(|| refuse(invalid("a frame", "is a JSON object")))?;
    let reference = reference(object).map_err(refuse)?;
    Ok(Frame { reference, body: parse_body(object, now, rules).map_err(refuse)? })
}

fn reference(object: &Object) -> Result<Option<String>, Fault> {
    match field(object, "ref") {
        None => Ok(None),
        Some(Value::String(text)) if text.chars().count() <= MAX_REF_CHARS => Ok(Some(text.clone())),
        Some(_) => Err(invalid("ref", "must be a string of at most 64 characters")),
    }
}

/// The identification of a frame that is not parsed any further.
pub fn name_of(text: &str) -> FrameName {
    json::read(text).map_or((None, None, None), |document| name_of_value(&document.value))
}

/// As [`name_of`], for a frame that is already JSON.
pub fn name_of_value(value: &Value) -> FrameName {
    let Some(object) = value.as_object() else { return (None, None, None) };
    let seq = field(object, "seq").and_then(Value::as_i64);
    (reference(object).ok().flatten(), seq, subject(object))
}

fn subject(object: &Object) -> Option<Subject> {
    match field(object, "type")?.as_str()? {
        "delivery.update" => id(object, "deliveryId").ok().map(Subject::Delivery),
        _ => None,
    }
}

/// A field's value; `null` means absent, everywhere.
fn field<'v>(object: &'v Object, name: &str) -> Option<&'v Value> {
    object.get(name).filter(|value| !value.is_null())
}

fn parse_body(object: &Object, now: DateTime<Utc>, rules: &FixRules) -> Result<FrameBody, Fault> {
    let kind = field(object, "type").ok_or_else(|| invalid("type", "is required"))?;
    match kind.as_str().ok_or_else(|| invalid("type", "must be a string"))? {
        "heartbeat" => parse_heartbeat(object, now, rules),
        "batch" => parse_batch(object, now, rules),
        "status" => parse_status(object),
        "offer.answer" => parse_offer_answer(object),
        "delivery.update" => parse_delivery_update(object),
        "ack" => Ok(FrameBody::Ack { message_id: id(object, "messageId")? }),
        other => {
            Err(Fault("unknown_type", format!("unknown frame type {:?}", other.chars().take(64).collect::<String>())))
        }
    }
}

fn parse_heartbeat(object: &Object, now: DateTime<Utc>, rules: &FixRules) -> Result<FrameBody, Fault> {
    let seq = field(object, "seq").ok_or_else(|| invalid("seq", "is required"))?;
    let seq = seq.as_i64().ok_or_else(|| invalid("seq", "must be an integer"))?;
    Ok(FrameBody::Heartbeat { seq, fix: parse_fix(object, now, rules)? })
}

fn parse_batch(object: &Object, now: DateTime<Utc>, rules: &FixRules) -> Result<FrameBody, Fault> {
    let fixes = field(object, "fixes").ok_or_else(|| invalid("fixes", "is required"))?;
    let fixes = fixes.as_array().ok_or_else(|| invalid("fixes", "must be an array"))?;
    if fixes.len() > MAX_BATCH_FIXES {
        return Err(invalid("fixes", "must hold at most 100 fixes"));
    }
    Ok(FrameBody::Batch { fixes: fixes.iter().map(|value| parse_batch_fix(value, now, rules)).collect() })
}

/// Parses one fix of a batch. An error refuses only this fix.
pub fn parse_batch_fix(value: &Value, now: DateTime<Utc>, rules: &FixRules) -> Result<Fix, FixRefusal> {
    let refuse = |Fault(code, message)| FixRefusal { code, message };
    let object = value.as_object().ok_or_else(|| refuse(invalid("a fix", "must be an object")))?;
    parse_fix(object, now, rules)
        .map_err(refuse)?
        .unwrap_or_else(|| Err(FixRefusal { code: "invalid_frame", message: "lat and lon are required".to_owned() }))
}

/// Parses the fix in an object: `None` without coordinates, an error when a field is malformed, a refusal when the fix
/// is implausible.
fn parse_fix(object: &Object, now: DateTime<Utc>, rules: &FixRules) -> Result<Option<Result<Fix, FixRefusal>>, Fault> {
    let time = field(object, "fixTime").map(|value| moment("fixTime", value)).transpose()?;
    let accuracy_m = number(object, "accuracyM")?;
    for name in ["speedMps", "headingDeg", "batteryPct"] {
        number(object, name)?;
    }
    let Some(position) = coordinates(object)? else { return Ok(None) };
    let time = time.ok_or_else(|| invalid("fixTime", "is required with lat and lon"))?;
    let fix = Fix { position, time };
    Ok(Some(judge_alone(&fix, accuracy_m, now, rules).map(|()| fix)))
}

/// A position, which has both coordinates or neither.
fn coordinates(object: &Object) -> Result<Option<Position>, Fault> {
    let position = match (number(object, "lat")?, number(object, "lon")?) {
        (None, None) => return Ok(None),
        (Some(lat), Some(lon)) => Position::new(lat, lon),
        (None, Some(_)) => return Err(invalid("lat", "is required with lon")),
        (Some(_), None) => return Err(invalid("lon", "is required with lat")),
    };
    position.map(Some).map_err(|error| match error {
        PositionError::Latitude => invalid("lat", &error.to_string()),
        PositionError::Longitude => invalid("lon", &error.to_string()),
    })
}

fn parse_status(object: &Object) -> Result<FrameBody, Fault> {
    match text(object, "status", 32)?.as_deref() {
        Some("AVAILABLE") => Ok(FrameBody::Status { on_duty: true }),
        Some("OFFLINE") => Ok(FrameBody::Status { on_duty: false }),
        _ => Err(invalid("status", "must be AVAILABLE or OFFLINE")),
    }
}

fn parse_offer_answer(object: &Object) -> Result<FrameBody, Fault> {
    text(object, "offerId", 128)?.ok_or_else(|| invalid("offerId", "is required"))?;
    text(object, "reason", MAX_REASON_CHARS)?;
    match text(object, "answer", 16)?.as_deref() {
        Some("accept" | "decline") => Ok(FrameBody::OfferAnswer),
        _ => Err(invalid("answer", "must be accept or decline")),
    }
}

fn parse_delivery_update(object: &Object) -> Result<FrameBody, Fault> {
    let step = match text(object, "status", 32)?.as_deref() {
        Some("PICKED_UP") => DriverUpdate::PickedUp,
        Some("IN_TRANSIT") => DriverUpdate::InTransit,
        Some("DELIVERED") => DriverUpdate::Delivered,
        Some("FAILED") => DriverUpdate::Failed,
        Some("REJECTED") => DriverUpdate::Rejected,
        _ => return Err(invalid("status", "must be PICKED_UP, IN_TRANSIT, DELIVERED, FAILED or REJECTED")),
    };
    let position = coordinates(object)?;
    let failure = field(object, "failure").map(parse_failure).transpose()?;
    if step == DriverUpdate::Failed && failure.is_none() {
        return Err(invalid("failure", "is required with FAILED"));
    }
    let occurred_at = field(object, "occurredAt").map(|value| moment("occurredAt", value)).transpose()?;
    let (proof_url, ignored) = match proof_url(object) {
        Ok(link) => (link, Vec::new()),
        Err(NoLink) => (None, vec!["proofUrl"]),
    };
    let details = UpdateDetails { occurred_at, position, proof_url, failure, reason: None };
    Ok(FrameBody::DeliveryUpdate {
        delivery_id: id(object, "deliveryId")?,
        assignment_id: id(object, "assignmentId")?,
        step,
        details,
        ignored,
    })
}

fn parse_failure(value: &Value) -> Result<(FailureCode, Option<String>), Fault> {
    let object = value.as_object().ok_or_else(|| invalid("failure", "must be an object"))?;
    let code = field(object, "code").ok_or_else(|| invalid("failure.code", "is required"))?;
    let code: Option<FailureCode> = serde_json::from_value(code.clone()).ok();
    let code = code
        .filter(|code| code.allowed_from_driver())
        .ok_or_else(|| invalid("failure.code", "must be PICKUP_FAILED, DELIVERY_FAILED or DRIVER_REJECTED"))?;
    Ok((code, text(object, "reason", MAX_REASON_CHARS)?))
}

/// A value that is not an acceptable link.
struct NoLink;

/// The link to a proof. The update matters more than its link, so an unacceptable link is left out.
fn proof_url(object: &Object) -> Result<Option<String>, NoLink> {
    let Some(value) = field(object, "proofUrl") else { return Ok(None) };
    let link = value.as_str().map(str::trim).ok_or(NoLink)?;
    let begins_with = |scheme: &str| link.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme));
    let is_link = (begins_with("http://") || begins_with("https://"))
        && link.chars().count() <= MAX_URL_CHARS
        && !link.chars().any(char::is_control)
        && url::Url::parse(link).is_ok();
    is_link.then(|| Some(link.to_owned())).ok_or(NoLink)
}

fn number(object: &Object, name: &str) -> Result<Option<f64>, Fault> {
    match field(object, name) {
        None => Ok(None),
        Some(value) => match value.as_f64().filter(|n| n.is_finite()) {
            Some(number) => Ok(Some(number)),
            None => Err(invalid(name, "must be a number")),
        },
    }
}

fn text(object: &Object, name: &str, max_chars: usize) -> Result<Option<String>, Fault> {
    match field(object, name) {
        None => Ok(None),
        Some(Value::String(text)) if text.chars().count() > max_chars => {
            Err(invalid(name, &format!("must be at most {max_chars} characters")))
        }
        // PostgreSQL cannot store NUL.
        Some(Value::String(text)) if text.contains('\0') => Err(invalid(name, "must not contain NUL")),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(invalid(name, "must be a string")),
    }
}

fn id<T: std::str::FromStr>(object: &Object, name: &str) -> Result<T, Fault> {
    let text = text(object, name, 64)?.ok_or_else(|| invalid(name, "is required"))?;
    text.parse().map_err(|_| invalid(name, "must be a UUID"))
}

fn moment(name: &str, value: &Value) -> Result<DateTime<Utc>, Fault> {
    value.as_str().and_then(parse_moment).ok_or_else(|| invalid(name, "must be an RFC 3339 time"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn now() -> DateTime<Utc> {
        "2026-01-27T10:00:00Z".parse().unwrap()
    }

    fn code_of(text: &str) -> &'static str {
        parse_frame(text, now(), &FixRules::default()).unwrap_err().code
    }

    #[test]
    fn names_the_field_at_fault_and_brings_ref_and_seq_back() {
        let text = r#"{"type":"heartbeat","seq":7,"ref":"a","lat":91,"lon":0,"fixTime":"2026-01-27T10:00:00Z"}"#;
        let error = parse_frame(text, now(), &FixRules::default()).unwrap_err();
        assert_eq!((error.code, error.seq, error.reference.as_deref()), ("invalid_frame", Some(7), Some("a")));
        assert!(error.message.starts_with("lat "));
        assert_eq!(code_of("{"), "invalid_json");
        assert_eq!(code_of("[]"), "invalid_frame");
        assert_eq!(code_of(r#"{"type":"dance"}"#), "unknown_type");
        assert_eq!(code_of(r#"{"type":"heartbeat","seq":1,"lat":1}"#), "invalid_frame");
    }

    #[test]
    fn an_unbelievable_fix_is_refused_but_is_a_heartbeat() {
        for (fields, code) in [
            (r#""lat":0,"lon":0,"fixTime":"2026-01-27T10:00:00Z""#, "fix_at_zero"),
            (r#""lat":1,"lon":1,"fixTime":"2026-01-27T10:00:31Z""#, "fix_in_future"),
            (r#""lat":1,"lon":1,"fixTime":"2026-01-27T10:00:00Z","accuracyM":201"#, "fix_inaccurate"),
        ] {
            let frame =
                parse_frame(&format!(r#"{{"type":"heartbeat","seq":1,{fields}}}"#), now(), &FixRules::default())
                    .unwrap();
            let FrameBody::Heartbeat { fix: Some(Err(refusal)), .. } = frame.body else { panic!("{fields}") };
            assert_eq!(refusal.code, code);
        }
        let alive =
            parse_frame(r#"{"type":"heartbeat","seq":1,"lat":null,"speedMps":-1}"#, now(), &FixRules::default())
                .unwrap();
        assert!(matches!(alive.body, FrameBody::Heartbeat { fix: None, .. }));
    }

    #[test]
    fn a_number_beyond_a_double_is_a_fault_of_its_field() {
        let frame =
            |fields: &str| format!(r#"{{"type":"heartbeat","seq":1,"fixTime":"2026-01-27T10:00:00Z",{fields}}}"#);
        for (fields, name) in
            [(r#""lat":1e400,"lon":1"#, "lat"), (r#""lat":1,"lon":1,"accuracyM":-1e400"#, "accuracyM")]
        {
            let error = parse_frame(&frame(fields), now(), &FixRules::default()).unwrap_err();
            assert_eq!((error.code, error.seq), ("invalid_frame", Some(1)));
            assert!(error.message.starts_with(name), "{}", error.message);
        }
        for fields in [r#""x":1e400,"lat":1,"lon":1"#, r#""x":"\ud800""#] {
            assert!(parse_frame(&frame(fields), now(), &FixRules::default()).is_ok(), "{fields}");
        }
        assert!(parse_frame(&format!("\u{feff}{}", frame(r#""lat":1,"lon":1"#)), now(), &FixRules::default()).is_ok());
    }

    #[test]
    fn a_proof_that_is_no_link_is_ignored_and_the_step_is_taken() {
        let update = |proof: &str| {
            let id = uuid::Uuid::from_u128(7);
            let text = format!(
                r#"{{"type":"delivery.update","deliveryId":"{id}","assignmentId":"{id}","status":"DELIVERED","proofUrl":{proof}}}"#
            );
            match parse_frame(&text, now(), &FixRules::default()).unwrap().body {
                FrameBody::DeliveryUpdate { details, ignored, .. } => (details.proof_url, ignored),
                other => panic!("{other:?}"),
            }
        };
        let longest = format!("https://x.example/{}", "y".repeat(MAX_URL_CHARS - 18));
        for link in ["https://x.example/1?a=b%20c", "HTTP://x.example", "https://x.example/my photo.jpg", &longest] {
            assert_eq!(update(&format!("{link:?}")), (Some(link.to_owned()), Vec::new()));
        }
        assert_eq!(update(r#"" https://x.example/1\n""#), (Some("https://x.example/1".to_owned()), Vec::new()));
        assert_eq!(update("null"), (None, Vec::new()));
        let too_long = format!("\"{longest}z\"");
        for bad in [
            "5",
            "1e400",
            "true",
            "{}",
            "[\"https://x\"]",
            "\"\"",
            "\"ftp://x/y\"",
            "\"http:x\"",
            "\"https://\"",
            "\"javascript:alert(1)\"",
            r#""https://x/\u0000""#,
            r#""https://x/\ny""#,
            r#""https://x/\ud800""#,
            &too_long,
        ] {
            assert_eq!(update(bad), (None, vec!["proofUrl"]), "{bad:.60}");
        }
    }

    /// Values that a careless app may send, as JSON.
    fn odd() -> impl Strategy<Value = String> {
        prop_oneof![
            Just("null".to_owned()),
            Just("\"2026-01-27T10:00:00Z\"".to_owned()),
            Just("\"x\"".to_owned()),
            Just("[]".to_owned()),
            Just("true".to_owned()),
            Just("1e999".to_owned()),
            Just("\"\\ud83d\"".to_owned()),
            Just("\"heart\\u0062eat\"".to_owned()),
            any::<i64>().prop_map(|n| n.to_string()),
            (-200.0..200.0).prop_map(|n: f64| n.to_string()),
        ]
    }

    proptest! {
        #[test]
        fn a_plain_heartbeat_is_read_as_any_frame_is(
            seq in odd(), time in odd(), lat in odd(), lon in odd(), more in "(accuracyM|speedMps|headingDeg|batteryPct|ref|x|lat)",
            value in odd(), plain in any::<[bool; 4]>(),
        ) {
            let or = |plain: bool, usual: &str, odd: &str| if plain { usual.to_owned() } else { odd.to_owned() };
            let text = format!(
                r#"{{"type":"heartbeat","seq":{},"fixTime":{},"lat":{},"lon":{},"{more}":{value}}}"#,
                or(plain[0], "7", &seq), or(plain[1], "\"2026-01-27T10:00:00Z\"", &time), or(plain[2], "12.9", &lat),
                or(plain[3], "77.5", &lon),
            );
            if let Some(frame) = parse_plain_heartbeat(&text, now(), &FixRules::default()) {
                prop_assert_eq!(format!("{:?}", Ok::<_, FrameError>(frame)), format!("{:?}", parse_any_frame(&text, now(), &FixRules::default())));
            }
        }

        #[test]
        fn no_text_panics(text in ".{0,200}", kind in "heartbeat|batch|status|ack|delivery.update|offer.answer") {
            let _ = parse_frame(&text, now(), &FixRules::default());
            let _ = parse_frame(&serde_json::json!({"type": kind, "seq": text, "status": text}).to_string(), now(), &FixRules::default());
        }
    }
}
