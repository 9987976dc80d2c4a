//! Private servers, simulator, replay.
