//! The components that handlers use, each registered as its own `web::Data`.

use std::sync::Arc;

use actix_web::web;

use super::admission::{OriginPolicy, RateLimits, SessionAdmission, ShopCredentials};
use super::operators::fleet::DriverViews;
use super::shops::order_intake::OrderIntake;
use crate::assignment::CandidateSource;
use crate::config::Config;
use crate::effects::{AssignmentWaiters, UseCases};
use crate::presence::Presence;
use crate::process::{Lifecycle, NodeInfo};
use crate::sessions::{FrameHandler, SessionServices};
use crate::shops::ShopDirectory;
use crate::store::Database;

/// The components that handlers use.
pub struct ApiServices {
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
    /// The search for drivers near a place.
    pub candidates: CandidateSource,
    /// Webhook requests that wait for an outcome.
    pub waiters: AssignmentWaiters,
    /// The services of WebSocket sessions.
    pub sessions: Arc<SessionServices>,
    /// The phase of the process.
    pub lifecycle: Lifecycle,
    /// The name and addresses of the node.
    pub node: NodeInfo,
}

/// The components as `web::Data`; cheap to clone.
#[derive(Clone)]
pub struct ApiData {
    limits: web::Data<RateLimits>,
    admission: web::Data<SessionAdmission>,
    origins: web::Data<OriginPolicy>,
    credentials: web::Data<ShopCredentials>,
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
            limits: web::Data::new(RateLimits::new(&services.config, services.shops.clone())),
            admission: web::Data::new(SessionAdmission::new(&services.config)),
            origins: web::Data::new(OriginPolicy::new(&services.config, services.node.http_addr)),
            credentials: web::Data::new(ShopCredentials::new(services.shops.clone())),
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
    /// Registers the components with an application.
    pub fn register(self, cfg: &mut web::ServiceConfig) {
        cfg.app_data(self.limits)
            .app_data(self.admission)
            .app_data(self.origins)
            .app_data(self.credentials)
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
