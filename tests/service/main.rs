//! The service tests.
