//! The test harness: real PostgreSQL and Redis servers, real nodes of the program, real sockets, and a shop that can
//! be set to fail.
//!
//! Invariants:
//! - Every test builds a [`World`], acts on it only through the service's interfaces, and ends with
//!   [`World::finish`].
//! - [`World::finish`] checks the invariants in PostgreSQL and Redis.
//!
//! A test waits for a condition with a deadline. It must not sleep for a fixed time in the hope that a condition then
//! holds.

pub mod crowd;
pub mod dev_run;
pub mod driver;
pub mod http;
pub mod invariants;
pub mod node;
pub mod orders;
pub mod other_shop;
pub mod places;
pub mod plan;
pub mod proxy;
pub mod raw_http;
pub mod redis;
pub mod registry;
pub mod schema;
pub mod servers;
pub mod session;
pub mod shop;
pub mod socket;
pub mod standby;
pub mod world;

pub use crowd::Crowd;
pub use driver::Driver;
pub use http::Reply;
pub use node::Node;
pub use orders::Order;
pub use other_shop::OtherShop;
pub use places::{Place, RESTAURANT};
pub use session::Session;
pub use shop::{Reaction, Shop};
pub use socket::Stuck;
pub use world::World;

use std::future::Future;
use std::time::{Duration, Instant};

/// How long a test waits for an effect that the service causes without delay. It is long because the machine may be
/// busy.
pub const SOON: Duration = Duration::from_secs(15);

/// Calls `probe` until it returns `Some`, and returns that value. Panics with `what` when `within` is over.
pub async fn eventually<T, F, Fut>(what: &str, within: Duration, mut probe: F) -> T
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Option<T>>,
{
    let deadline = Instant::now() + within;
    loop {
        if let Some(response) = probe().await {
            return response;
        }
        assert!(Instant::now() < deadline, "the condition did not hold within {within:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Asserts that `probe` returns `true` at every check during `during`. Panics with `what` otherwise.
pub async fn holds<F, Fut>(what: &str, during: Duration, mut probe: F)
where
    F: FnMut() -> Fut,
    Fut: Future<Output = bool>,
{
    let end = Instant::now() + during;
    while Instant::now() < end {
        assert!(probe().await, "the condition did not hold for the whole {during:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Runs all futures concurrently and returns their results in order.
pub async fn join_all<T, Fut: Future<Output = T>>(work: impl IntoIterator<Item = Fut>) -> Vec<T> {
    futures_util::future::join_all(work).await
}
