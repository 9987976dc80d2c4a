//! Idempotent POSTs: a request that repeats an `Idempotency-Key` within a day gets the answer of the first request.
//!
//! Invariants: the answer is saved in the transaction of the work, so that neither exists without the other. Only a 2xx
//! is saved: an error rolls the transaction back.
//!
//! A repeat must have the same content. White space, the order of names and the spelling of numbers may differ, because
//! many clients serialize the body again for each attempt.

use crate::effects::UseCases;
use actix_web::HttpRequest;
use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE, LOCATION};
use serde_json::Value;

use crate::dispatch::{DispatchError, Unit};
use crate::http::body;
use crate::http::middleware::auth::Caller;
use crate::http::problem::Problem;
use crate::store::idempotency::{self, RequestKey, SavedAnswer};
use crate::store::{StoreError, Work};

const HEADER: &str = "idempotency-key";
const MAX_KEY_BYTES: usize = 255;

/// A successful answer, as it is sent and saved.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The status, 2xx.
    pub status: StatusCode,
    /// The path of the created resource.
    pub location: Option<String>,
    /// The body.
    pub body: Value,
}

impl Answer {
    /// 200 with an object.
    pub fn ok(body: Value) -> Self {
        Self { status: StatusCode::OK, location: None, body }
    }

    /// 201 with the created resource and its path.
    pub fn created(location: String, body: Value) -> Self {
        Self { status: StatusCode::CREATED, location: Some(location), body }
    }

    /// 202 with work that is in progress.
    pub fn accepted(body: Value) -> Self {
        Self { status: StatusCode::ACCEPTED, location: None, body }
    }

    /// Converts to a response. Caches must not store any answer of the API.
    pub fn into_response(self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status);
        response.insert_header((CONTENT_TYPE, "application/json"));
        response.insert_header((CACHE_CONTROL, "no-store"));
        if let Some(location) = self.location {
            response.insert_header((LOCATION, location));
        }
        response.body(self.body.to_string())
    }
}

/// A request that carries a key.
#[derive(Debug, Clone)]
pub struct Keyed {
    request: RequestKey,
    /// SHA-256 of the bytes of the body.
    body_hash: [u8; 32],
    /// SHA-256 of the content of the body, whatever its spelling.
    content_hash: [u8; 32],
}

impl Keyed {
    /// The key of a request, if it carries one. `body` is the body as received.
    pub fn of(request: &HttpRequest, caller: &Caller, body: &[u8]) -> Result<Option<Self>, Problem> {
        let Some(value) = request.headers().get(HEADER) else { return Ok(None) };
        let key = value.to_str().ok().filter(|key| (1..=MAX_KEY_BYTES).contains(&key.len()));
        let Some(key) = key else {
            return Err(Problem::field("Idempotency-Key", "length", "must have 1 to 255 visible ASCII characters"));
        };
        let route = format!("{} {}", request.method(), request.path());
        let request = RequestKey { owner: caller.key_id.to_string(), route, key: key.to_owned() };
        Ok(Some(Self { request, body_hash: body::hash(body), content_hash: body::content_hash(body) }))
    }

    /// Locks the key in the unit's transaction, and returns the saved answer, if there is one.
    pub async fn begin(&self, unit: &mut Unit<'_>) -> Result<Option<Answer>, DispatchError> {
        if !idempotency::try_turn(unit.conn, &self.request).await? {
            return Err(DispatchError::UnderWay);
        }
        let Some(saved) = idempotency::find(unit.conn, &self.request).await? else { return Ok(None) };
        let is_repeat =
            saved.body_hash == self.body_hash || saved.content_hash.is_some_and(|hash| hash == self.content_hash);
        if !is_repeat {
            return Err(DispatchError::KeyReused);
        }
        Ok(Some(restore(saved.status, saved.location, &saved.response)?))
    }

    /// Saves an answer in the unit's transaction.
    pub async fn keep(&self, unit: &mut Unit<'_>, answer: &Answer) -> Result<(), DispatchError> {
        let saved = SavedAnswer {
            body_hash: self.body_hash.to_vec(),
            content_hash: Some(self.content_hash.to_vec()),
            status: answer.status.as_u16().into(),
            location: answer.location.clone(),
            response: answer.body.to_string().into_bytes(),
        };
        Ok(idempotency::save(unit.conn, &self.request, &saved).await?)
    }
}

fn restore(status: i32, location: Option<String>, response: &[u8]) -> Result<Answer, StoreError> {
    let status = u16::try_from(status).ok().and_then(|code| StatusCode::from_u16(code).ok());
    let status = status.filter(StatusCode::is_success);
    let status = status.ok_or_else(|| StoreError::corrupt("a kept answer's status is none of a success"))?;
    // The parser's own message would quote the answer.
    let body = serde_json::from_slice(response).map_err(|_| StoreError::corrupt("a kept answer's body is not JSON"))?;
    Ok(Answer { status, location, body })
}

/// Runs `work` and saves its answer in one transaction, or returns the answer saved before.
pub async fn perform<F>(use_cases: &UseCases, keyed: Option<Keyed>, work: F) -> Result<Answer, Problem>
where
    F: for<'u, 'c> FnOnce(&'u mut Unit<'c>) -> Work<'u, Answer, DispatchError> + Send + 'static,
{
    let outcome = use_cases.transact_and_apply(move |unit| {
        Box::pin(async move {
            let Some(keyed) = keyed else { return work(unit).await };
            if let Some(before) = keyed.begin(unit).await? {
                return Ok(before);
            }
            let answer = work(unit).await?;
            keyed.keep(unit, &answer).await?;
            Ok(answer)
        })
    });
    Ok(outcome.await?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn restored(status: i32, response: &[u8]) -> Result<Answer, StoreError> {
        restore(status, Some("/api/v1/drivers/1".to_owned()), response)
    }

    #[test]
    fn a_kept_answer_is_given_again_as_it_was() {
        let before = restored(201, br#"{"a":1}"#).unwrap();
        assert_eq!(before, Answer::created("/api/v1/drivers/1".to_owned(), json!({"a": 1})));
    }

    #[test]
    fn a_kept_answer_that_cannot_be_read_is_no_success() {
        for (status, response) in [(0, &b"{}"[..]), (500, b"{}"), (70_000, b"{}"), (200, b""), (200, b"{")] {
            assert!(matches!(restored(status, response), Err(StoreError::Corrupt(_))), "{status}");
        }
    }
}
