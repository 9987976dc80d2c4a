//! Private servers, simulator, replay.

pub mod servers;
