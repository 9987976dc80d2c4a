//! Black-box tests of the service: the real program, real PostgreSQL and Redis, real sockets, a shop that can fail.

#![allow(missing_docs)]

mod support;

mod access;
mod architecture;
mod cancellations;
mod commands;
mod configuration;
mod deadlines;
mod doctor;
mod drain;
mod driver_http;
mod events;
mod fixes;
mod flaps;
mod frames;
mod geo_invariant;
mod healing;
mod health;
mod heartbeats;
mod lifecycle;
mod metrics_page;
mod nearest;
mod node_death;
mod operators_deliveries;
mod operators_drivers;
mod orders;
mod outbox;
mod pace;
mod pooler;
mod postgres_out;
mod prepared_fleet;
mod races;
mod redis_out;
mod redis_rights;
mod refusals;
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
mod webhook_answers;
