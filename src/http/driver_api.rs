//! The drivers' own HTTP paths, for apps that cannot hold a socket: same token, same rules, no session.

use actix_web::{HttpResponse, web};
use chrono::Utc;
use serde_json::{Value, json};

use super::auth::DriverAuth;
use super::body::AnyJson;
use super::fields::Fields;
use super::gate::Gate;
use super::idempotency::Answer;
use super::problem::Problem;
use super::routes::{get, post, resource};
use super::tokens::{self, TokenKind};
use crate::actors::Node;
use crate::actors::driver_desk::DriverDesk;
use crate::dispatch::session;
use crate::protocol::inbound::{FrameError, parse_value};
use crate::protocol::outbound::{self, moment};
use crate::protocol::{MAX_BATCH_BYTES, MAX_FRAME_BYTES};
use crate::store::credentials::{self, DriverIdentity};
use crate::store::{StoreError, deliveries};

/// How long a ticket is good, in seconds.
const TICKET_S: f64 = 30.0;
/// The most frames in one request.
const MAX_FRAMES: usize = 100;
/// The largest request with frames, in bytes.
const MAX_MESSAGES_BYTES: usize = 4 * MAX_BATCH_BYTES;

/// Registers the routes.
pub fn configure(cfg: &mut web::ServiceConfig) {
    cfg.service(resource("/ws-ticket", "POST").route(post().to(ticket)))
        .service(resource("/locations", "POST").route(post().to(locations)))
        .service(resource("/state", "GET").route(get().to(state)))
        .service(resource("/messages", "POST").route(post().to(messages)));
}

async fn ticket(driver: DriverAuth, node: web::Data<Node>) -> Result<HttpResponse, Problem> {
    let new = tokens::make(TokenKind::Ticket);
    let (token_id, hash) = (driver.0.token_id, new.hash());
    let expires_at = node
        .database()
        .transact(move |conn| {
            Box::pin(async move { credentials::insert_ticket(conn, token_id, &hash, TICKET_S).await })
        })
        .await
        .map_err(|error: StoreError| Problem::from(error))?;
    let mut answer = Answer::ok(json!({"ticket": new.expose(), "expiresAt": moment(expires_at)}));
    answer.status = actix_web::http::StatusCode::CREATED;
    Ok(answer.into_response())
}

async fn locations(
    driver: DriverAuth,
    node: web::Data<Node>,
    gate: web::Data<Gate>,
    body: AnyJson<MAX_BATCH_BYTES>,
) -> Result<HttpResponse, Problem> {
    gate.admit_frame(driver.0.driver_id).map_err(|seconds| Problem::too_many("rate_limited", seconds))?;
    let fixes = fixes_of(body.0);
    let node = node.get_ref().clone();
    Ok(Answer::ok(DriverDesk::new(node).locations(&driver.0, &fixes).await?).into_response())
}

/// The fixes of a body, whatever its shape: what is none is refused as one, so that JSON always gets its 200.
fn fixes_of(body: Value) -> Vec<Value> {
    match body {
        Value::Object(mut object) => match object.remove("fixes") {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(fixes)) => fixes,
            Some(other) => vec![other],
        },
        other => vec![other],
    }
}

async fn state(driver: DriverAuth, node: web::Data<Node>) -> Result<HttpResponse, Problem> {
    let id = driver.0.driver_id;
    let (snapshot, now) = node
        .database()
        .transact(move |conn| {
            Box::pin(async move { Ok((session::snapshot(&mut *conn, id).await?, deliveries::now(conn).await?)) })
        })
        .await
        .map_err(|error: crate::dispatch::DispatchError| Problem::from(error))?;
    Ok(Answer::ok(outbound::welcome(None, &snapshot, node.pace(), now)).into_response())
}

async fn messages(
    driver: DriverAuth,
    node: web::Data<Node>,
    gate: web::Data<Gate>,
    body: AnyJson<MAX_MESSAGES_BYTES>,
) -> Result<HttpResponse, Problem> {
    let frames = parse_frames(&body.0)?;
    let desk = DriverDesk::new(node.get_ref().clone());
    let mut answers = Vec::with_capacity(frames.len());
    for frame in frames {
        answers.push(answer(&desk, &gate, &driver.0, frame).await);
    }
    Ok(Answer::ok(json!({"answers": answers})).into_response())
}

fn parse_frames(body: &Value) -> Result<&[Value], Problem> {
    let object = body.as_object().ok_or_else(|| Problem::field("", "type", "the body must be an object"))?;
    let frames = object.get("frames").and_then(Value::as_array);
    match frames {
        Some(frames) if frames.len() <= MAX_FRAMES => Ok(frames),
        Some(_) => Err(Problem::field("frames", "length", "must hold at most 100 frames")),
        None => {
            let mut fields = Fields::of(object);
            fields.required("frames", |fields, name| {
                fields.fault(name, "type", "must be an array");
                None::<()>
            });
            fields.finish().map(|()| &[] as &[Value])
        }
    }
}

async fn answer(desk: &DriverDesk, gate: &Gate, who: &DriverIdentity, frame: &Value) -> Value {
    let now = Utc::now();
    let told = |code, message: &str| {
        let reference = frame.get("ref").and_then(Value::as_str).filter(|text| text.chars().count() <= 64);
        let error =
            FrameError { reference: reference.map(str::to_owned), seq: None, code, message: message.to_owned() };
        outbound::error(&error, now)
    };
    if gate.admit_frame(who.driver_id).is_err() {
        return told("rate_limited", "too many frames; send fewer");
    }
    let is_batch = frame.get("type").and_then(Value::as_str) == Some("batch");
    let max_bytes = if is_batch { MAX_BATCH_BYTES } else { MAX_FRAME_BYTES };
    if frame.to_string().len() > max_bytes {
        return told("invalid_frame", "the frame is too big");
    }
    match parse_value(frame, now) {
        Ok(parsed) => desk.answer(who, None, parsed).await,
        Err(error) => outbound::error(&error, now),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_json_has_fixes() {
        assert_eq!(fixes_of(json!({"fixes": [1, 2]})), [json!(1), json!(2)]);
        assert!(fixes_of(json!({})).is_empty() && fixes_of(json!({"fixes": null})).is_empty());
        assert_eq!(fixes_of(json!({"fixes": "x"})).len(), 1);
        assert_eq!(fixes_of(json!([])).len(), 1);
    }

    #[test]
    fn frames_are_an_array_of_at_most_a_hundred() {
        assert_eq!(parse_frames(&json!({"frames": [{}]})).map(<[Value]>::len).unwrap(), 1);
        for bad in [json!([]), json!({}), json!({"frames": 1}), json!({"frames": vec![1; 101]})] {
            assert_eq!(parse_frames(&bad).unwrap_err().code(), "invalid_fields", "{bad}");
        }
    }
}
