//! The service tests: black-box, against the real program, PostgreSQL and Redis.

mod architecture;
mod configuration;
mod statements;
