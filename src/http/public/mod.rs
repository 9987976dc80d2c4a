//! The paths without credentials: health and metrics.

pub mod health;
pub mod metrics_page;
