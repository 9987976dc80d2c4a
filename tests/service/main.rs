//! The service tests.

mod architecture;
