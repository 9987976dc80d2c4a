//! Black-box tests of the service.
//!
//! They run the real program against real PostgreSQL and Redis servers, with real sockets and a shop that can be set
//! to fail.
//!
//! Invariants:
//! - A test acts through the service's interfaces. It reads or writes the stores directly only to check or to prepare
//!   a state.
//! - Every test of a running service ends with `World::finish`, which checks the invariants.

#![allow(missing_docs)]

mod support;

mod access;
mod architecture;
mod cancellations;
mod commands;
mod configuration;
mod contract_details;
mod database_commits;
mod database_failover;
mod deadlines;
mod doctor;
mod drain;
mod driver_http;
mod error_subjects;
mod events;
mod first_order;
mod fixes;
mod flaps;
mod frame_limits;
mod frames;
mod geo_invariant;
mod handshakes;
mod health;
mod heartbeat_intervals;
mod heartbeats;
mod large_orders;
mod lifecycle;
mod metrics_page;
mod nearest;
mod node_death;
mod numbers;
mod operators_deliveries;
mod operators_drivers;
mod orders;
mod outbox;
mod paths;
mod pooler;
mod postgres_out;
mod prepared_fleet;
mod proofs;
mod queries;
mod races;
mod reasons;
mod redis_out;
mod redis_repair;
mod redis_rights;
mod refusals;
mod repeats;
mod samples;
mod schemas;
mod secrets;
mod sessions;
mod shops;
mod silence;
mod soak;
mod statements;
mod step_times;
mod stuck;
mod tracks;
mod walkthroughs;
mod webhook_answers;
