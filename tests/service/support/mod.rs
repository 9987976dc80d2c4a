//! The harness: real servers, real nodes of the program, real sockets, and a shop that can be told to fail.
//!
//! Every test builds a [`World`], acts on it from the outside alone, and ends with [`World::finish`], which checks the
//! invariants. Tests wait on conditions with deadlines, never on a sleep that hopes.

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

/// How long a test waits for what should happen at once, on a machine that is busy.
pub const SOON: Duration = Duration::from_secs(15);

/// Asks `probe` again and again until it has an answer; panics with `what` when the time is over.
pub async fn eventually<T, F, Fut>(what: &str, within: Duration, mut probe: F) -> T
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Option<T>>,
{
    let deadline = Instant::now() + within;
    loop {
        if let Some(answer) = probe().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "did not happen within {within:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Watches that `probe` stays true for the whole of `during`.
pub async fn holds<F, Fut>(what: &str, during: Duration, mut probe: F)
where
    F: FnMut() -> Fut,
    Fut: Future<Output = bool>,
{
    let end = Instant::now() + during;
    while Instant::now() < end {
        assert!(probe().await, "did not hold for {during:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Runs all of them at once and gives their results in order.
pub async fn together<T, Fut: Future<Output = T>>(work: impl IntoIterator<Item = Fut>) -> Vec<T> {
    futures_util::future::join_all(work).await
}
