//! Wraps every request: its id, its span, its metrics, and one log line when the service fails.
//!
//! Only the method, route and status of a request are logged: paths may hold external ids, and queries may hold
//! tickets.

use std::time::Instant;

use actix_web::Error;
use actix_web::body::BoxBody;
use actix_web::dev::{Service, ServiceRequest, ServiceResponse, Transform};
use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::middleware::{Next, from_fn};
use tracing::Instrument;
use uuid::Uuid;

use crate::http::problem::Problem;
use crate::sessions::connection_watchdog::ConnectionWatchdog;

const HEADER: HeaderName = HeaderName::from_static("x-request-id");
/// A longer request id is replaced.
const MAX_ID_BYTES: usize = 128;

/// The middleware around the whole application.
pub fn layers<S>()
-> impl Transform<S, ServiceRequest, Response = ServiceResponse<BoxBody>, Error = Error, InitError = ()>
where
    S: Service<ServiceRequest, Response = ServiceResponse<BoxBody>, Error = Error> + 'static,
{
    from_fn(trace)
}

/// Assigns the request id and the span, and counts the request.
async fn trace(request: ServiceRequest, next: Next<BoxBody>) -> Result<ServiceResponse<BoxBody>, Error> {
    let started = Instant::now();
    let _in_flight = request.conn_data::<ConnectionWatchdog>().map(ConnectionWatchdog::request);
    let given = request.headers().get(HEADER).and_then(|value| value.to_str().ok()).filter(|id| is_sane(id));
    let id = given.map_or_else(|| Uuid::now_v7().to_string(), str::to_owned);
    let span = tracing::info_span!("request", request.id = %id, http.method = method_label(request.method()));
    async move {
        let mut response = next.call(request).await?;
        if let Ok(value) = HeaderValue::from_str(&id) {
            response.headers_mut().insert(HEADER, value);
        }
        record(&response, started);
        Ok(response)
    }
    .instrument(span)
    .await
}

fn record<B>(response: &ServiceResponse<B>, started: Instant) {
    let route = response.request().match_pattern().unwrap_or_else(|| "unmatched".to_owned());
    let status = response.status();
    let elapsed_s = started.elapsed().as_secs_f64();
    let problem = response.response().error().and_then(|error| error.as_error::<Problem>());
    let elapsed_ms = elapsed_s * 1000.0;
    match problem.and_then(Problem::cause) {
        Some(cause) if status == StatusCode::SERVICE_UNAVAILABLE => {
            tracing::warn!(http.route = %route, http.status = status.as_u16(), error = cause, "a request had to be put off");
        }
        _ if status == StatusCode::INTERNAL_SERVER_ERROR => {
            let error = problem.and_then(Problem::cause).unwrap_or("not told");
            tracing::error!(http.route = %route, http.status = status.as_u16(), error, "a request failed");
        }
        _ => tracing::debug!(http.route = %route, http.status = status.as_u16(), elapsed_ms, "a request was answered"),
    }
    let (method, code) = (method_label(response.request().method()), status.as_str().to_owned());
    metrics::counter!("driver_tracker_http_requests_total", "route" => route.clone(), "method" => method, "status" => code)
        .increment(1);
    metrics::histogram!("driver_tracker_http_request_duration_seconds", "route" => route).record(elapsed_s);
}

/// The method as a metric label. A method that no route accepts is `other`, so that callers cannot create labels
/// without bound.
fn method_label(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}

/// Whether a caller's id may appear in the logs: short, and only letters, digits and `-_.:`.
fn is_sane(id: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.:".contains(&b);
    (1..=MAX_ID_BYTES).contains(&id.len()) && id.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_ids_are_taken_over() {
        assert!(is_sane("018f3c5e-1d2a.4:x_Y"));
        for bad in ["", "a b", "a\"b", "é", &"a".repeat(129)] {
            assert!(!is_sane(bad), "{bad}");
        }
    }
}
