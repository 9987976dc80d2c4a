//! Private servers, simulator, replay: what helps to try the service, never needed in production.

pub mod shop;
pub mod simulate;
