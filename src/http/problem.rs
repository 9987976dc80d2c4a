//! Maps errors to HTTP statuses: problem documents of RFC 9457, each with a stable `code`. No other module does this.
//!
//! Invariant: a 5xx reveals nothing internal. Its cause is kept only for the log, where
//! [`crate::http::middleware::request_id`] writes it once.

use std::fmt;

use actix_web::http::StatusCode;
use actix_web::http::header::{
    CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER, SEC_WEBSOCKET_VERSION, UPGRADE, WWW_AUTHENTICATE,
};
use actix_web::{HttpResponse, ResponseError};
use serde::Serialize;

use crate::dispatch::DispatchError;
use crate::domain::delivery::DeliveryStatus;
use crate::domain::driver::DriverRefusal;
use crate::domain::fields::FieldError;
use crate::store::StoreError;

/// The `Retry-After` of a 503, in seconds.
const RETRY_UNAVAILABLE_S: u64 = 2;

/// An error response.
#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
    /// The current state, when a transition was refused.
    state: Option<DeliveryStatus>,
    errors: Vec<FieldError>,
    retry_after_s: Option<u64>,
    /// The internal cause, for the log only.
    cause: Option<String>,
}

#[derive(Serialize)]
struct Document<'a> {
    r#type: &'static str,
    title: &'a str,
    status: u16,
    code: &'a str,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<DeliveryStatus>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [FieldError],
}

impl Problem {
    /// A problem with a status, a stable code, and an explanation for people.
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        Self { status, code, detail, state: None, errors: Vec::new(), retry_after_s: None, cause: None }
    }

    /// 400 with a code.
    pub fn bad_request(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, detail)
    }

    /// 401: the credentials are absent or invalid. The answer never says which.
    pub fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", "valid credentials are required")
    }

    /// 403 with a code.
    pub fn forbidden(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, code, detail)
    }

    /// 404: the resource does not exist, its id is malformed, or it belongs to somebody else.
    pub fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", "there is nothing here")
    }

    /// 409 with a code.
    pub fn conflict(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, code, detail)
    }

    /// 413.
    pub fn too_large(max_bytes: usize) -> Self {
        let detail = format!("the body must be at most {max_bytes} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", detail)
    }

    /// 415.
    pub fn unsupported_media_type() -> Self {
        let detail = "the body must be application/json in UTF-8, without a content encoding";
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail)
    }

    /// 422 that names every invalid field.
    pub fn fields(errors: Vec<FieldError>) -> Self {
        let detail = "some fields are not as they must be; see errors";
        let mut problem = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_fields", detail);
        problem.errors = errors;
        problem
    }

    /// 422 for one field.
    pub fn field(field: &str, code: &'static str, message: impl Into<String>) -> Self {
        Self::fields(vec![FieldError::new(field, code, message)])
    }

    /// 429, with the seconds to wait.
    pub fn too_many(code: &'static str, retry_after_s: u64) -> Self {
        let mut problem = Self::new(StatusCode::TOO_MANY_REQUESTS, code, "too many; come back later");
        problem.retry_after_s = Some(retry_after_s.max(1));
        problem
    }

    /// 503 while this node drains. Another node may accept the same request.
    pub fn draining() -> Self {
        let mut problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, "draining", "this node is shutting down");
        problem.retry_after_s = Some(1);
        problem
    }

    /// 503 while more sessions open at once than the permits allow.
    pub fn busy() -> Self {
        let detail = "many drivers are coming at once; come back in a moment";
        let mut problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", detail);
        problem.retry_after_s = Some(RETRY_UNAVAILABLE_S);
        problem
    }

    /// 503 of a node that is starting or shutting down. Only load balancers see it: the node still accepts requests.
    pub fn not_ready() -> Self {
        let mut problem =
            Self::new(StatusCode::SERVICE_UNAVAILABLE, "not_ready", "this node is starting or shutting down");
        problem.retry_after_s = Some(1);
        problem
    }

    /// 503 when PostgreSQL is unavailable.
    pub fn unavailable(cause: impl fmt::Display) -> Self {
        let detail = "the service cannot do this right now; the same request may be repeated";
        let mut problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail);
        problem.retry_after_s = Some(RETRY_UNAVAILABLE_S);
        problem.cause = Some(cause.to_string());
        problem
    }

    /// 500: an error of this service.
    pub fn internal(cause: impl fmt::Display) -> Self {
        let detail = "something went wrong on our side";
        let mut problem = Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail);
        problem.cause = Some(cause.to_string());
        problem
    }

    /// The stable code.
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// The internal cause, for the log only.
    pub fn cause(&self) -> Option<&str> {
        self.cause.as_deref()
    }

    fn with_state(mut self, state: DeliveryStatus) -> Self {
        self.state = Some(state);
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.status.as_u16(), self.code)
    }
}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    fn error_response(&self) -> HttpResponse {
        let document = Document {
            r#type: "about:blank",
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            code: self.code,
            detail: &self.detail,
            state: self.state,
            errors: &self.errors,
        };
        let mut response = HttpResponse::build(self.status);
        response.insert_header((CONTENT_TYPE, "application/problem+json"));
        response.insert_header((CACHE_CONTROL, "no-store"));
        if let Some(seconds) = self.retry_after_s {
            response.insert_header((RETRY_AFTER, seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response.insert_header((WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")));
        }
        if self.status == StatusCode::UPGRADE_REQUIRED {
            response.insert_header((UPGRADE, HeaderValue::from_static("websocket")));
            response.insert_header((SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13")));
        }
        response.body(serde_json::to_vec(&document).unwrap_or_default())
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        if error.is_unavailable() { Self::unavailable(error) } else { Self::internal(error) }
    }
}

impl From<DispatchError> for Problem {
    fn from(error: DispatchError) -> Self {
        let words = error.to_string();
        match error {
            DispatchError::Store(error) => error.into(),
            DispatchError::NotFound => Self::not_found(),
            DispatchError::InvalidTransition(refusal) => {
                Self::conflict("invalid_transition", words).with_state(refusal.holds)
            }
            DispatchError::AlreadyTerminal(state) => Self::conflict("already_terminal", words).with_state(state),
            DispatchError::AssignmentClosed => Self::conflict("assignment_closed", words),
            DispatchError::SessionReplaced => Self::conflict("session_replaced", words),
            DispatchError::Driver(refusal) => Self::conflict(driver_code(refusal), words),
            DispatchError::Fields(errors) => Self::fields(errors),
            DispatchError::Exists(_) => Self::conflict("exists", words),
            DispatchError::UnderWay => {
                let mut problem = Self::conflict("request_under_way", words);
                problem.retry_after_s = Some(1);
                problem
            }
            DispatchError::KeyReused => Self::new(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused", words),
        }
    }
}

fn driver_code(refusal: DriverRefusal) -> &'static str {
    match refusal {
        DriverRefusal::Full => "driver_full",
        DriverRefusal::NothingHeld => "driver_idle",
        DriverRefusal::StillHolding => "driver_busy",
        DriverRefusal::Inactive => "driver_inactive",
        DriverRefusal::CapacityBelowHeld => "capacity_below_held",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::delivery::DeliveryAction;
    use actix_web::body::to_bytes;
    use serde_json::Value;

    async fn document(problem: Problem) -> (HttpResponse<()>, Value) {
        let (head, body) = problem.error_response().into_parts();
        let body = to_bytes(body).await.unwrap();
        (head.map_body(|_, ()| ()), serde_json::from_slice(&body).unwrap())
    }

    #[actix_web::test]
    async fn a_5xx_tells_nothing_of_the_inside() {
        let store = StoreError::Unavailable("connection to 10.0.0.7 refused".to_owned());
        let problem = Problem::from(DispatchError::from(store));
        assert!(problem.cause().is_some_and(|cause| cause.contains("10.0.0.7")));
        let (response, body) = document(problem).await;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(response.headers().contains_key(RETRY_AFTER));
        assert_eq!(body["code"], "unavailable");
        assert!(!body.to_string().contains("10.0.0.7"));
    }

    #[actix_web::test]
    async fn a_refused_transition_names_the_state_that_holds() {
        let refusal = DeliveryStatus::Delivered.transition(DeliveryAction::Cancel).unwrap_err();
        let (response, body) = document(DispatchError::from(refusal).into()).await;
        assert_eq!(response.status(), StatusCode::CONFLICT);
        assert_eq!((&body["code"], &body["state"]), (&"invalid_transition".into(), &"DELIVERED".into()));
        assert!(body["detail"].as_str().unwrap().contains("DELIVERED"));
    }

    #[actix_web::test]
    async fn fields_are_named_all_at_once() {
        let errors = vec![FieldError::new("pickup.lat", "range", "…"), FieldError::new("channelId", "required", "…")];
        let (response, body) = document(Problem::fields(errors)).await;
        assert_eq!(response.headers().get(CONTENT_TYPE).unwrap(), "application/problem+json");
        assert_eq!(body["status"], 422);
        assert_eq!(body["errors"][0]["field"], "pickup.lat");
        assert_eq!(body["errors"][1]["code"], "required");
    }
}
