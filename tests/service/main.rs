//! The service tests.

mod configuration;
