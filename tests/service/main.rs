//! Black-box tests of the service: the real program, real PostgreSQL and Redis, real sockets, a shop that can fail.

#![allow(missing_docs)]

mod support;

mod access;
mod architecture;
mod cancellations;
mod configuration;
mod drain;
mod driver_http;
mod events;
mod frames;
mod geo_invariant;
mod health;
mod lifecycle;
mod metrics_page;
mod nearest;
mod node_death;
mod operators_deliveries;
mod operators_drivers;
mod orders;
mod pooler;
mod postgres_out;
mod prepared_fleet;
mod races;
mod redis_out;
mod refusals;
mod secrets;
mod sessions;
mod silence;
mod statements;
mod webhook_answers;
