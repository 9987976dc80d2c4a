//! The rules of delivery, pure: ids, positions, states and their transitions, regions, ranking.
//!
//! Owns what is true by definition. Knows no IO and none of the other rooms, and no rule reads a clock: the time is
//! handed in, so that every rule here can be tested by value (the property tests stand beside the code). Only what makes
//! something new draws from the system: ids from its clock and randomness, tokens from its randomness.

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
