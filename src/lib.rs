//! driver-tracker tracks delivery drivers in real time and assigns every shop order to the nearest available driver.
//!
//! The layers, lowest first:
//! `domain, process ← config, telemetry, store, presence, webhooks ← shops, dispatch ← protocol, effects ← ingest,
//! assignment, outbox, sessions, background ← http ← listeners ← app`.
//!
//! Invariants:
//! - A module imports only from lower layers. `tests/service/architecture.rs` lists the exact imports and enforces them.
//! - `store`, `presence` and `webhooks` never import each other.
//! - `cli` parses the command line. `commands` runs the commands that start no service.
//! - `dev` exists only with the feature `dev`. Production never needs it.

pub mod app;
pub mod assignment;
pub mod background;
pub mod cli;
pub mod commands;
pub mod config;
#[cfg(feature = "dev")]
pub mod dev;
pub mod dispatch;
pub mod domain;
pub mod effects;
pub mod http;
pub mod ingest;
pub mod listeners;
pub mod outbox;
pub mod presence;
pub mod process;
pub mod protocol;
pub mod sessions;
pub mod shops;
pub mod store;
pub mod telemetry;
pub mod webhooks;
