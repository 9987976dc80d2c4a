//! Admission control of sessions: connections by address, sessions by driver, and permits for concurrent openings.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use actix_web::HttpRequest;
use ipnet::IpNet;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::keyed_rates::{Connections, KeyedRate};
use super::{client_address, count_limited};
use crate::config::Config;
use crate::domain::ids::DriverId;
use crate::http::problem::Problem;

/// The longest time that an opening waits for its permit.
const PERMIT_TIMEOUT: Duration = Duration::from_secs(8);
/// Concurrent openings for each connection of PostgreSQL's pool. The number keeps the pool busy, and a request still
/// waits for a connection only a fraction of a second.
const PERMITS_A_CONNECTION: usize = 8;
/// The `Retry-After` of an address that has too many connections, in seconds.
const CONNECTION_RETRY_S: u64 = 5;

/// The limits on sessions. All workers of the process share them.
pub struct SessionAdmission {
    connections: Connections,
    sessions: KeyedRate<DriverId>,
    /// Sessions that may be opening at once.
    openings: Arc<Semaphore>,
    trusted_proxies: Vec<IpNet>,
}

impl SessionAdmission {
    /// The limits of the configuration.
    pub fn new(config: &Config) -> Self {
        let permits = PERMITS_A_CONNECTION * config.database.max_connections as usize;
        Self {
            connections: Connections::new(config.limits.connections_per_address),
            sessions: KeyedRate::per_minute(config.limits.sessions_per_minute),
            openings: Arc::new(Semaphore::new(permits)),
            trusted_proxies: config.trusted_proxies.clone(),
        }
    }

    /// Counts a connection of the request's address until the guard is dropped.
    pub fn admit_connection(&self, request: &HttpRequest) -> Result<Box<dyn Any>, Problem> {
        self.connections.open(client_address::of(request, &self.trusted_proxies)).ok_or_else(|| {
            count_limited("connections");
            Problem::too_many("too_many_connections", CONNECTION_RETRY_S)
        })
    }

    /// Waits for the permit to open a session. The caller holds it until the session is open. When a fleet reconnects
    /// at once, sessions open in order, as fast as PostgreSQL can serve them. Other requests do not wait behind
    /// thousands of openings.
    pub async fn opening_permit(&self) -> Result<OwnedSemaphorePermit, Problem> {
        let permit = tokio::time::timeout(PERMIT_TIMEOUT, self.openings.clone().acquire_owned()).await;
        permit.ok().and_then(Result::ok).ok_or_else(|| {
            count_limited("turns");
            Problem::busy()
        })
    }

    /// Counts a session that a driver opens. Each opening costs transactions and ends the driver's session before it.
    pub fn admit_session(&self, driver: DriverId) -> Result<(), Problem> {
        self.sessions.count(&driver).map_err(|seconds| {
            count_limited("sessions");
            Problem::too_many("too_many_sessions", seconds)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::test::TestRequest;

    fn admission() -> SessionAdmission {
        SessionAdmission {
            connections: Connections::new(1),
            sessions: KeyedRate::per_minute(1),
            openings: Arc::new(Semaphore::new(1)),
            trusted_proxies: Vec::new(),
        }
    }

    #[test]
    fn sessions_and_connections_have_their_limits() {
        let (admission, driver) = (admission(), DriverId::new());
        assert!(admission.admit_session(driver).is_ok() && admission.admit_session(DriverId::new()).is_ok());
        assert_eq!(admission.admit_session(driver).unwrap_err().code(), "too_many_sessions");
        let request = TestRequest::default().peer_addr("198.51.100.1:4711".parse().unwrap()).to_http_request();
        let open = admission.admit_connection(&request).unwrap();
        assert_eq!(admission.admit_connection(&request).unwrap_err().code(), "too_many_connections");
        drop(open);
        assert!(admission.admit_connection(&request).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn sessions_open_one_after_the_other_and_none_waits_without_end() {
        let admission = admission();
        let first = admission.opening_permit().await.unwrap();
        assert_eq!(admission.opening_permit().await.unwrap_err().code(), "busy");
        let (second, ()) = tokio::join!(admission.opening_permit(), async { drop(first) });
        assert!(second.is_ok());
    }
}
