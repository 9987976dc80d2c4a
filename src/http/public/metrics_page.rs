//! The page `/metrics`, on its own port.

use actix_web::{HttpResponse, web};

use crate::http::routes::{get, not_found, resource};
use crate::telemetry::Metrics;

/// Registers the page, and a response for every other path.
pub fn configure(cfg: &mut web::ServiceConfig) {
    cfg.service(resource("/metrics", "GET").route(get().to(page))).default_service(web::to(not_found));
}

async fn page(metrics: web::Data<Metrics>) -> HttpResponse {
    HttpResponse::Ok().content_type("text/plain; version=0.0.4; charset=utf-8").body(metrics.render())
}
