//! The service tests.

mod configuration;
mod statements;
