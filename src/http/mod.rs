//! The HTTP surface: routes, who may use them, and how things look from outside.
//!
//! Owns no rule: use cases are `dispatch`'s, run through [`UseCases`]. [`Problem`]
//! alone knows which error is which status. Every answer is bounded in time and every body in size; nothing that is
//! logged here holds a token, a position or a body.
//!
//! The application wraps itself in [`layers`] (request ids, metrics, the log of failures) and [`same_path`]. Each handler
//! names the components that it uses as `web::Data`; [`ApiServices`] are all of them, one each for the process.

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
mod handshake;
mod health;
mod idempotency;
mod limits;
mod metrics_page;
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

use std::sync::Arc;

use actix_web::middleware::from_fn;
use actix_web::web;

use crate::assignment::CandidateSource;
use crate::config::Config;
use crate::effects::{AssignmentWaiters, UseCases};
use crate::presence::Presence;
use crate::process::{Lifecycle, NodeInfo};
use crate::sessions::{FrameHandler, SessionServices};
use crate::shops::ShopDirectory;
use crate::store::Database;
use drivers::DriverViews;
use orders::OrderIntake;

pub use gate::Gate;
pub use metrics_page::configure as configure_metrics;
pub use problem::Problem;
pub use request_id::layers;
pub use routes::same_path;

/// The components that handlers use.
pub struct ApiServices {
    /// Credentials, limits and origins.
    pub gate: Gate,
    /// The configuration.
    pub config: Arc<Config>,
    /// PostgreSQL.
    pub database: Database,
    /// Redis.
    pub presence: Presence,
    /// The use cases.
    pub use_cases: UseCases,
    /// The shops.
    pub shops: Arc<ShopDirectory>,
    /// The drivers near a place.
    pub candidates: CandidateSource,
    /// Webhook requests that wait for an outcome.
    pub waiters: AssignmentWaiters,
    /// What WebSocket sessions work with.
    pub sessions: Arc<SessionServices>,
    /// The phase of the process.
    pub lifecycle: Lifecycle,
    /// The name and addresses of the node.
    pub node: NodeInfo,
}

/// The components as handlers get them; cheap to clone.
#[derive(Clone)]
pub struct ApiData {
    gate: web::Data<Gate>,
    config: web::Data<Config>,
    database: web::Data<Database>,
    presence: web::Data<Presence>,
    use_cases: web::Data<UseCases>,
    shops: web::Data<ShopDirectory>,
    candidates: web::Data<CandidateSource>,
    orders: web::Data<OrderIntake>,
    drivers: web::Data<DriverViews>,
    frames: web::Data<FrameHandler>,
    sessions: web::Data<SessionServices>,
    lifecycle: web::Data<Lifecycle>,
    node: web::Data<NodeInfo>,
}

impl From<ApiServices> for ApiData {
    fn from(services: ApiServices) -> Self {
        let orders = OrderIntake {
            use_cases: services.use_cases.clone(),
            waiters: services.waiters,
            wait: services.config.assignment.wait,
        };
        let drivers = DriverViews {
            database: services.database.clone(),
            presence: services.presence.clone(),
            ttl: services.config.heartbeat.ttl,
            seen_within_s: services.use_cases.settings().seen_within_s,
        };
        Self {
            gate: web::Data::new(services.gate),
            config: web::Data::from(services.config),
            database: web::Data::new(services.database),
            presence: web::Data::new(services.presence),
            use_cases: web::Data::new(services.use_cases),
            shops: web::Data::from(services.shops),
            candidates: web::Data::new(services.candidates),
            orders: web::Data::new(orders),
            drivers: web::Data::new(drivers),
            frames: web::Data::new(services.sessions.frames.clone()),
            sessions: web::Data::from(services.sessions),
            lifecycle: web::Data::new(services.lifecycle),
            node: web::Data::new(services.node),
        }
    }
}

impl ApiData {
    /// Gives an application its components.
    pub fn register(self, cfg: &mut web::ServiceConfig) {
        cfg.app_data(self.gate)
            .app_data(self.config)
            .app_data(self.database)
            .app_data(self.presence)
            .app_data(self.use_cases)
            .app_data(self.shops)
            .app_data(self.candidates)
            .app_data(self.orders)
            .app_data(self.drivers)
            .app_data(self.frames)
            .app_data(self.sessions)
            .app_data(self.lifecycle)
            .app_data(self.node);
    }
}

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
