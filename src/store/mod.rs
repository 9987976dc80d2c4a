//! Access to PostgreSQL, the source of truth. Every SQL statement of the program is here, one file for each family of tables.
//!
//! - Functions take `&mut PgConnection`, so that the caller owns the transaction.
//! - The `statements!` macro lists every statement, so that a test can prepare each one against a real database.
//! - The lock order is the same everywhere: a driver's session, then deliveries by id, then drivers by id. Delivery and driver
//!   rows are locked `FOR NO KEY UPDATE`.
//! - Statements must not need a session of PostgreSQL: no LISTEN, no session locks, no SET except SET LOCAL. So a
//!   transaction-pooling proxy may stand between the service and PostgreSQL. Migrations are the exception.

/// Declares a file's SQL statements as constants and lists them in `STATEMENTS`.
macro_rules! statements {
    ($($(#[$meta:meta])* $name:ident = $sql:expr;)*) => {
        $($(#[$meta])* const $name: &str = $sql;)*
        /// Every statement of this file, by name.
        pub(super) const STATEMENTS: &[(&str, &str)] = &[$((stringify!($name), $name)),*];
    };
}

/// The columns of [`deliveries::Delivery`], read from the table or alias `d`.
macro_rules! delivery_columns {
    () => {
        " d.id, d.shop, d.seller_order_id, d.channel_id, d.order_code, d.external_id, d.metadata, d.items, d.ready_at,
          d.pickup_lat, d.pickup_lon, d.pickup_details, d.drop_lat, d.drop_lon, d.drop_details, d.status, d.attempt,
          d.region, d.search_rounds, d.driver_id, d.assignment_id, d.assigned_at, d.picked_up_at, d.delivered_at,
          d.cancelled_at, d.failure, d.created_at, d.updated_at "
    };
}

/// The columns of [`drivers::Driver`], read from the table or alias `d`.
macro_rules! driver_columns {
    () => {
        " d.id, d.name, d.phone, d.external_id, d.metadata, d.on_duty, d.active, d.capacity, d.used_slots, d.status,
          d.epoch, d.created_at, d.updated_at "
    };
}

pub mod assignments;
pub mod audit;
pub mod commands;
mod commits;
mod connections;
pub mod credentials;
mod database;
pub mod deliveries;
pub mod drivers;
pub mod early_cancellations;
mod error;
pub mod idempotency;
mod json;
pub mod leases;
pub mod outbox;
pub mod overview;
pub mod positions;
mod proof;
pub mod schema;
mod servers;
pub mod sessions;
pub mod shops;
mod statement;
pub mod tracks;
pub mod waiting;

pub use database::{Database, Work};
pub use error::StoreError;

/// Every SQL statement of the program, each with its name. A test prepares them against a real database.
pub fn statements() -> Vec<(&'static str, &'static str)> {
    [
        assignments::STATEMENTS,
        audit::STATEMENTS,
        commands::STATEMENTS,
        commits::STATEMENTS,
        credentials::STATEMENTS,
        deliveries::STATEMENTS,
        drivers::STATEMENTS,
        early_cancellations::STATEMENTS,
        idempotency::STATEMENTS,
        leases::STATEMENTS,
        outbox::STATEMENTS,
        overview::STATEMENTS,
        positions::STATEMENTS,
        proof::STATEMENTS,
        schema::STATEMENTS,
        servers::STATEMENTS,
        sessions::STATEMENTS,
        shops::STATEMENTS,
        tracks::STATEMENTS,
        waiting::STATEMENTS,
    ]
    .concat()
}
