//! CORS: pages of `ALLOWED_ORIGINS` may call `/api/v1`. Keys are sent in `Authorization`, never in cookies.

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::Method;
use actix_web::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, HeaderMap, HeaderValue,
    ORIGIN, VARY,
};
use actix_web::middleware::Next;
use actix_web::{Error, HttpResponse, web};

use crate::http::admission::OriginPolicy;

const METHODS: &str = "GET, HEAD, POST, PATCH, DELETE";
const REQUEST_HEADERS: &str = "authorization, content-type, idempotency-key, x-request-id";
const RESPONSE_HEADERS: &str = "location, retry-after, x-request-id";

/// Answers preflight requests of allowed origins, and adds the CORS headers to responses.
pub async fn allow(
    origins: web::Data<OriginPolicy>,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let origin = request.headers().get(ORIGIN).cloned();
    let allowed = origin.filter(|origin| origin.to_str().is_ok_and(|text| origins.allows(text)));
    let is_preflight =
        request.method() == Method::OPTIONS && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = if is_preflight && allowed.is_some() {
        request.into_response(preflight())
    } else {
        next.call(request).await?.map_into_boxed_body()
    };
    mark(response.headers_mut(), allowed);
    Ok(response)
}

fn preflight() -> HttpResponse {
    HttpResponse::NoContent()
        .insert_header((ACCESS_CONTROL_ALLOW_METHODS, METHODS))
        .insert_header((ACCESS_CONTROL_ALLOW_HEADERS, REQUEST_HEADERS))
        .insert_header((ACCESS_CONTROL_MAX_AGE, "600"))
        .finish()
}

fn mark(headers: &mut HeaderMap, allowed: Option<HeaderValue>) {
    headers.append(VARY, HeaderValue::from_static("Origin"));
    if let Some(origin) = allowed {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(RESPONSE_HEADERS));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::App;
    use actix_web::middleware::from_fn;
    use actix_web::test::{TestRequest, call_service, init_service};

    #[actix_web::test]
    async fn only_pages_of_allowed_origins_are_answered_as_pages() {
        let scope = web::scope("/api").wrap(from_fn(allow)).route("/x", web::get().to(HttpResponse::Ok));
        let app = init_service(
            App::new()
                .app_data(web::Data::new(OriginPolicy::of("https://tracker.example", "https://shop.example")))
                .service(scope),
        )
        .await;
        let preflight = |origin: &'static str| {
            let asked = TestRequest::with_uri("/api/x").method(Method::OPTIONS).insert_header((ORIGIN, origin));
            asked.insert_header((ACCESS_CONTROL_REQUEST_METHOD, "PATCH")).to_request()
        };
        let response = call_service(&app, preflight("https://shop.example")).await;
        assert_eq!(response.status(), 204);
        assert_eq!(response.headers().get(ACCESS_CONTROL_ALLOW_ORIGIN).unwrap(), "https://shop.example");
        assert!(response.headers().contains_key(ACCESS_CONTROL_ALLOW_METHODS));
        let response = call_service(&app, preflight("https://elsewhere.example")).await;
        assert_ne!(response.status(), 204);
        assert!(!response.headers().contains_key(ACCESS_CONTROL_ALLOW_ORIGIN));
        let read = |origin| TestRequest::with_uri("/api/x").insert_header((ORIGIN, origin)).to_request();
        let response = call_service(&app, read("https://elsewhere.example")).await;
        assert!(response.status().is_success() && !response.headers().contains_key(ACCESS_CONTROL_ALLOW_ORIGIN));
        assert_eq!(response.headers().get(VARY).unwrap(), "Origin");
        let response = call_service(&app, read("https://shop.example")).await;
        assert!(response.headers().contains_key(ACCESS_CONTROL_EXPOSE_HEADERS));
    }
}
