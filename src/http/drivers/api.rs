//! The HTTP paths of drivers, for apps that cannot keep a socket open. The token and the rules are those of the socket;
//! there is no session.

use std::time::Duration;

use actix_web::{HttpResponse, rt, web};
use chrono::Utc;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use crate::dispatch::{DispatchError, session};
use crate::domain::plausibility::FixRules;
use crate::domain::secret_token::{SecretToken, TokenKind};
use crate::http::admission::RateLimits;
use crate::http::body::AnyJson;
use crate::http::fields::Fields;
use crate::http::idempotency::Answer;
use crate::http::middleware::auth::DriverAuth;
use crate::http::problem::Problem;
use crate::http::routes::{get, post, resource, transact};
use crate::protocol::inbound::{FrameError, name_of_value, parse_value};
use crate::protocol::outbound::{self, moment};
use crate::protocol::{MAX_BATCH_BYTES, MAX_FRAME_BYTES};
use crate::sessions::{FrameHandler, interval_of};
use crate::store::Database;
use crate::store::credentials::{self, DriverIdentity};
use crate::store::deliveries;

/// The lifetime of a ticket, in seconds.
const TICKET_S: f64 = 30.0;
/// The most frames in one request.
const MAX_FRAMES: usize = 100;
/// The largest body of a request with frames, in bytes.
const MAX_MESSAGES_BYTES: usize = 4 * MAX_BATCH_BYTES;
/// The time limit for all frames of one request together.
const MESSAGES_TIMEOUT: Duration = Duration::from_millis(4500);

/// Registers the routes.
pub fn configure(cfg: &mut web::ServiceConfig) {
    cfg.service(resource("/ws-ticket", "POST").route(post().to(ticket)))
        .service(resource("/locations", "POST").route(post().to(locations)))
        .service(resource("/state", "GET").route(get().to(state)))
        .service(resource("/messages", "POST").route(post().to(messages)));
}

async fn ticket(
    driver: DriverAuth,
    database: web::Data<Database>,
    limits: web::Data<RateLimits>,
) -> Result<HttpResponse, Problem> {
    admit(&limits, &driver)?;
    let new = SecretToken::random(TokenKind::Ticket);
    let (token_id, hash) = (driver.0.token_id, new.hash());
    let expires_at = transact(&database, move |conn| {
        Box::pin(async move { credentials::insert_ticket(conn, token_id, &hash, TICKET_S).await })
    })
    .await?;
    let mut answer = Answer::ok(json!({"ticket": new.expose(), "expiresAt": moment(expires_at)}));
    answer.status = actix_web::http::StatusCode::CREATED;
    Ok(answer.into_response())
}

async fn locations(
    driver: DriverAuth,
    frames: web::Data<FrameHandler>,
    limits: web::Data<RateLimits>,
    body: AnyJson<MAX_BATCH_BYTES>,
) -> Result<HttpResponse, Problem> {
    admit(&limits, &driver)?;
    let fixes = fixes_of(body.0);
    Ok(Answer::ok(frames.locations(&driver.0, &fixes).await?).into_response())
}

/// Counts a driver's HTTP request as a frame.
fn admit(limits: &RateLimits, driver: &DriverAuth) -> Result<(), Problem> {
    limits.admit_frame(driver.0.driver_id).map_err(|seconds| Problem::too_many("rate_limited", seconds))
}

/// The fixes of a body of any shape. A value that is not a fix is refused as a fix, so that every JSON body gets a 200.
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

async fn state(
    driver: DriverAuth,
    frames: web::Data<FrameHandler>,
    limits: web::Data<RateLimits>,
) -> Result<HttpResponse, Problem> {
    admit(&limits, &driver)?;
    let id = driver.0.driver_id;
    let (snapshot, now) = frames
        .use_cases()
        .database()
        .transact(move |conn| {
            Box::pin(async move {
                let snapshot = session::snapshot(&mut *conn, id).await?;
                Ok::<_, DispatchError>((snapshot, deliveries::now(conn).await?))
            })
        })
        .await?;
    Ok(Answer::ok(outbound::welcome(
        None,
        &snapshot,
        interval_of(snapshot.driver.state.heartbeat_tier(), frames.heartbeat_config()),
        now,
    ))
    .into_response())
}

async fn messages(
    driver: DriverAuth,
    frames: web::Data<FrameHandler>,
    limits: web::Data<RateLimits>,
    body: AnyJson<MAX_MESSAGES_BYTES>,
) -> Result<HttpResponse, Problem> {
    let deadline = Instant::now() + MESSAGES_TIMEOUT;
    let sent = parse_frames(&body.0)?;
    let rules = &frames.heartbeat_config().fix_rules;
    let answers =
        answer_all(sent, deadline, async |frame| answer(&frames, &limits, rules, &driver.0, frame).await).await;
    Ok(Answer::ok(json!({"answers": answers})).into_response())
}

/// The answers to the frames, in order. After the deadline, or after a frame found PostgreSQL unavailable, the
/// remaining frames are not tried: each would wait as long again, and the app can send them later.
async fn answer_all(frames: &[Value], deadline: Instant, answer: impl AsyncFn(&Value) -> Value) -> Vec<Value> {
    let mut answers = Vec::with_capacity(frames.len());
    let mut is_out = false;
    for frame in frames {
        is_out |= Instant::now() >= deadline;
        let given = if is_out { None } else { timeout_at(deadline, answer(frame)).await.ok() };
        let given = given.unwrap_or_else(|| unavailable(frame));
        is_out |= given["type"] == "error" && given["code"] == "unavailable";
        answers.push(given);
    }
    answers
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

/// An error in answer to a frame that was not read.
fn error_answer(frame: &Value, code: &'static str, message: &str) -> Value {
    let (reference, seq, subject) = name_of_value(frame);
    let error = FrameError { reference, seq, subject, code, message: message.to_owned() };
    outbound::error(&error, Utc::now())
}

fn unavailable(frame: &Value) -> Value {
    error_answer(frame, "unavailable", "not possible just now; try again")
}

/// The size of a frame, in bytes. The proof is not counted: a proof that is too long is left out and never blocks its
/// update.
fn size_of(frame: &Value) -> usize {
    let proof = frame.get("proofUrl").map_or(0, |proof| proof.to_string().len());
    frame.to_string().len() - proof
}

async fn answer(
    handler: &FrameHandler,
    limits: &RateLimits,
    rules: &FixRules,
    who: &DriverIdentity,
    frame: &Value,
) -> Value {
    let now = Utc::now();
    if limits.admit_frame(who.driver_id).is_err() {
        return error_answer(frame, "rate_limited", "too many frames; send fewer");
    }
    let is_batch = frame.get("type").and_then(Value::as_str) == Some("batch");
    let max_bytes = if is_batch { MAX_BATCH_BYTES } else { MAX_FRAME_BYTES };
    if size_of(frame) > max_bytes {
        return error_answer(frame, "invalid_frame", "the frame is too big");
    }
    match parse_value(frame, now, rules) {
        Ok(parsed) => {
            // A task of its own: a caller that stops waiting must not cancel what follows the commit.
            let (handler, who) = (handler.clone(), *who);
            let answering = rt::spawn(async move { handler.answer(&who, None, parsed).await });
            answering.await.unwrap_or_else(|_| unavailable(frame))
        }
        Err(error) => outbound::error(&error, now),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn whatever_is_json_has_fixes() {
        assert_eq!(fixes_of(json!({"fixes": [1, 2]})), [json!(1), json!(2)]);
        assert!(fixes_of(json!({})).is_empty() && fixes_of(json!({"fixes": null})).is_empty());
        assert_eq!(fixes_of(json!({"fixes": "x"})).len(), 1);
        assert_eq!(fixes_of(json!([])).len(), 1);
    }

    fn refs(answers: &[Value]) -> Vec<(&str, &str)> {
        answers.iter().map(|a| (a["ref"].as_str().unwrap(), a["code"].as_str().unwrap_or("ok"))).collect()
    }

    #[actix_web::test]
    async fn after_an_outage_the_rest_is_not_tried() {
        let frames = ["a", "b", "c"].map(|name| json!({"ref": name}));
        let tried = Cell::new(0);
        let deadline = Instant::now() + MESSAGES_TIMEOUT;
        let answers = answer_all(&frames, deadline, async |frame| {
            tried.set(tried.get() + 1);
            if frame["ref"] == "b" { unavailable(frame) } else { outbound::ok(frame["ref"].as_str(), json!({})) }
        })
        .await;
        assert_eq!(refs(&answers), [("a", "ok"), ("b", "unavailable"), ("c", "unavailable")]);
        assert!(tried.get() == 2 && answers[2]["retryable"] == true);
    }

    #[actix_web::test]
    async fn all_frames_share_one_deadline() {
        let frames = ["a", "b"].map(|name| json!({"ref": name}));
        let tried = Cell::new(0);
        let deadline = Instant::now() + Duration::from_millis(20);
        let answers = answer_all(&frames, deadline, async |_| {
            tried.set(tried.get() + 1);
            std::future::pending().await
        })
        .await;
        assert_eq!(refs(&answers), [("a", "unavailable"), ("b", "unavailable")]);
        assert_eq!(tried.get(), 1);
    }

    #[test]
    fn frames_are_an_array_of_at_most_a_hundred() {
        assert_eq!(parse_frames(&json!({"frames": [{}]})).map(<[Value]>::len).unwrap(), 1);
        for bad in [json!([]), json!({}), json!({"frames": 1}), json!({"frames": vec![1; 101]})] {
            assert_eq!(parse_frames(&bad).unwrap_err().code(), "invalid_fields", "{bad}");
        }
    }
}
