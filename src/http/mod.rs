//! The HTTP API: its routes, the checks before each handler, and the JSON that it returns.
//!
//! Invariants: [`Problem`] alone maps errors to statuses. Every response is bounded in time and every body in size. No
//! log line here holds a token, a position or a body.
//!
//! Must not: decide anything. The use cases belong to `dispatch` and run through [`UseCases`](crate::effects::UseCases).
//!
//! The application is wrapped in [`layers`] (request ids, metrics, the log of failures) and [`same_path`]. Each handler
//! names the components that it uses as `web::Data`. [`ApiServices`] holds one instance of each for the process.

mod admission;
mod body;
mod drivers;
mod fields;
mod idempotency;
mod middleware;
mod operators;
mod pagination;
mod problem;
mod public;
mod query;
mod routes;
mod services;
mod shops;

use actix_web::middleware::from_fn;
use actix_web::web;

use middleware::{auth, cors};
use operators::{deliveries, delivery_actions, driver_tokens, fleet, outbound_events, shop_settings, track};

pub use middleware::request_id::layers;
pub use problem::Problem;
pub use public::metrics_page::configure as configure_metrics;
pub use routes::same_path;
pub use services::{ApiData, ApiServices};

/// Registers every route.
pub fn configure(cfg: &mut web::ServiceConfig) {
    cfg.configure(public::health::configure)
        .configure(shops::webhook::configure)
        .configure(drivers::socket::configure)
        .service(driver_scope())
        .service(operator_scope())
        .default_service(web::to(routes::not_found));
}

/// The paths of drivers, authenticated by driver token.
fn driver_scope() -> impl actix_web::dev::HttpServiceFactory {
    web::scope("/api/v1/driver")
        .wrap(from_fn(auth::require_driver))
        .wrap(from_fn(cors::allow))
        .configure(drivers::api::configure)
        .default_service(web::to(routes::not_found))
}

/// The paths of operators and shops, authenticated by API key.
fn operator_scope() -> impl actix_web::dev::HttpServiceFactory {
    web::scope("/api/v1")
        .wrap(from_fn(auth::require_key))
        .wrap(from_fn(cors::allow))
        .configure(fleet::configure)
        .configure(driver_tokens::configure)
        .configure(deliveries::configure)
        .configure(track::configure)
        .configure(delivery_actions::configure)
        .configure(outbound_events::configure)
        .configure(shop_settings::configure)
        .default_service(web::to(routes::not_found))
}
