//! The HTTP surface: routes, who may use them, and how things look from outside.
//!
//! Owns no rule: use cases are `dispatch`'s, run through [`UseCases`](crate::effects::UseCases). [`Problem`]
//! alone knows which error is which status. Every answer is bounded in time and every body in size; nothing that is
//! logged here holds a token, a position or a body.
//!
//! The application wraps itself in [`layers`] (request ids, metrics, the log of failures) and [`same_path`]. Each handler
//! names the components that it uses as `web::Data`; [`ApiServices`] are all of them, one each for the process.

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

/// The drivers' own paths, by their tokens.
fn driver_scope() -> impl actix_web::dev::HttpServiceFactory {
    web::scope("/api/v1/driver")
        .wrap(from_fn(auth::require_driver))
        .wrap(from_fn(cors::allow))
        .configure(drivers::api::configure)
        .default_service(web::to(routes::not_found))
}

/// Operators' and shops' paths, by API key.
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
