//! The HTTP surface: routes, who may use them, and how things look from outside.
//!
//! Owns no rule: use cases are `dispatch`'s, run through [`Node::perform`](crate::actors::Node::perform). [`Problem`]
//! alone knows which error is which status. Every answer is bounded in time and every body in size; nothing that is
//! logged here holds a token, a position or a body.
//!
//! The application wraps itself in [`layers`] (request ids, metrics, the log of failures) and holds `web::Data<Node>` and
//! `web::Data<Gate>`, one each for the process.

mod auth;
mod body;
mod client_address;
mod cors;
mod deliveries;
mod delivery_actions;
mod driver_api;
mod driver_tokens;
mod drivers;
mod events;
mod fields;
mod gate;
mod health;
mod idempotency;
mod limits;
mod orders;
mod pagination;
mod problem;
mod query;
mod request_id;
mod routes;
mod shapes;
mod shops;
mod track;
mod webhook;
mod whereabouts;
mod ws;

use actix_web::middleware::from_fn;
use actix_web::web;

pub use gate::Gate;
pub use problem::Problem;
pub use request_id::layers;

/// Registers every route.
pub fn configure(cfg: &mut web::ServiceConfig) {
    cfg.configure(health::configure)
        .configure(webhook::configure)
        .configure(ws::configure)
        .service(driver_scope())
        .service(operator_scope())
        .default_service(web::to(routes::not_found));
}

/// The drivers' own paths, by their tokens.
fn driver_scope() -> impl actix_web::dev::HttpServiceFactory {
    web::scope("/api/v1/driver")
        .wrap(from_fn(auth::require_driver))
        .wrap(from_fn(cors::allow))
        .configure(driver_api::configure)
        .default_service(web::to(routes::not_found))
}

/// Operators' and shops' paths, by API key.
fn operator_scope() -> impl actix_web::dev::HttpServiceFactory {
    web::scope("/api/v1")
        .wrap(from_fn(auth::require_key))
        .wrap(from_fn(cors::allow))
        .configure(drivers::configure)
        .configure(driver_tokens::configure)
        .configure(deliveries::configure)
        .configure(track::configure)
        .configure(delivery_actions::configure)
        .configure(events::configure)
        .configure(shops::configure)
        .default_service(web::to(routes::not_found))
}
