//! driver-tracker: tracks delivery drivers in real time and gives every shop order to the nearest available one.
//!
//! The rooms, and who may know whom: `domain ← store, presence, vendure ← dispatch ← protocol ← actors ← http ← listeners ← app`; never upward.
//! `store`, `presence` and `vendure` never know each other. `dev` is never needed in production.

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
