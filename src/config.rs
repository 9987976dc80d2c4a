//! Typed and validated configuration.
