//! driver-tracker: tracks delivery drivers in real time and gives every shop order to the nearest available one.
//!
//! The layers, each of which imports only from its left: `domain, process ← config, telemetry, store, presence, webhooks ←
//! shops, dispatch ← protocol, effects ← ingest, assignment, outbox, sessions, background ← http ← listeners ← app`.
//! `store`, `presence` and `webhooks` never import each other. `dev` is behind a feature, and not part of a production build.
//! `tests/service/architecture.rs` holds the exact map.

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
