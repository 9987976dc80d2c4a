//! The rules of delivery: ids, positions, states and their transitions, regions, ranking.
//!
//! - Every rule is a pure function. The caller passes the time, so every rule can be tested by value. The property tests are
//!   in the same file as the rule.
//! - Only constructors of new values read from the system: ids use the clock and randomness, tokens use randomness.
//!
//! This module must not do IO, must not use another module of the crate, and no rule may read a clock.

pub mod delivery;
pub mod driver;
pub mod event;
pub mod fields;
pub mod heartbeat;
pub mod ids;
pub mod json;
pub mod moment;
pub mod network;
pub mod order;
pub mod plausibility;
pub mod position;
pub mod postgres_url;
pub mod ranking;
pub mod region;
pub mod secret_token;
pub mod webhook_secret;
