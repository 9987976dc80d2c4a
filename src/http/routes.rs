//! Helpers that every route uses.

use crate::store::Database;
use actix_web::guard::{self, Guard};
use actix_web::http::StatusCode;
use actix_web::http::header::{ALLOW, HeaderValue};
use actix_web::middleware::NormalizePath;
use actix_web::{HttpResponse, Resource, ResponseError, Route, web};
use sqlx::PgConnection;

use crate::http::problem::Problem;
use crate::store::{StoreError, Work};

/// A resource that answers methods outside `allow` with a 405 that lists `allow`.
pub fn resource(path: &str, allow: &'static str) -> Resource {
    web::resource(path).default_service(web::to(move || async move { method_not_allowed(allow) }))
}

fn method_not_allowed(allow: &'static str) -> HttpResponse {
    let allow = with_head(allow);
    let detail = format!("this takes {allow}");
    let problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail);
    let mut response = problem.error_response();
    if let Ok(allow) = HeaderValue::try_from(allow) {
        response.headers_mut().insert(ALLOW, allow);
    }
    response
}

/// A path that takes GET takes HEAD too.
fn with_head(allow: &str) -> String {
    allow.replacen("GET", "GET, HEAD", 1)
}

/// What nothing else took.
pub async fn not_found() -> Result<HttpResponse, Problem> {
    Err(Problem::not_found())
}

/// Makes a path with a trailing slash the same as the path without it. Wraps an application.
pub fn same_path() -> NormalizePath {
    NormalizePath::trim()
}

/// GET and HEAD.
pub fn get() -> Route {
    web::route().guard(guard::fn_guard(|context| guard::Get().check(context) || guard::Head().check(context)))
}

/// POST.
pub fn post() -> Route {
    web::post()
}

/// Runs `work` in its own transaction. Its only errors are store errors.
pub async fn transact<T, F>(database: &Database, work: F) -> Result<T, Problem>
where
    F: for<'c> FnOnce(&'c mut PgConnection) -> Work<'c, T, StoreError> + Send + 'static,
    T: Send + 'static,
{
    Ok(database.transact(work).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_405_names_head_beside_get() {
        for (given, named) in [("GET", "GET, HEAD"), ("GET, POST", "GET, HEAD, POST"), ("POST", "POST")] {
            let response = method_not_allowed(given);
            assert_eq!(response.headers().get(ALLOW).unwrap(), named);
        }
    }
}
